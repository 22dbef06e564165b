"""Means, spreads and paired differences over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Scores over seeds.

    Attributes:
        mean: Over seeds.
        deviation: Standard deviation of a sample; None for one seed.
        interval: Of the mean, 95 %, by Student's t; None where the seeds cannot tell: one seed, or no spread at all.
        num_seeds: So many.
    """

    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    num_seeds: int


def summarise(scores: Sequence[float]) -> Summary:
    """Summarise scores, or paired differences of scores, over seeds.

    Scores that all agree (a probe draws nothing) tell nothing of chance, so they get no interval.

    Args:
        scores: One a seed, at least one.

    Example:
        >>> summarise([0.5, 0.7]).mean
        0.6
    """
    if len(scores) < 2:
        return Summary(fmean(scores), None, None, len(scores))
    from scipy.stats import t

    mean, deviation = fmean(scores), stdev(scores)
    if max(scores) == min(scores):
        return Summary(mean, 0.0, None, len(scores))
    reach = float(t.ppf((1 + _CONFIDENCE) / 2, len(scores) - 1)) * deviation / sqrt(len(scores))
    return Summary(mean, deviation, (mean - reach, mean + reach), len(scores))


def paired_difference(scores: dict[int, float], reference: dict[int, float]) -> Summary | None:
    """Summarise how much higher `scores` are than `reference`, seed by seed; None if they share no seed.

    Args:
        scores: By seed.
        reference: By seed.

    Example:
        >>> paired_difference({0: 0.75, 1: 0.5}, {0: 0.5, 1: 0.5, 2: 0.9}).mean
        0.125
    """
    shared = sorted(scores.keys() & reference.keys())
    return summarise([scores[seed] - reference[seed] for seed in shared]) if shared else None
