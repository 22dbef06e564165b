"""Both losses against a teacher of whom only the most likely tokens are known, the rest as one bucket.

The soft loss is the divergence of the distributions over the k tokens and the bucket: a lower bound of the KL
divergence over the vocabulary, since telling the bucket's tokens apart could only add to it. It is that divergence
itself if k is the vocabulary.
"""

# Axes in names: N positions, K most likely tokens, V vocabulary, S tokens that the teacher shares.

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_dwt.fused_losses import Losses, in_blocks
from hf_dwt.losses import IGNORED_LABEL


@dataclass(frozen=True)
class Excerpt:
    """What is kept of a teacher's predictions at some positions.

    Attributes:
        num_shared_tokens: Tokens that the distribution is over: ids below this.
        ids: Shape (positions, k), the most likely tokens.
        logs: Shape (positions, k), their log-probabilities.
        rest: Shape (positions,), probability of all other tokens.
        label_logs: Shape (positions,), log-probability of the true token, 0 where the teacher lacks it.
    """

    num_shared_tokens: int
    ids: Tensor
    logs: Tensor
    rest: Tensor
    label_logs: Tensor

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """`ids`, `logs` and `rest`."""
        return self.ids, self.logs, self.rest

    def __getitem__(self, rows: slice) -> "Excerpt":
        parts = (each[rows] for each in (self.ids, self.logs, self.rest, self.label_logs))
        return Excerpt(self.num_shared_tokens, *parts)


def excerpt_of(teacher_logits: Tensor, labels: Tensor, top_k: int) -> Excerpt:
    """Keep the most likely tokens of a teacher's predictions, and the mass of the others.

    Args:
        teacher_logits: Shape (positions, shared tokens).
        labels: Shape (positions,), the true tokens.
        top_k: Tokens to keep, at most all.
    """
    logs_NS = teacher_logits.float().log_softmax(dim=-1)
    num_shared = logs_NS.shape[-1]
    logs_NK, ids_NK = logs_NS.topk(min(top_k, num_shared), dim=-1)
    rest_N = _log_rest(logs_NS, ids_NK).exp()
    known = labels < num_shared
    label_logs_N = logs_NS.gather(-1, labels.where(known, 0)[:, None]).squeeze(-1).where(known, 0.0)
    return Excerpt(num_shared, ids_NK, logs_NK, rest_N, label_logs_N)


def top_k_soft_loss(student_logits: Tensor, excerpt: Excerpt) -> Tensor:
    """Divergence from the teacher to the student over the k tokens and the bucket of all others, per position.

    The plain form: training takes `excerpt_losses`, which is equal to it and to the hard loss.

    Args:
        student_logits: Shape (positions, vocabulary), computed in float32.
        excerpt: Of the teacher, at the same positions, at temperature 1.

    Returns:
        Shape (positions,), nats, float32; at most the KL divergence over the shared tokens.
    """
    student_logs_NS = student_logits[:, : excerpt.num_shared_tokens].float().log_softmax(dim=-1)
    ids_NK, teacher_logs_NK, rest_N = excerpt.ids.long(), excerpt.logs.float(), excerpt.rest.float()
    own_NK = student_logs_NS.gather(-1, ids_NK)
    kept_N = (teacher_logs_NK.exp() * (teacher_logs_NK - own_NK)).sum(dim=-1)
    if ids_NK.shape[-1] == excerpt.num_shared_tokens:
        return kept_N
    log_rest_N = _log_rest(student_logs_NS, ids_NK)
    return kept_N + torch.xlogy(rest_N, rest_N) - rest_N * log_rest_N


def excerpt_losses(student_logits: Tensor, excerpt: Excerpt, labels: Tensor, label_smoothing: float = 0.0) -> Losses:
    """Compute all losses of some positions in one pass over the vocabulary, as `fused_losses` does with logits.

    Args:
        student_logits: Shape (positions, vocabulary), any float dtype; computed in float32.
        excerpt: Of the teacher, at the same positions, at temperature 1.
        labels: Shape (positions,), the true tokens.
        label_smoothing: Share of the hard loss's target, in [0, 1), that is spread evenly over the vocabulary.
    """
    hard, soft = _ExcerptLosses.apply(student_logits, excerpt, labels, label_smoothing)  # type: ignore[no-untyped-call]
    finite = excerpt.label_logs.isfinite() & excerpt.logs[:, 0].isfinite() & excerpt.rest.isfinite()
    return Losses(hard, soft, -excerpt.label_logs.float(), finite)


