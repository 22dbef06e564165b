"""The smallest budget whose own, fully annealed run reaches a target; crossings in mid-run do not count."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, log

SHARES = (0.2, 0.3, 0.4, 0.55, 0.75, 1.0)
# Budgets are whole steps: a share is recognised if it is off by less than this.
_ROUNDING = 0.005


@dataclass(frozen=True)
class Crossing:
    """The smallest budget, among those to which runs were annealed, that reaches the target.

    Attributes:
        share: The smallest share whose own run ends at or below the target; inf if there is none.
        interpolated: Between that and the next smaller one, in log loss; the share itself where that was not run, or
            where there is no smaller one.
        at_most: Whether the smallest share of the grid qualifies already, so that less might do.
        missing: The next smaller share, if it was not run.
        fails_above: Larger shares whose runs miss the target all the same.
    """

    share: float
    interpolated: float
    at_most: bool = False
    missing: float | None = None
    fails_above: tuple[float, ...] = ()

    @property
    def is_reached(self) -> bool:
        """Whether any budget qualifies."""
        return self.share < inf

    def read_off(self, costs: Mapping[float, float]) -> float:
        """A cost at the interpolated share, between the costs of the runs to its sides; inf if it is not reached."""
        if not self.is_reached:
            return inf
        below = max((share for share in costs if share < self.share), default=None)
        if below is None or self.interpolated == self.share:
            return costs[self.share]
        part = (self.interpolated - below) / (self.share - below)
        return costs[below] + part * (costs[self.share] - costs[below])


def crossing(losses: Mapping[float, float], target: float) -> Crossing:
    """Find the smallest budget that reaches a target.

    Args:
        losses: The final loss of the run annealed to each share of the budget, nats. A loss in mid-run is none of them.
        target: Nats.
    """
    reached = [share for share in sorted(losses) if losses[share] <= target]
    if not reached:
        return Crossing(inf, inf)
    share = reached[0]
    fails = tuple(each for each in sorted(losses) if each > share and losses[each] > target)
    place = SHARES.index(share)
    if place == 0:
        return Crossing(share, share, at_most=True, fails_above=fails)
    below = SHARES[place - 1]
    if below not in losses:
        return Crossing(share, share, missing=below, fails_above=fails)
    part = (log(losses[below]) - log(target)) / (log(losses[below]) - log(losses[share]))
    return Crossing(share, below + part * (share - below), fails_above=fails)


def share_of(steps: int, budget: int) -> float | None:
    """The share of the grid that a number of steps is; None if it is none."""
    return next((share for share in SHARES if abs(steps / budget - share) < max(_ROUNDING, 1 / budget)), None)
