"""Paired differences over seeds, their intervals and p values, and Holm's adjustment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

from hf_dwt.finetuning.statistics import Summary, summarise

LEVEL = 0.05


@dataclass(frozen=True)
class Paired:
    """How the losses of two recipes differ, seed by seed.

    Attributes:
        difference: Of the losses, nats; below 0 the first is better.
        log_ratio: Of the losses, natural logarithm.
        p: Two-sided, of the differences' mean being 0, by Student's t; None where the seeds cannot tell.
        seeds: That both have.
        unpaired: That only one of them has; they are left out.
    """

    difference: Summary
    log_ratio: Summary
    p: float | None
    seeds: tuple[int, ...]
    unpaired: tuple[int, ...]

    @property
    def ratio(self) -> float:
        """Geometric mean of the losses' ratios."""
        return exp(self.log_ratio.mean)


def paired(losses: Mapping[int, float], reference: Mapping[int, float]) -> Paired | None:
    """Compare losses with those of a reference; None if no seed has both.

    Args:
        losses: By seed, nats.
        reference: By seed.
    """
    seeds = sorted(losses.keys() & reference.keys())
    if not seeds:
        return None
    differences = [losses[seed] - reference[seed] for seed in seeds]
    ratios = [log(losses[seed] / reference[seed]) for seed in seeds]
    unpaired = sorted(losses.keys() ^ reference.keys())
    return Paired(summarise(differences), summarise(ratios), p_value(differences), tuple(seeds), tuple(unpaired))


def p_value(values: Sequence[float]) -> float | None:
    """Two-sided p of the mean being 0, by Student's t; None for one value, or for values that all agree."""
    found = summarise(values)
    if found.interval is None or found.deviation is None:
        return None
    from scipy.stats import t

    statistic = found.mean / (found.deviation / sqrt(found.num_seeds))
    return float(2 * t.sf(abs(statistic), found.num_seeds - 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p values of one factor, in the order given; those that are None stay so and do not count.

    Reference:
        Holm, 1979, "A simple sequentially rejective multiple test procedure".
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[index] = highest
    return adjusted


def verdict(difference: Summary) -> str:
    """What an interval of differences of losses says: 'helps', 'hurts', or that it shows nothing."""
    if difference.interval is None:
        return "no interval"
    low, high = difference.interval
    if high < 0:
        return "helps"
    return "hurts" if low > 0 else "no difference shown"
