"""What is logged during training: means over positions since the last log, over ranks."""

from collections.abc import Callable
from math import isfinite

import torch
from torch import Tensor

from hf_dwt.fused_losses import Losses

_STUDENT = ("loss", "hard_loss")
_TEACHER: tuple[str, ...] = ("teacher_positions", "soft_loss")
_GAP = ("teacher_hard_loss", "train_gap")


class TrainingLog:
    """Sums over positions that stay on the device until they are logged, so that a step needs no synchronisation.

    Every rank adds the same keys, because the weights that decide them depend on the step alone.
    """

    def __init__(self) -> None:
        self._num_positions, self._weight_sum = 0, 0.0
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._broken_positions: Tensor | None = None

    def add(self, losses: Losses, loss: Tensor, soft_loss_weight: float) -> None:
        """Count a micro-batch, or a part of one.

        Args:
            losses: Per position.
            loss: Scalar, the blended loss summed over the positions.
            soft_loss_weight: As the policy gave it, without temperature**2.
        """
        # These two are known without asking the device.
        self._num_positions += len(losses.hard)
        self._weight_sum += soft_loss_weight * len(losses.hard)
        dtype = _widest(loss)
        self._add(_STUDENT, torch.stack([loss.detach().to(dtype), losses.hard.detach().sum(dtype=dtype)]))

    def add_teacher(self, losses: Losses, knows: Tensor) -> None:
        """Count what the teacher said in it; the gap only where its hard loss is known.

        Args:
            losses: Per position.
            knows: Shape (positions,), whether the teacher knows the label's token.
        """
        names, columns = _TEACHER, [knows.to(losses.soft.dtype), losses.soft]
        if losses.teacher_hard is not None:
            names += _GAP
            columns += [losses.teacher_hard, losses.hard * knows - losses.teacher_hard]
        values = torch.stack(columns).detach()
        self._add(names, values.sum(dim=-1, dtype=_widest(values)))
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
        names = ["positions", "soft_loss_weight", *(name for group in self._sums for name in group)]
        known = next(iter(self._sums.values())).new_tensor([self._num_positions, self._weight_sum])
        totals = reduce(torch.cat([known, *self._sums.values()])).tolist()
        sums = dict(zip(names, totals, strict=True))
        self._num_positions, self._weight_sum, self._sums = 0, 0.0, {}
        count, teacher_count = sums.pop("positions"), sums.pop("teacher_positions", 0.0)
        counts = dict.fromkeys(("loss", "hard_loss", "soft_loss_weight"), count)
        means = {
            name: total / counts.get(name, teacher_count)
            for name, total in sums.items()
            if counts.get(name, teacher_count)
        }
        return {name: mean for name, mean in means.items() if isfinite(mean) or not skip_non_finite}

    def _add(self, names: tuple[str, ...], totals: Tensor) -> None:
        self._sums[names] = self._sums[names] + totals if names in self._sums else totals


def _widest(values: Tensor) -> torch.dtype:
    # Apple's GPUs have no float64.
    return torch.float32 if values.device.type == "mps" else torch.float64
