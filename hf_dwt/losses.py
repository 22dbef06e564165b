"""The two losses of distillation from a weak teacher, per position, and the functions that reduce them.

Pure functions of tensors: they hold no model and know nothing of masks, shifts or ranks.

Reference:
    Lee et al., 2023, equations 1 to 3 (https://arxiv.org/abs/2305.18239).
"""

# Axes in names: N positions, V vocabulary.

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED_LABEL = -100
"""The label of a token that no prediction is asked for, as everywhere in transformers."""


def hard_loss(student_logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the student against the true tokens, per position.

    Args:
        student_logits: Shape (..., vocabulary), any float dtype; computed in float32.
        labels: Shape (...), token ids; -100 is ignored and gives 0, in value and gradient. (Where the logits are not
            finite the gradient is NaN all the same: no trick hides a broken model.)
        label_smoothing: Share of the target, in [0, 1), that is spread evenly over the vocabulary.

    Returns:
        Shape (...), nats, float32, >= 0.

    Reference:
        Lee et al., 2023, equation 1.

    Example:
        >>> import torch
        >>> hard_loss(torch.zeros(2, 4), torch.tensor([3, -100]))
        tensor([1.3863, 0.0000])
    """
    logits_NV = student_logits.float().reshape(-1, student_logits.shape[-1])
    loss_N = F.cross_entropy(
        logits_NV,
        labels.flatten(),
        reduction="none",
        ignore_index=IGNORED_LABEL,
        label_smoothing=label_smoothing,
    )
    return loss_N.view_as(labels)


def soft_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence from the softened teacher to the softened student, per position.

    Args:
        student_logits: Shape (..., vocabulary), any float dtype; computed in float32.
        teacher_logits: Same shape. Detach it: gradients would flow.
        temperature: Divides both logits, > 0. 1 leaves them as they are.

    Returns:
        Shape (...), nats, float32, >= 0 up to rounding; 0 where both models agree. The trainer multiplies by
        temperature**2 (in the weights).

    Reference:
        Lee et al., 2023, equation 2.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> soft_loss(student, teacher)
        tensor([0.1109])
        >>> soft_loss(teacher, teacher)
        tensor([0.])
    """
    student_log_probabilities = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher_log_probabilities = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    divergence = F.kl_div(student_log_probabilities, teacher_log_probabilities, reduction="none", log_target=True)
    return divergence.sum(dim=-1)


def blended_loss(hard: Tensor, soft: Tensor, *, hard_loss_weight: float, soft_loss_weight: float) -> Tensor:
    """Weighted sum of both losses over some positions: a scalar, nats.

    Args:
        hard: Shape (positions,), nats.
        soft: Shape (positions,), nats; 0 where the teacher has no say.
        hard_loss_weight: Factor of the hard loss.
        soft_loss_weight: Factor of the soft loss, temperature**2 included.

    Reference:
        Lee et al., 2023, equation 3.

    Example:
        >>> import torch
        >>> hard, soft = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0])
        >>> blended_loss(hard, soft, hard_loss_weight=1.0, soft_loss_weight=4.0)
        tensor(5.)
    """
    return (hard_loss_weight * hard + soft_loss_weight * soft).sum()


def share_of_step(total: Tensor, num_items: Tensor | int) -> Tensor:
    """Turn a loss that is summed over a micro-batch into its share of the mean over an optimiser step.

    Args:
        total: A scalar, nats.
        num_items: Number of positions in the whole optimiser step, over micro-batches and ranks. 0 counts as 1:
            without a position the loss is a finite 0.

    Returns:
        A scalar, nats. Summed over the micro-batches and ranks of a step it is the mean over the step's positions,
        however they are divided.
    """
    return total / torch.as_tensor(num_items, device=total.device).clamp(min=1)
