"""Both losses against a teacher of whom a few tokens' probabilities are kept at every position.

Kept are the k most likely tokens, and what all others have together, the tail. There are two ways to learn of it:

- As one bucket. The soft loss is the divergence of the distributions over the k tokens and the bucket: a lower bound
  of the KL divergence over the vocabulary, since telling the bucket's tokens apart could only add to it. It is that
  divergence itself if k is the vocabulary.
- By m tokens that were drawn from it, each with the m-th part of its probability. The soft loss and its gradient are
  right on average over draws: an unbiased estimate of the KL divergence, not a bound of it. At a single position it
  may be far off, and negative.

Reference:
    Anshumann et al., 2025, "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs"
    (https://arxiv.org/abs/2503.16870): most likely tokens alone mislead, drawn ones do not. There all tokens are drawn.
"""

# Axes in names: N positions, K kept tokens, M of them drawn, V vocabulary, S tokens that the teacher shares.

from dataclasses import dataclass, field
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
        ids: Shape (positions, k + m), the most likely tokens, then those drawn from the others, some of them twice.
        logs: Shape (positions, k + m), their log-probabilities.
        rest: Shape (positions,), probability of all tokens but the k.
        label_logs: Shape (positions,), log-probability of the true token, 0 where the teacher lacks it.
        num_drawn: How many were drawn, m; 0 leaves the others one bucket.
    """

    num_shared_tokens: int
    ids: Tensor
    logs: Tensor
    rest: Tensor
    label_logs: Tensor
    num_drawn: int = field(default=0, kw_only=True)

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`ids`, `logs`, `rest` and `label_logs`."""
        return self.ids, self.logs, self.rest, self.label_logs

    @property
    def has_bucket(self) -> bool:
        """Whether there are other tokens, of which only their mass is known."""
        return not self.num_drawn and self.ids.shape[-1] < self.num_shared_tokens

    @property
    def weights(self) -> Tensor:
        """Shape (positions, k + m), float32: what the soft loss asks of the student at each token."""
        weights_NK = self.logs.float().exp()
        if self.num_drawn:
            weights_NK[:, -self.num_drawn :] = self.rest.float()[:, None] / self.num_drawn
        return weights_NK

    def __getitem__(self, rows: slice) -> "Excerpt":
        return Excerpt(self.num_shared_tokens, *(each[rows] for each in self.columns), num_drawn=self.num_drawn)


def excerpt_of(teacher_logits: Tensor, labels: Tensor, top_k: int, draws: Tensor | None = None) -> Excerpt:
    """Keep the most likely tokens of a teacher's predictions, and the mass of the others.

    Args:
        teacher_logits: Shape (positions, shared tokens).
        labels: Shape (positions,), the true tokens.
        top_k: Tokens to keep, at most all.
        draws: Shape (positions, m), in [0, 1): m tokens are kept of the others too, where these numbers fall among
            their summed probabilities. Not taken where none is left.
    """
    logs_NS = teacher_logits.float().log_softmax(dim=-1)
    num_shared = logs_NS.shape[-1]
    logs_NK, ids_NK = logs_NS.topk(min(top_k, num_shared), dim=-1)
    rest_N = _log_rest(logs_NS, ids_NK).exp()
    num_drawn = 0 if draws is None or top_k >= num_shared else draws.shape[-1]
    if num_drawn:
        assert draws is not None
        ids_NM = _drawn(logs_NS, ids_NK, draws)
        ids_NK, logs_NK = (
            torch.cat(each, dim=-1) for each in ((ids_NK, ids_NM), (logs_NK, logs_NS.gather(-1, ids_NM)))
        )
    known = labels < num_shared
    label_logs_N = logs_NS.gather(-1, labels.where(known, 0)[:, None]).squeeze(-1).where(known, 0.0)
    return Excerpt(num_shared, ids_NK, logs_NK, rest_N, label_logs_N, num_drawn=num_drawn)


