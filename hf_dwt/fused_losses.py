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

# Logits of a block. A processor keeps a few megabytes at hand; a GPU wants large kernels.
_BLOCK_ON_CPU = 2**20
_BLOCK_ELSEWHERE = 2**26


class Losses(NamedTuple):
    """Losses per position, each of shape (positions,), float32, nats.

    Attributes:
        hard: As `losses.hard_loss`.
        soft: As `losses.soft_loss` over the tokens that both models know, both distributions renormalised over them; 0
            where the teacher lacks the label's token, and without a teacher.
        teacher_hard: The teacher's hard loss, 0 where it lacks the label's token and without a teacher; no gradient.
            None if what is kept of a teacher does not tell it.
        teacher_is_finite: Bool, whether all of the teacher's logits are finite there.
    """

    hard: Tensor
    soft: Tensor
    teacher_hard: Tensor | None
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
        blocks = [
            _losses_of_block(*each, temperature=temperature, label_smoothing=label_smoothing)
            for each in in_blocks(student_logits, teacher_logits, labels)
        ]
        hard, soft, teacher_hard, finite = (torch.cat(columns) for columns in zip(*blocks, strict=True))
        ctx.save_for_backward(student_logits, teacher_logits, labels)
        ctx.settings = temperature, label_smoothing
        ctx.mark_non_differentiable(teacher_hard, finite)
        return hard, soft, teacher_hard, finite

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hard_grad: Tensor, soft_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        student_logits, teacher_logits, labels = ctx.saved_tensors
        temperature, label_smoothing = ctx.settings
        hard_N = hard_grad.masked_fill(labels == IGNORED_LABEL, 0.0)
        num_shared = 0 if teacher_logits is None else teacher_logits.shape[-1]
        soft_N = soft_grad.masked_fill(labels >= num_shared, 0.0)
        gradient_NV, start = torch.empty_like(student_logits), 0
        for each in in_blocks(student_logits, teacher_logits, labels, hard_N[:, None], soft_N[:, None]):
            gradient = _gradient_of_block(*each, temperature=temperature, label_smoothing=label_smoothing)
            gradient_NV[start : start + len(gradient)] = gradient
            start += len(gradient)
        return gradient_NV, None, None, None, None


def in_blocks(student_logits: Tensor, teacher_logits: Tensor | None, *columns: Tensor) -> Iterator[tuple[Any, ...]]:
    """Rows that are taken together: at least one block, of both logits in float32, then of the columns.

    Args:
        student_logits: Shape (positions, vocabulary).
        teacher_logits: Shape (positions, shared tokens), or None.
        columns: Each of shape (positions, ...).
    """
    num_rows, vocab_size = student_logits.shape
    most = _BLOCK_ON_CPU if student_logits.device.type == "cpu" else _BLOCK_ELSEWHERE
    size = max(1, most // vocab_size)
    for start in range(0, max(num_rows, 1), size):
        rows = slice(start, start + size)
        teacher = None if teacher_logits is None else teacher_logits[rows].float()
        yield student_logits[rows].float(), teacher, *(column[rows] for column in columns)


def _losses_of_block(
    student: Tensor, teacher: Tensor | None, labels: Tensor, *, temperature: float, label_smoothing: float
) -> tuple[Tensor, ...]:
    student_logs = student.log_softmax(dim=-1)
    hard = _cross_entropy(student_logs, labels, label_smoothing)
    if teacher is None:
        return hard, torch.zeros_like(hard), torch.zeros_like(hard), torch.ones_like(labels, dtype=torch.bool)
    known = labels < teacher.shape[-1]
    teacher_logs = teacher.log_softmax(dim=-1)
    teacher_hard = _cross_entropy(teacher_logs, labels.where(known, IGNORED_LABEL), label_smoothing)
    # A sum is finite only if all of its terms are (a float32 does not overflow over a vocabulary of logits).
    finite = teacher_logs.sum(dim=-1).isfinite()
    if temperature != 1:
        student_logs, teacher_logs = ((each / temperature).log_softmax(dim=-1) for each in (student, teacher))
    shared_logs = student_logs[:, : teacher.shape[-1]]
    if shared_logs.shape != student_logs.shape:
        shared_logs = shared_logs.log_softmax(dim=-1)
    divergence = torch.linalg.vecdot(teacher_logs.exp(), teacher_logs - shared_logs)
    return hard, divergence.where(known, 0.0), teacher_hard, finite


def _cross_entropy(logs: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    known = labels != IGNORED_LABEL
    target = logs.gather(-1, labels.where(known, 0)[:, None]).squeeze(-1)
    if label_smoothing:
        target = torch.lerp(target, logs.mean(dim=-1), label_smoothing)
    return -target.where(known, 0.0)


def _gradient_of_block(
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor,
    hard_N1: Tensor,
    soft_N1: Tensor,
    *,
    temperature: float,
    label_smoothing: float,
) -> Tensor:
    """Softmax less target, of both losses; at temperature 1 both share the student's softmax."""
    num_shared = 0 if teacher is None else teacher.shape[-1]
    shares_softmax = temperature == 1 and num_shared == student.shape[-1]
    gradient = student.softmax(dim=-1).mul_(hard_N1 + soft_N1 if shares_softmax else hard_N1)
    targets = labels.where(labels != IGNORED_LABEL, 0)[:, None]
    gradient.scatter_add_(-1, targets, hard_N1 * (label_smoothing - 1))
    if label_smoothing:
        gradient.sub_(hard_N1 * (label_smoothing / student.shape[-1]))
    if teacher is not None and shares_softmax:
        gradient.addcmul_(teacher.softmax(dim=-1), soft_N1, value=-1)
    elif teacher is not None:
        difference = (student[:, :num_shared] / temperature).softmax(dim=-1)
        difference.sub_((teacher / temperature).softmax(dim=-1))
        gradient[:, :num_shared].addcmul_(difference, soft_N1 / temperature)
    return gradient
