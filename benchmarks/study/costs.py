"""What runs cost beyond their own operations: their teachers' training, and time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.study.cells import TEACHERS
from benchmarks.study.lines import Line, StepTime


@dataclass(frozen=True)
class Clock:
    """Times of runs, from the time of a step measured alone.

    Attributes:
        times: As they were measured.
        lines: To find the teachers' own runs in.
    """

    times: Sequence[StepTime]
    lines: Sequence[Line]

    def step(self, size: str, teacher: str | None, inputs: str) -> float | None:
        """Seconds of one step; None if it was not measured."""
        fitting = [each for each in self.times if (each.size, each.teacher) == (size, teacher)]
        fitting = [each for each in fitting if each.inputs in (None, inputs)]
        return median(each.seconds for each in fitting) if fitting else None

    def run(self, line: Line) -> float | None:
        """Steps times their time: those in which the teacher is heard, and the others.

        None where the time of a step was not measured, and for a cache, whose making was not.
        """
        choices = line.choices
        alone = self.step(choices.size, None, choices.inputs)
        taught = self.step(choices.size, choices.teacher, choices.inputs)
        if alone is None or (taught is None and line.taught_steps) or line.is_cached:
            return None
        return (choices.steps - line.taught_steps) * alone + line.taught_steps * (taught or 0.0)

    def training(self, line: Line) -> float | None:
        """That of the models that a run rests on."""
        found = []
        for name in line.fingerprints:
            own = [each for each in self.lines if each.part == TEACHERS and each.arm == name]
            found.append(self.run(own[0]) if own else None)
        return total(found)


def training_operations(line: Line) -> float | None:
    """Operations that trained the models that a run rests on, each model counted once; None if one is not known."""
    models = {model.fingerprint: model for model in (line.teacher, line.parent) if model is not None}
    return total(model.training_operations for model in models.values())


def total(values: Iterable[float | None]) -> float | None:
    """Sum; None if a value is not known."""
    found = list(values)
    known = [each for each in found if each is not None]
    return sum(known) if len(known) == len(found) else None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean; None if a value is not known."""
    found = list(values)
    together = total(found)
    return None if together is None else together / len(found)
