"""How many steps of a run had their gradient clipped."""

from typing import Any

from transformers import Trainer


class ClippedSteps:
    """Counts them, from before training on.

    Args:
        trainer: Asks its accelerator for the norm of the gradient in each step.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._clip: Any = trainer.accelerator.clip_grad_norm_
        self._num_steps = self._num_clipped = 0
        trainer.accelerator.clip_grad_norm_ = self._count

    @property
    def share(self) -> float | None:
        """Of all steps so far, 0 to 1; None if no norm was asked for."""
        return self._num_clipped / self._num_steps if self._num_steps else None

    def _count(self, parameters: Any, max_norm: float, *args: Any) -> Any:
        norm = self._clip(parameters, max_norm, *args)
        self._num_steps += 1
        # DeepSpeed knows none before its first step.
        self._num_clipped += norm is not None and bool(norm > max_norm)
        return norm
