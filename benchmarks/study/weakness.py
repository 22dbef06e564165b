"""Is a teacher weak, and where on the student's own way does it stand?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.study.cells import TUNING
from benchmarks.study.lines import Choices, Line, Model, by_seed
from hf_dwt.assess import quality
from hf_dwt.comparison import Point

FIRST_PART = 0.5
MARGIN = 0.03


@dataclass(frozen=True)
class Place:
    """Where a teacher stands beside one run of the student alone.

    Attributes:
        seed: Of that run.
        level: The teacher's loss on the examples of the run's curve, under the run's masks, nats per position.
        step: At which the run's curve is first at or below that level; None if never.
        share: The same, as a share of the run.
        behind: How far the teacher's loss lies above the run's final one, both on the whole test set, nats.
        quality: As `hf_dwt.assess` defines it; None if the unigram model's loss was not measured.
    """

    seed: int
    level: float
    step: int | None
    share: float | None
    behind: float
    quality: float | None

    @property
    def is_weak(self) -> bool:
        """Whether the student passes it in the first half of its budget and ends clearly better."""
        return self.share is not None and self.share <= FIRST_PART and self.behind >= MARGIN


@dataclass(frozen=True)
class Standing:
    """A teacher beside all the runs of a student alone.

    Attributes:
        teacher: With its losses.
        baseline: The choices of the student alone.
        places: One a seed.
    """

    teacher: Model
    baseline: Choices
    places: tuple[Place, ...]

    @property
    def verdict(self) -> str:
        """'weak' if it is so beside every run, 'not weak' if beside none."""
        num_weak = sum(place.is_weak for place in self.places)
        if num_weak in (0, len(self.places)):
            return "weak" if num_weak else "not weak"
        return f"weak beside {num_weak} of {len(self.places)} runs, not weak by the rule"

    @property
    def quality(self) -> float | None:
        """Mean over the runs."""
        known = [place.quality for place in self.places if place.quality is not None]
        return fmean(known) if known else None

    @property
    def level(self) -> float:
        """Mean over the runs, nats per position."""
        return fmean(place.level for place in self.places)

    @property
    def behind(self) -> float:
        """Mean over the runs, nats."""
        return fmean(place.behind for place in self.places)


def overtaken_at(curve: Sequence[Point], level: float) -> int | None:
    """The first step whose held-out loss is at or below a level; None if there is none."""
    return next((point.step for point in sorted(curve, key=lambda each: each.step) if point.loss <= level), None)


def place(teacher: Model, alone: Line) -> Place | None:
    """Find where a teacher stands beside one run; None if its losses are not known."""
    if teacher.loss is None or teacher.curve_loss is None:
        return None
    step = overtaken_at(alone.curve, teacher.curve_loss)
    found = None if alone.unigram_loss is None else quality(teacher.loss, alone.unigram_loss, alone.loss)
    share = None if step is None else step / alone.choices.steps
    return Place(alone.seed, teacher.curve_loss, step, share, teacher.loss - alone.loss, found)


def standings(lines: Iterable[Line]) -> list[Standing]:
    """Place every teacher beside the runs of the student alone of the same data, size and budget.

    A run's teacher is judged by the run of the same seed, since masks follow the seed.
    """
    lines = [line for line in lines if line.part != TUNING]
    taught: dict[tuple[str, Choices], list[Line]] = {}
    for line in lines:
        if line.teacher is not None:
            taught.setdefault((line.teacher.name, line.choices.baseline()), []).append(line)
    found = []
    for (_, baseline), group in sorted(taught.items(), key=lambda item: (item[0][1].steps, str(item[0]))):
        alone = by_seed(line for line in lines if line.choices == baseline)
        pairs = [(line.teacher, alone[seed]) for seed, line in by_seed(group).items() if seed in alone]
        places = [place(teacher, run) for teacher, run in pairs if teacher is not None]
        known = tuple(each for each in places if each is not None)
        if known and group[0].teacher is not None:
            found.append(Standing(group[0].teacher, baseline, known))
    return found
