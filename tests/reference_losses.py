"""Formulas that faster forms are compared with."""

from torch import Tensor

from hf_dwt.losses import soft_loss


def shared_soft_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 1.0
) -> Tensor:
    """Soft loss over the tokens that both models know, per position; 0 where the teacher lacks the label's token.

    Args:
        student_logits: Shape (..., student's vocabulary).
        teacher_logits: Shape (..., shared tokens), the student's first tokens. Both distributions are renormalised
            over them.
        labels: Shape (...), token ids of the student's vocabulary.
        temperature: As in `soft_loss`.

    Returns:
        Shape (...), nats, float32.
    """
    num_shared = teacher_logits.shape[-1]
    divergence = soft_loss(student_logits[..., :num_shared], teacher_logits, temperature)
    return divergence.masked_fill(labels >= num_shared, 0.0)
