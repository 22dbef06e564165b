"""Which learning rates were tried, and which one each family got."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.study.cells import TUNING
from benchmarks.study.lines import Line


@dataclass(frozen=True)
class Family:
    """Runs that share one learning rate.

    Attributes:
        inputs: Data.
        size: Of the student.
        start: How it begins.
        is_taught: Whether it has a teacher.
        weighting: Of the soft loss, in the runs that tuned; empty alone.
        steps: Of the runs that tuned.
        losses: Mean final loss by learning rate.
        num_runs: By learning rate.
        used: Rates of the other parts' runs of this family.
    """

    inputs: str
    size: str
    start: str
    is_taught: bool
    weighting: str
    steps: int
    losses: dict[float, float]
    num_runs: dict[float, int]
    used: tuple[float, ...]

    @property
    def best(self) -> float:
        """The rate of the lowest loss."""
        return min(self.losses, key=lambda rate: self.losses[rate])

    @property
    def is_at_edge(self) -> bool:
        """Whether the best rate is the lowest or highest that was tried, so that a better one may lie outside."""
        return self.best in (min(self.losses), max(self.losses))


def families_of(lines: Sequence[Line]) -> list[Family]:
    """Group the runs of the part that tunes."""
    groups: dict[tuple[str, str, str, bool, int], list[Line]] = {}
    for line in lines:
        if line.part == TUNING:
            groups.setdefault((*_family(line), line.choices.steps), []).append(line)
    found = []
    for (*family, steps), group in sorted(groups.items()):
        rates = sorted({line.learning_rate for line in group})
        by_rate = {rate: [line.loss for line in group if line.learning_rate == rate] for rate in rates}
        others = {line.learning_rate for line in lines if line.part != TUNING and _family(line) == tuple(family)}
        losses = {rate: fmean(each) for rate, each in by_rate.items()}
        counts = {rate: len(each) for rate, each in by_rate.items()}
        weighting = ", ".join(sorted({line.choices.weighting or "" for line in group}))
        found.append(Family(*family, weighting, steps, losses, counts, tuple(sorted(others))))
    return found


def _family(line: Line) -> tuple[str, str, str, bool]:
    return (line.choices.inputs, line.choices.size, line.choices.start, line.teacher is not None)
