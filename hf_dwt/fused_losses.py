"""Both losses of distillation, and the teacher's own, in one pass over the vocabulary.

The plain forms in `losses` store a softmax of each model and several tensors of its size between them. Here rows are
taken a block at a time, small enough to stay in a processor's cache, and nothing of the size of the logits is stored
but the gradient, once, when it is asked for.

Reference:
    Lee et al., 2023, equations 1 and 2 (https://arxiv.org/abs/2305.18239).
"""

# Axes in names: N positions, V vocabulary, S tokens that the teacher shares.

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_dwt.losses import IGNORED_LABEL

# Logits of a block. A processor keeps a megabyte at hand; a GPU wants large kernels.
_BLOCK_ON_CPU = 2**18
_BLOCK_ELSEWHERE = 2**26


class Losses(NamedTuple):
    """Losses per position, each of shape (positions,), float32, nats.

    Attributes:
        hard: As `losses.hard_loss`.
        soft: As `losses.shared_soft_loss`; 0 without a teacher.
        teacher_hard: The teacher's hard loss, 0 where it lacks the label's token and without a teacher; no gradient.
        teacher_is_finite: Bool, whether all of the teacher's logits are finite there.
    """

    hard: Tensor
    soft: Tensor
    teacher_hard: Tensor
    teacher_is_finite: Tensor


def fused_losses(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
) -> Losses:
    """Compute all losses of some positions, equal to the plain forms in value and in the student's gradient.

    Args:
        student_logits: Shape (positions, vocabulary), any float dtype; computed in float32.
        teacher_logits: Shape (positions, shared tokens), the student's first tokens; None if the teacher is not asked.
            No gradient flows to it.
        labels: Shape (positions,), token ids; -100 is ignored by the hard losses.
        temperature: Divides both logits in the soft loss, > 0.
        label_smoothing: Share of the hard losses' target, in [0, 1), that is spread evenly over the vocabulary.
    """
    teacher = None if teacher_logits is None else teacher_logits.detach()
    return Losses(
        *_FusedLosses.apply(student_logits, teacher, labels, temperature, label_smoothing)  # type: ignore[no-untyped-call]
    )


class _FusedLosses(torch.autograd.Function):
    """Keeps the logits themselves, which are there anyway, and a few numbers per position."""

    @staticmethod
    def forward(
        ctx: Any,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        labels: Tensor,
        temperature: float,
        label_smoothing: float,
    ) -> tuple[Tensor, ...]:
        hard, soft, teacher_hard = (labels.new_zeros(labels.shape, dtype=torch.float32) for _ in range(3))
        finite = torch.ones_like(labels, dtype=torch.bool)
        for rows in _blocks(student_logits):
            student = student_logits[rows].float()
            hard[rows] = _cross_entropy(student, labels[rows], label_smoothing)
            if teacher_logits is None:
                continue
            teacher = teacher_logits[rows].float()
            known = labels[rows] < teacher.shape[-1]
            teacher_hard[rows] = _cross_entropy(teacher, labels[rows].where(known, IGNORED_LABEL), label_smoothing)
            divergence = _divergence(student[:, : teacher.shape[-1]], teacher, temperature)
            soft[rows] = divergence.where(known, 0.0)
            # A sum is finite only if all of its terms are (a float32 does not overflow over a vocabulary of logits).
            finite[rows] = teacher.sum(dim=-1).isfinite()
        ctx.save_for_backward(student_logits, teacher_logits, labels)
        ctx.settings = temperature, label_smoothing
        ctx.mark_non_differentiable(teacher_hard, finite)
        return hard, soft, teacher_hard, finite

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hard_grad: Tensor, soft_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        student_logits, teacher_logits, labels = ctx.saved_tensors
        temperature, label_smoothing = ctx.settings
        gradient_NV = torch.empty_like(student_logits)
        hard_N1 = hard_grad.masked_fill(labels == IGNORED_LABEL, 0.0)[:, None]
        for rows in _blocks(student_logits):
            student = student_logits[rows].float()
            gradient = _cross_entropy_gradient(student, labels[rows], label_smoothing).mul_(hard_N1[rows])
            if teacher_logits is not None:
                teacher = teacher_logits[rows].float()
                num_shared = teacher.shape[-1]
                soft_N1 = soft_grad[rows].masked_fill(labels[rows] >= num_shared, 0.0)[:, None]
                difference = _softmax_difference(student[:, :num_shared], teacher, temperature)
                gradient[:, :num_shared].addcmul_(difference, soft_N1 / temperature)
            gradient_NV[rows] = gradient
        return gradient_NV, None, None, None, None


def _blocks(logits: Tensor) -> Iterator[slice]:
    num_rows, vocab_size = logits.shape
    most = _BLOCK_ON_CPU if logits.device.type == "cpu" else _BLOCK_ELSEWHERE
    size = max(1, most // vocab_size)
    return (slice(start, start + size) for start in range(0, num_rows, size))


def _cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    known = labels != IGNORED_LABEL
    target = logits.gather(-1, labels.where(known, 0)[:, None]).squeeze(-1)
    if label_smoothing:
        target = torch.lerp(target, logits.mean(dim=-1), label_smoothing)
    return (logits.logsumexp(dim=-1) - target).where(known, 0.0)


def _cross_entropy_gradient(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    gradient = logits.softmax(dim=-1)
    known = labels != IGNORED_LABEL
    given = known.to(gradient.dtype).mul_(label_smoothing - 1)
    gradient.scatter_add_(-1, labels.where(known, 0)[:, None], given[:, None])
    return gradient.sub_(label_smoothing / logits.shape[-1]) if label_smoothing else gradient


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence as the teacher's mean of the differences: exactly 0 between equals."""
    if temperature != 1:
        student, teacher = student / temperature, teacher / temperature
    teacher_normaliser = teacher.logsumexp(dim=-1)
    probabilities = (teacher - teacher_normaliser[:, None]).exp_()
    mean_difference: Tensor = torch.linalg.vecdot(probabilities, teacher - student)
    return mean_difference - teacher_normaliser + student.logsumexp(dim=-1)


def _softmax_difference(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    if temperature != 1:
        student, teacher = student / temperature, teacher / temperature
    difference: Tensor = student.softmax(dim=-1).sub_(teacher.softmax(dim=-1))
    return difference
