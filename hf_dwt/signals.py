"""What a weighting policy is shown before an optimiser step, and what it answers."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Signals:
    """What a policy may look at before an optimiser step.

    All but `step` and `progress` are for policies that follow the gap: those with a field `gap_every`.

    Attributes:
        step: Optimiser steps done so far, from 0.
        progress: Share of the weighting horizon done, 0 to 1; 1 from the horizon's end on.
        gap: Student's hard loss minus teacher's on the probe, nats: the larger of the last two. None before the first.
        reference_gap: The gap when the teacher spoke first, nats. None before that.
        previous_soft_loss_weight: What the policy answered for the step before. None in the first step.
        warming_up: The learning rate is still in its warm-up.

    Example:
        >>> Signals(step=10, progress=1.0).gap is None
        True
    """

    step: int
    progress: float
    gap: float | None = None
    reference_gap: float | None = None
    previous_soft_loss_weight: float | None = None
    warming_up: bool = False


@dataclass(frozen=True)
class Weights:
    """What a policy answers.

    Attributes:
        hard: Weight of the hard loss, finite, >= 0.
        soft: Weight of the soft loss, finite, >= 0, without the factor temperature**2. At 0 the teacher is not run.
        for_good: The soft weight stays 0 until the end, so that the teacher's memory can be released.

    Raises:
        ValueError: If a weight is negative or not finite, or `for_good` comes with a soft weight above 0.

    Example:
        >>> Weights(hard=1.0, soft=0.0, for_good=True)
        Weights(hard=1.0, soft=0.0, for_good=True)
    """

    hard: float
    soft: float
    for_good: bool = False

    def __post_init__(self) -> None:
        check_weight("hard", self.hard)
        check_weight("soft", self.soft)
        if self.for_good and self.soft:
            raise ValueError(f"`for_good` means a soft weight of 0 from here on, got soft={self.soft}.")


def check_weight(name: str, weight: float) -> None:
    """Refuse what is no weight.

    Raises:
        ValueError: If it is no number, not finite, or below 0.
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(f"`{name}` must be a number, got {weight!r}.")
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"`{name}` must be finite and at least 0, got {weight}.")
