"""Figures of a held-out set, as sums and counts per example, so that batch sizes and ranks change nothing."""

# Axes in names: N positions, B examples of a batch.

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import denumpify_detensorize

from hf_dwt.fused_losses import fused_losses
from hf_dwt.heads import Head
from hf_dwt.positions import Positions

_STUDENT_SUMS = ("positions", "loss", "correct")
_TEACHER_SUMS = ("teacher_positions", "soft_loss", "teacher_hard_loss", "gap", "agreeing", "broken")


def sums_of_batch(
    batch_size: int, positions: Positions, student: Head, teacher: Head | None = None, temperature: float = 1.0
) -> Tensor:
    """Score a batch, one part of its positions after the other; returns what `sums_per_example` returns.

    Args:
        batch_size: Number of examples, those without any position included.
        positions: Where predictions were asked for.
        student: Its head at the positions.
        teacher: Likewise, None if the teacher is not asked.
        temperature: Of the soft loss.
    """
    parts = []
    for rows in student.parts:
        teacher_logits = None if teacher is None else teacher.logits(rows)
        parts.append(sums_per_example(batch_size, positions[rows], student.logits(rows), teacher_logits, temperature))
    return torch.stack(parts).sum(dim=0)


def sums_per_example(
    batch_size: int,
    positions: Positions,
    student_logits: Tensor,
    teacher_logits: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Score a batch, or a part of its positions, against the labels and, where the teacher speaks, against it.

    Args:
        batch_size: Number of examples, those without any position included.
        positions: Where predictions were asked for.
        student_logits: Shape (positions, vocabulary).
        teacher_logits: Shape (positions, shared tokens), None if the teacher is not asked.
        temperature: Of the soft loss.

    Returns:
        Shape (batch, sums), float32: the sums that `held_out_metrics` turns into means, 3 without a teacher, else 9.
    """
    losses = fused_losses(student_logits, teacher_logits, positions.labels, temperature)
    columns = [torch.ones_like(losses.hard), losses.hard, student_logits.argmax(-1) == positions.labels]
    if teacher_logits is not None:
        assert losses.teacher_hard is not None
        num_shared = teacher_logits.shape[-1]
        knows_N = positions.labels < num_shared
        agreeing_N = student_logits[:, :num_shared].argmax(-1) == teacher_logits.argmax(-1)
        gap_N = losses.hard * knows_N - losses.teacher_hard
        columns += [knows_N, losses.soft, losses.teacher_hard, gap_N, agreeing_N & knows_N, ~losses.teacher_is_finite]
    values = torch.stack([column.float() for column in columns], dim=-1)
    return values.new_zeros(batch_size, len(columns)).index_add_(0, positions.examples, values)


def held_out_metrics(per_example: list[Tensor], skip_non_finite: bool = False) -> dict[str, float]:
    """Means over all positions of a set; the figures of a teacher that was not asked are absent.

    Args:
        per_example: Batches of `sums_per_example`. Without any position there are no figures.
        skip_non_finite: Leave out examples whose figures are not finite, unless all are so; the teacher's leave no
            example out of the student's own.

    Returns:
        `loss` (nats), `perplexity`, `accuracy`, and with a teacher `soft_loss`, `teacher_hard_loss`, `gap` (student's
        hard loss minus teacher's; all nats) and `agreement` (share of positions with the same most likely token).
    """
    rows = torch.cat(per_example).double()
    num_own = len(_STUDENT_SUMS)
    totals = _totals(rows[:, :num_own], skip_non_finite) + _totals(rows, skip_non_finite)[num_own:]
    sums = dict(zip(_STUDENT_SUMS + _TEACHER_SUMS, totals, strict=False))
    if not sums["positions"]:
        return {}
    loss = sums["loss"] / sums["positions"]
    metrics = {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "accuracy": sums["correct"] / sums["positions"],
    }
    if sums.get("teacher_positions"):
        count = sums["teacher_positions"]
        metrics |= {name: sums[name] / count for name in ("soft_loss", "teacher_hard_loss", "gap")}
        metrics["agreement"] = sums["agreeing"] / count
    return metrics


def refuse_broken_teacher(per_example: list[Tensor], origin: object) -> None:
    """Refuse to compare a student with a teacher that is broken at some positions of a set.

    Args:
        per_example: Batches of `sums_per_example`, with a teacher.
        origin: The teacher's.

    Raises:
        FloatingPointError: If the teacher's logits are not finite somewhere.
    """
    column = (_STUDENT_SUMS + _TEACHER_SUMS).index("broken")
    num_positions = int(torch.cat(per_example)[:, column].sum())
    if num_positions:
        raise FloatingPointError(
            f"The teacher ({origin}) gave logits that are not finite, at {num_positions} positions of the held-out "
            "data. Are its weights whole, and is its precision (`teacher_dtype`) wide enough?"
        )


def named_metrics(ours: Mapping[str, float], users: Mapping[str, Any] | None, prefix: str) -> dict[str, Any]:
    """Figures of a set under the names that `Trainer` reports, where a user's own take the place of ours.

    Args:
        ours: As `held_out_metrics` returns them.
        users: What `compute_metrics` returned, its names with or without the prefix.
        prefix: Of the set, such as 'eval'.
    """
    own = denumpify_detensorize(dict(users or {}))
    return {f"{prefix}_{name.removeprefix(f'{prefix}_')}": value for name, value in {**ours, **own}.items()}


def _totals(rows: Tensor, skip_non_finite: bool) -> list[float]:
    finite = rows.isfinite().all(dim=-1)
    totals: list[float] = (rows[finite] if skip_non_finite and finite.any() else rows).sum(dim=0).tolist()
    return totals