def top_k_soft_loss(student_logits: Tensor, excerpt: Excerpt) -> Tensor:
    """Divergence from the teacher to the student as far as the excerpt tells of it, per position.

    The plain form: training takes `excerpt_losses`, which is equal to it and to the hard loss.

    Args:
        student_logits: Shape (positions, vocabulary), computed in float32.
        excerpt: Of the teacher, at the same positions, at temperature 1.

    Returns:
        Shape (positions,), nats, float32. Without drawn tokens at most the KL divergence over the shared tokens, and
        >= 0; with them an estimate of it, of either sign.
    """
    student_logs_NS = student_logits[:, : excerpt.num_shared_tokens].float().log_softmax(dim=-1)
    ids_NK, teacher_logs_NK, rest_N = excerpt.ids.long(), excerpt.logs.float(), excerpt.rest.float()
    own_NK = student_logs_NS.gather(-1, ids_NK)
    kept_N = (excerpt.weights * (teacher_logs_NK - own_NK)).sum(dim=-1)
    if not excerpt.has_bucket:
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

    Returns:
        Without the teacher's hard loss under label smoothing: smoothed too, it takes more than the excerpt holds.
    """
    hard, soft = _ExcerptLosses.apply(student_logits, excerpt, labels, label_smoothing)  # type: ignore[no-untyped-call]
    finite = excerpt.label_logs.isfinite() & excerpt.logs[:, 0].isfinite() & excerpt.rest.isfinite()
    return Losses(hard, soft, None if label_smoothing else -excerpt.label_logs.float(), finite)


class _ExcerptLosses(torch.autograd.Function):
    """Keeps the logits themselves, which are there anyway, and three normalisers per position.

    With s the student's probabilities, w the weights, r the teacher's rest and their sum 1 but for rounding, the soft
    loss's gradient is s less the w of a token. With a bucket it is s (1 - r / rest of s) at a token that is not kept,
    written with the student's distribution over the rest alone, which is finite however little mass the student leaves
    there. Where tokens were drawn, that rest is all of the student's distribution, and the kept ones need no place of
    their own.
    """

    @staticmethod
    def forward(
        ctx: Any, student_logits: Tensor, excerpt: Excerpt, labels: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        told = excerpt.num_shared_tokens, excerpt.num_drawn
        rows = in_blocks(student_logits, None, labels, *excerpt.columns)
        blocks = [
            _losses_of_block(student, labels, Excerpt(told[0], *columns, num_drawn=told[1]), label_smoothing)
            for student, _, labels, *columns in rows
        ]
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
        for student, _, asked, *parts in in_blocks(student_logits, None, labels, *columns):
            rows = slice(start, start + len(asked))
            gradient_NV[rows] = _gradient_of_block(student, asked, excerpt[rows], *parts, smoothing=label_smoothing)
            start = rows.stop
        return gradient_NV, None, None, None


def _losses_of_block(student: Tensor, labels: Tensor, told: Excerpt, smoothing: float) -> tuple[Tensor, ...]:
    """Both losses, then the logarithms of the student's sums over the rest, the shared tokens and all of them."""
    ids, num_shared = told.ids.long(), told.num_shared_tokens
    # Logits and sums are told from the largest: a small logarithm is rounded less than a large one.
    largest_N1 = student.amax(dim=-1, keepdim=True)
    if told.has_bucket:
        own = student.gather(-1, ids) - largest_N1
        log_rest = _log_sum_but(student[:, :num_shared], ids, largest_N1)
        log_shared = torch.logaddexp(log_rest, own.logsumexp(dim=-1))
        own_logs = own - log_shared[:, None]
    else:
        # By the same kernel as the teacher's, so that what both round alike does not count as a difference.
        logs = student[:, :num_shared].log_softmax(dim=-1)
        own_logs = logs.gather(-1, ids)
        lowered = student[:, :num_shared].amax(dim=-1) - largest_N1.squeeze(-1)
        log_rest = log_shared = lowered - logs.amax(dim=-1)
    log_all = log_shared
    if num_shared < student.shape[-1]:
        log_all = torch.logaddexp(log_shared, (student[:, num_shared:] - largest_N1).logsumexp(dim=-1))
    soft = (told.weights * (told.logs.float() - own_logs)).sum(dim=-1)
    if told.has_bucket:
        rest = told.rest.float()
        soft = soft + torch.xlogy(rest, rest) - rest * (log_rest - log_shared)
    asked, largest_N = labels != IGNORED_LABEL, largest_N1.squeeze(-1)
    target = student.gather(-1, labels.where(asked, 0)[:, None]).squeeze(-1) - largest_N
    if smoothing:
        target = torch.lerp(target, student.mean(dim=-1) - largest_N, smoothing)
    sums = (each + largest_N for each in (log_rest, log_shared, log_all))
    return (log_all - target).where(asked, 0.0), soft.where(labels < num_shared, 0.0), *sums


