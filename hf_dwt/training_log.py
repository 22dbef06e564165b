"""What is logged during training: means over positions since the last log, over ranks."""

from collections.abc import Callable
from math import isfinite

import torch
from torch import Tensor

from hf_dwt.fused_losses import Losses


class TrainingLog:
    """Sums over positions that stay on the device until they are logged, so that a step needs no synchronisation.

    Every rank adds the same keys, because the weights that decide them depend on the step alone.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._broken_positions: Tensor | None = None

    def add(self, losses: Losses, loss: Tensor, soft_loss_weight: float) -> None:
        """Count a micro-batch, or a part of one.

        Args:
            losses: Per position.
            loss: Scalar, the blended loss summed over the positions.
            soft_loss_weight: As the policy gave it, without temperature**2.
        """
        ones = torch.ones_like(losses.hard)
        self._add("positions", ones)
        self._add("loss", loss)
        self._add("hard_loss", losses.hard)
        self._add("soft_loss_weight", soft_loss_weight * ones)

    def add_teacher(self, losses: Losses, knows: Tensor) -> None:
        """Count what the teacher said in it.

        Args:
            losses: Per position.
            knows: Shape (positions,), whether the teacher knows the label's token.
        """
        self._add("teacher_positions", knows)
        self._add("soft_loss", losses.soft)
        self._add("teacher_hard_loss", losses.teacher_hard)
        self._add("train_gap", losses.hard * knows - losses.teacher_hard)
        broken = (~losses.teacher_is_finite).sum()
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
