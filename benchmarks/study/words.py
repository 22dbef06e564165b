"""Numbers of the report as text."""

from collections.abc import Iterable, Sequence
from math import exp, inf
from statistics import median

from benchmarks.study.statistics import LEVEL, Paired, verdict
from hf_dwt.finetuning.statistics import Summary

NOT_RUN = "not run"


def loss(value: float | None) -> str:
    """Nats, to four digits."""
    return "not measured" if value is None else f"{value:.4f}"


def spread(found: Summary) -> str:
    """A standard deviation."""
    return "one seed" if found.deviation is None else f"{found.deviation:.4f}"


def difference(found: Summary) -> str:
    """A mean difference with its interval."""
    if found.interval is None:
        return f"{found.mean:+.4f} (no interval)"
    low, high = found.interval
    return f"{found.mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def ratio(found: Summary) -> str:
    """A geometric mean of ratios with its interval, from their logarithms."""
    if found.interval is None:
        return f"{exp(found.mean):.3f}"
    low, high = found.interval
    return f"{exp(found.mean):.3f} [{exp(low):.3f}, {exp(high):.3f}]"


def p(value: float | None) -> str:
    """A p value to three digits."""
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def judged(found: Paired | None, adjusted: float | None) -> str:
    """What the interval says, and whether that outlives Holm's adjustment."""
    if found is None:
        return NOT_RUN
    told = verdict(found.difference)
    survives = adjusted is not None and adjusted < LEVEL
    return told if told not in ("helps", "hurts") or survives else f"{told} (not after Holm)"


def times(value: float | None) -> str:
    """A ratio of costs; inf is a target that was not reached."""
    if value is None:
        return "not measured"
    return "not reached" if value == inf else f"{value:.3f}"


def median_of(values: Sequence[float], form: str) -> str:
    """A median over seeds and, where they differ, the range; inf is what never came."""
    low, middle, high = (
        "never" if value == inf else format(value, form) for value in (min(values), median(values), max(values))
    )
    return middle if low == high else f"{middle} ({low} to {high})"


def rates(values: Iterable[float]) -> str:
    """Learning rates."""
    return ", ".join(f"{value:g}" for value in values)


def percent(value: float) -> str:
    """A share, 0 to 1."""
    return f"{100 * value:.2f} %"


def seeds(values: Iterable[int]) -> str:
    """Seeds in their order."""
    return ", ".join(map(str, sorted(values)))
