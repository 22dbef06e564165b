"""What is logged during training: means over positions since the last log, over ranks."""

from collections.abc import Callable
from math import isfinite

import torch
from torch import Tensor

from hf_dwt.losses import IGNORED_LABEL, hard_loss


class TrainingLog:
    """Sums over positions that stay on the device until they are logged, so that a step needs no synchronisation.

    Every rank adds the same keys, because the weights that decide them depend on the step alone.

    Args:
        label_smoothing: Applied to the teacher's hard loss too, so that the gap compares like with like.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self._label_smoothing = label_smoothing
        self._sums: dict[str, Tensor] = {}
        self._broken_positions: Tensor | None = None

    def add(self, hard: Tensor, loss: Tensor, soft_loss_weight: float) -> None:
        """Count a micro-batch.

        Args:
            hard: Shape (positions,), the student's hard loss.
            loss: Scalar, the blended loss summed over the positions.
            soft_loss_weight: As the policy gave it, without temperature**2.
        """
        ones = torch.ones_like(hard)
        self._add("positions", ones)
        self._add("loss", loss)
        self._add("hard_loss", hard)
        self._add("soft_loss_weight", soft_loss_weight * ones)

    def add_teacher(self, hard: Tensor, soft: Tensor, teacher_logits: Tensor, labels: Tensor) -> None:
        """Count what the teacher said in a micro-batch.

        Args:
            hard: Shape (positions,), the student's hard loss.
            soft: Shape (positions,), the soft loss.
            teacher_logits: Shape (positions, shared tokens).
            labels: Shape (positions,).
        """
        knows = labels < teacher_logits.shape[-1]
        teacher_hard = hard_loss(teacher_logits, labels.where(knows, IGNORED_LABEL), self._label_smoothing)
        self._add("teacher_positions", knows)
        self._add("soft_loss", soft)
        self._add("teacher_hard_loss", teacher_hard)
        self._add("train_gap", hard * knows - teacher_hard)
        # A sum is finite only if all of its terms are (a float32 does not overflow over a vocabulary of logits).
        broken = (~teacher_logits.sum(dim=-1, dtype=torch.float32).isfinite()).sum()
        self._broken_positions = broken if self._broken_positions is None else self._broken_positions + broken

    def num_broken_positions(self, reduce: Callable[[Tensor], Tensor]) -> int:
        """Count positions, over ranks, where the teacher's logits were not finite."""
        return 0 if self._broken_positions is None else int(reduce(self._broken_positions.clone()))

    def pop_means(self, reduce: Callable[[Tensor], Tensor], skip_non_finite: bool = False) -> dict[str, float]:
        """Return the means and start anew. A key whose value was not computed is absent.

        Args:
            reduce: Sums a tensor over ranks.
            skip_non_finite: Leave out means that are not finite.
        """
        if not self._sums:
            return {}
        totals = reduce(torch.stack(list(self._sums.values()))).tolist()
        sums = dict(zip(self._sums, totals, strict=True))
        self._sums = {}
        count, teacher_count = sums.pop("positions"), sums.pop("teacher_positions", 0.0)
        counts = dict.fromkeys(("loss", "hard_loss", "soft_loss_weight"), count)
        means = {
            name: total / counts.get(name, teacher_count)
            for name, total in sums.items()
            if counts.get(name, teacher_count)
        }
        return {name: mean for name, mean in means.items() if isfinite(mean) or not skip_non_finite}

    def _add(self, name: str, values: Tensor) -> None:
        # Apple's GPUs have no float64.
        dtype = torch.float32 if values.device.type == "mps" else torch.float64
        total = values.detach().sum(dtype=dtype)
        self._sums[name] = self._sums[name] + total if name in self._sums else total
