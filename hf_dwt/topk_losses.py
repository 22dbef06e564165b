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

from hf_dwt.fused_losses import Losses, fused_losses


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


def excerpt_losses(student_logits: Tensor, excerpt: Excerpt, labels: Tensor, **settings: Any) -> Losses:
    """Compute all losses of some positions, as `fused_losses` does with the teacher's logits.

    Args:
        student_logits: Shape (positions, vocabulary).
        excerpt: Of the teacher, at the same positions.
        labels: Shape (positions,), the true tokens.
        settings: Those of `fused_losses`; the temperature is 1.
    """
    hard = fused_losses(student_logits, None, labels, **settings).hard
    soft = top_k_soft_loss(student_logits, excerpt).where(labels < excerpt.num_shared_tokens, 0.0)
    finite = excerpt.label_logs.isfinite() & excerpt.logs[:, 0].isfinite() & excerpt.rest.isfinite()
    return Losses(hard, soft, -excerpt.label_logs.float(), finite)


def _log_rest(logs: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of all tokens but some; -inf if there are no others."""
    return logs.scatter(-1, ids, -torch.inf).logsumexp(dim=-1)