class _ExcerptLosses(torch.autograd.Function):
    """Keeps the logits themselves, which are there anyway, and three normalisers per position.

    With s the student's probabilities and t, r what the teacher gives to a kept token and to the rest, the soft loss's
    gradient is s - t at a kept token and s (1 - r / rest of s) at any other. The latter is written with the student's
    distribution over the rest alone, which is finite however little mass the student leaves there.
    """

    @staticmethod
    def forward(
        ctx: Any, student_logits: Tensor, excerpt: Excerpt, labels: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        rows = in_blocks(student_logits, None, labels, *excerpt.columns)
        blocks = [_losses_of_block(each[0], *each[2:], excerpt.num_shared_tokens, label_smoothing) for each in rows]
        hard, soft, log_rest, log_shared, log_all = (torch.cat(columns) for columns in zip(*blocks, strict=True))
        ctx.save_for_backward(student_logits, labels, log_rest, log_shared, log_all)
        ctx.settings = excerpt, label_smoothing
        return hard, soft

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hard_grad: Tensor, soft_grad: Tensor) -> tuple[Tensor | None, ...]:
        student_logits, labels, *normalisers = ctx.saved_tensors
        excerpt, label_smoothing = ctx.settings
        gradients = (
            hard_grad.masked_fill(labels == IGNORED_LABEL, 0.0),
            soft_grad.masked_fill(labels >= excerpt.num_shared_tokens, 0.0),
        )
        gradient_NV, start = torch.empty_like(student_logits), 0
        columns = [each[:, None] for each in (*normalisers, *gradients)]
        for each in in_blocks(student_logits, None, labels, *excerpt.columns, *columns):
            gradient = _gradient_of_block(each[0], *each[2:], excerpt.num_shared_tokens, label_smoothing)
            gradient_NV[start : start + len(gradient)] = gradient
            start += len(gradient)
        return gradient_NV, None, None, None


def _losses_of_block(
    student: Tensor, labels: Tensor, ids: Tensor, teacher_logs: Tensor, rest: Tensor, num_shared: int, smoothing: float
) -> tuple[Tensor, ...]:
    """Both losses, then the logarithms of the student's sums over the rest, the shared tokens and all of them."""
    ids, teacher_logs, rest = ids.long(), teacher_logs.float(), rest.float()
    own = student.gather(-1, ids)
    log_rest = _log_sum_but(student[:, :num_shared], ids)
    log_shared = log_all = torch.logaddexp(log_rest, own.logsumexp(dim=-1))
    if num_shared < student.shape[-1]:
        log_all = torch.logaddexp(log_shared, student[:, num_shared:].logsumexp(dim=-1))
    soft = (teacher_logs.exp() * (teacher_logs - own + log_shared[:, None])).sum(dim=-1)
    if ids.shape[-1] < num_shared:
        soft = soft + torch.xlogy(rest, rest) - rest * (log_rest - log_shared)
    asked = labels != IGNORED_LABEL
    target = student.gather(-1, labels.where(asked, 0)[:, None]).squeeze(-1)
    if smoothing:
        target = torch.lerp(target, student.mean(dim=-1), smoothing)
    return (log_all - target).where(asked, 0.0), soft.where(labels < num_shared, 0.0), log_rest, log_shared, log_all


def _gradient_of_block(
    student: Tensor,
    labels: Tensor,
    ids: Tensor,
    teacher_logs: Tensor,
    rest: Tensor,
    log_rest_N1: Tensor,
    log_shared_N1: Tensor,
    log_all_N1: Tensor,
    hard_N1: Tensor,
    soft_N1: Tensor,
    num_shared: int,
    smoothing: float,
) -> Tensor:
    ids, teacher, rest_N1 = ids.long(), teacher_logs.float().exp(), rest.float()[:, None]
    if ids.shape[-1] == num_shared:
        rest_N1 = torch.zeros_like(rest_N1)
    # What float16 has kept need not sum to 1.
    mass_N1 = teacher.sum(dim=-1, keepdim=True) + rest_N1
    own = student.gather(-1, ids)
    kept = (own - log_all_N1).exp() * hard_N1 + ((own - log_shared_N1).exp() * mass_N1 - teacher) * soft_N1
    log_rest_N1 = log_rest_N1.clamp_min(torch.finfo(torch.float32).min)
    share_N1 = (log_rest_N1 - log_shared_N1).exp() * mass_N1 - rest_N1
    others_N1 = (log_rest_N1 - log_all_N1).exp() * hard_N1 + share_N1 * soft_N1
    gradient = torch.empty_like(student)
    torch.sub(student[:, :num_shared], log_rest_N1, out=gradient[:, :num_shared]).exp_().mul_(others_N1)
    gradient.scatter_(-1, ids, kept)
    if num_shared < student.shape[-1]:
        gradient[:, num_shared:] = (student[:, num_shared:] - log_all_N1).exp_().mul_(hard_N1)
    targets = labels.where(labels != IGNORED_LABEL, 0)[:, None]
    gradient.scatter_add_(-1, targets, hard_N1 * (smoothing - 1))
    return gradient.sub_(hard_N1 * (smoothing / student.shape[-1])) if smoothing else gradient


def _log_rest(logs: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of all tokens but some; -inf if there are no others."""
    return logs.scatter(-1, ids, -torch.inf).logsumexp(dim=-1)


def _log_sum_but(logits: Tensor, ids: Tensor) -> Tensor:
    """As `_log_rest`, in half its time, without gradient."""
    if ids.shape[-1] == logits.shape[-1]:
        return logits.new_full(logits.shape[:-1], -torch.inf)
    others = logits.scatter(-1, ids, -torch.inf)
    largest = others.amax(dim=-1, keepdim=True)
    return others.sub_(largest).exp_().sum(dim=-1).log_() + largest.squeeze(-1)