def _gradient_of_block(
    student: Tensor,
    labels: Tensor,
    told: Excerpt,
    log_rest_N1: Tensor,
    log_shared_N1: Tensor,
    log_all_N1: Tensor,
    hard_N1: Tensor,
    soft_N1: Tensor,
    *,
    smoothing: float,
) -> Tensor:
    ids, weights, num_shared = told.ids.long(), told.weights, told.num_shared_tokens
    rest_N1 = told.rest.float()[:, None] if told.has_bucket else torch.zeros_like(soft_N1)
    # What float16 has kept need not sum to 1.
    mass_N1 = weights.sum(dim=-1, keepdim=True) + rest_N1
    share_N1 = (log_rest_N1 - log_shared_N1).exp() * mass_N1 - rest_N1
    others_N1 = (log_rest_N1 - log_all_N1).exp() * hard_N1 + share_N1 * soft_N1
    gradient = torch.empty_like(student)
    torch.sub(student[:, :num_shared], log_rest_N1, out=gradient[:, :num_shared]).exp_().mul_(others_N1)
    if told.num_drawn:
        # A token that was drawn twice has twice the weight.
        gradient.scatter_add_(-1, ids, -weights * soft_N1)
    else:
        own = student.gather(-1, ids)
        kept = (own - log_all_N1).exp() * hard_N1 + ((own - log_shared_N1).exp() * mass_N1 - weights) * soft_N1
        gradient.scatter_(-1, ids, kept)
    if num_shared < student.shape[-1]:
        gradient[:, num_shared:] = (student[:, num_shared:] - log_all_N1).exp_().mul_(hard_N1)
    targets = labels.where(labels != IGNORED_LABEL, 0)[:, None]
    gradient.scatter_add_(-1, targets, hard_N1 * (smoothing - 1))
    return gradient.sub_(hard_N1 * (smoothing / student.shape[-1])) if smoothing else gradient


def _drawn(logs_NS: Tensor, ids_NK: Tensor, draws_NM: Tensor) -> Tensor:
    """Shape (N, M): tokens that are not among some, each as often as it is likely among those; else the first of them.

    The sums are taken in float64, where no unlikely token is lost in them.
    """
    precise = torch.float32 if logs_NS.device.type == "mps" else torch.float64
    sums_NS = logs_NS.exp().scatter_(-1, ids_NK, 0.0).cumsum(dim=-1, dtype=precise)
    targets_NM = draws_NM.to(sums_NS) * sums_NS[:, -1:]
    ids_NM = torch.searchsorted(sums_NS, targets_NM, right=True).clamp_max(logs_NS.shape[-1] - 1)
    # Sums over nothing, or over what is not finite, and a product that was rounded up to the whole.
    is_kept_NM = (ids_NM[:, :, None] == ids_NK[:, None, :]).any(dim=-1)
    return ids_NM.where(~is_kept_NM, ids_NK[:, :1])


def _log_rest(logs: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of all tokens but some; -inf if there are no others."""
    return logs.scatter(-1, ids, -torch.inf).logsumexp(dim=-1)


def _log_sum_but(logits: Tensor, ids: Tensor, base_N1: Tensor) -> Tensor:
    """As `_log_rest`, in half its time, without gradient, told from a base that may be far above."""
    others = logits.scatter(-1, ids, -torch.inf)
    largest_N1 = others.amax(dim=-1, keepdim=True)
    return others.sub_(largest_N1).exp_().sum(dim=-1).log_() + (largest_N1 - base_N1).squeeze(-1)
