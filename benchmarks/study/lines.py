"""What the study's runner wrote, one line a cell, as the report reads it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.study.cells import choices_of
from benchmarks.study.results import TIMES, contents_of
from hf_dwt.comparison import Point

# What the names of parts with fresh seeds begin with.
_CONFIRMATION = "confirmation"
_CHOICES = ("inputs", "size", "start", "teacher", "grown_from", "temperature", "dropout", "steps")
_WEIGHTING = ("weighting", "soft_loss_weight", "final_soft_loss_weight", "weighting_kwargs")
# What a cell is called, and how its steps and learning rate were told: no choices beside these.
_NAMES = ("id", "part", "arm", "learning_rate", "seed", "share", "tuned_as")
CONSTANT = "constant 1"


@dataclass(frozen=True)
class Choices:
    """All that makes a recipe, but for its seed and its learning rate, which is tuned.

    Attributes:
        inputs: Name of the data and the objective.
        size: Of the student.
        start: How it begins, 'random' or a way of growing.
        grown_from: Name of the model that it is grown from.
        teacher: Name of the one that teaches; None alone.
        weighting: The policy and its weights in words; None alone.
        temperature: None alone.
        dropout: Of the student.
        steps: Optimiser steps.
        others: What else a cell chose, as JSON; nothing usually.
    """

    inputs: str
    size: str
    start: str
    grown_from: str | None
    teacher: str | None
    weighting: str | None
    temperature: float | None
    dropout: float
    steps: int
    others: str = "{}"

    @property
    def is_baseline(self) -> bool:
        """Whether this is the student alone, from a random start."""
        return self == self.baseline()

    def alone(self) -> "Choices":
        """The same start without a teacher."""
        return replace(self, teacher=None, weighting=None, temperature=None)

    def from_random(self) -> "Choices":
        """The same teaching from a random start."""
        return replace(self, start="random", grown_from=None, others="{}")

    def baseline(self) -> "Choices":
        """Neither teacher nor growth."""
        return self.alone().from_random()


@dataclass(frozen=True)
class Model:
    """A smaller model that teaches, or that a student is grown from.

    Attributes:
        name: In the study's YAML.
        fingerprint: Of its weights.
        training_operations: That it took itself; None if that is not known, as of a published one.
        loss: Held-out, nats per position; None where nothing was measured.
        curve_loss: On the examples of the curves.
        seed: Of its training; None of a published one.
    """

    name: str
    fingerprint: str
    training_operations: int | None
    loss: float | None = None
    curve_loss: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Line:
    """A finished cell.

    Attributes:
        id: Readable, unique.
        key: By what the same run is known, whatever part and arm name it.
        part: Of the study.
        arm: Name within the part, with the choices that the part varies.
        seed: Of initialisation, order and masks.
        learning_rate: The peak.
        choices: All else.
        loss: Final held-out hard loss on the whole test set, nats per position.
        accuracy: Likewise.
        unigram_loss: Of guessing by token frequency at the same positions; None if nobody measured it.
        curve: Held-out loss over the run, on fewer examples.
        held_out: What the losses are of, as JSON.
        taught_steps: In which the teacher was heard.
        is_cached: Whether it was heard from a cache.
        teacher: That taught.
        parent: That the student was grown from.
        operations: Of the run, by arithmetic, all of the teacher's included.
        alone_operations: Those that the student alone takes for as many steps.
        clipped: Share of steps whose gradient was clipped; None if nobody counted.
        seconds: Of the cell, as it was run.
        cores: It ran on.
        commit: Of this project.
        machine: In words.
    """

    id: str
    key: str
    part: str
    arm: str
    seed: int
    learning_rate: float
    choices: Choices
    loss: float
    accuracy: float
    unigram_loss: float | None
    curve: tuple[Point, ...]
    held_out: str
    taught_steps: int
    is_cached: bool
    teacher: Model | None
    parent: Model | None
    operations: int
    alone_operations: int
    clipped: float | None
    seconds: float
    cores: int
    commit: str
    machine: str

    @property
    def confirms(self) -> bool:
        """Whether it is of a part with fresh seeds, by the part's name."""
        return self.part.startswith(_CONFIRMATION)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the models that it rests on, by their names."""
        return {model.name: model.fingerprint for model in (self.teacher, self.parent) if model is not None}


@dataclass(frozen=True)
class StepTime:
    """The median time of a step, measured alone on quiet cores.

    Attributes:
        size: Of the student.
        teacher: That is heard in the step; None alone.
        start: Of the student.
        seconds: The median.
        inputs: Of the step; None if the measurement does not say.
    """

    size: str
    teacher: str | None
    start: str | None
    seconds: float
    inputs: str | None = None


def read_lines(folder: Path) -> list[Line]:
    """Read every cell that a folder of results holds, in the order of their ids.

    Args:
        folder: With a `.jsonl` file for each part.

    Raises:
        ValueError: If two lines are of one cell.
    """
    files = [path for path in sorted(folder.glob("*.jsonl")) if path.name != TIMES]
    contents = [each for path in files for each in contents_of(path)]
    told = _told_apart_by([each["cell"] for each in contents])
    lines = [as_line(each, told) for each in contents]
    ids = [line.id for line in lines]
    if twice := sorted({each for each in ids if ids.count(each) > 1}):
        raise ValueError(f"`{folder}` has more than one line of {', '.join(twice)}: keep the one that counts.")
    return sorted(lines, key=lambda line: line.id)


def read_times(folder: Path) -> list[StepTime]:
    """Read the step times; none if they were not measured."""
    path = folder / TIMES
    found = contents_of(path) if path.is_file() else []
    return [
        StepTime(each["size"], each["teacher"], each.get("start"), each["seconds_per_step"], each.get("inputs"))
        for each in found
    ]


def as_line(content: Mapping[str, Any], told_apart_by: frozenset[str] = frozenset()) -> Line:
    """Make a line of what the runner wrote.

    Args:
        content: The object of one line.
        told_apart_by: Other keys of a cell that are choices too.
    """
    cell, run, final, cost = (content[key] for key in ("cell", "run", "final", "cost"))
    return Line(
        id=cell["id"],
        key=choices_of(cell),
        part=cell["part"],
        arm=arm_of(cell),
        seed=cell["seed"],
        learning_rate=cell["learning_rate"],
        choices=_choices(cell, told_apart_by),
        loss=final["loss"],
        accuracy=final["accuracy"],
        unigram_loss=final.get("unigram_loss"),
        curve=tuple(Point(**point) for point in run["curve"]),
        held_out=json.dumps(run.get("held_out"), sort_keys=True),
        taught_steps=run["taught_steps"],
        is_cached=run.get("cache_passes") is not None,
        teacher=_model(content["teacher"]),
        parent=_model(content["grown_from"]),
        operations=cost["operations"],
        alone_operations=run["steps"] * cost["standalone_step"],
        clipped=content["clipped"],
        seconds=content["seconds"],
        cores=content["cores"],
        commit=content["commit"],
        machine=content["machine"],
    )


def arm_of(cell: Mapping[str, Any]) -> str:
    """`Line.arm` of a cell: its id without the part and the seed; the arm's own name if it has none."""
    start, end = f"{cell['part']}/", f"/seed-{cell['seed']}"
    middle = str(cell["id"]).removeprefix(start).removesuffix(end)
    return middle if f"{start}{middle}{end}" == cell["id"] else str(cell["arm"])


def as_planned(lines: Sequence[Line], planned: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Put every run where the study asks for it: one that several parts have in common is a line of each.

    Args:
        lines: As they were run.
        planned: The `cell` of every line that there should be.

    Returns:
        Those that are planned, under the plan's names, and the others as they are.
    """
    runs = {line.key: line for line in lines}
    placed = []
    for cell in planned:
        if (run := runs.get(choices_of(cell))) is not None:
            placed.append(replace(run, id=cell["id"], part=cell["part"], arm=arm_of(cell)))
    taken = {line.key for line in placed}
    return sorted([*placed, *(line for line in lines if line.key not in taken)], key=lambda line: line.id)


def by_seed(lines: Iterable[Line]) -> dict[int, Line]:
    """The lines of one recipe by their seeds; of several with one seed the first."""
    found: dict[int, Line] = {}
    for line in lines:
        found.setdefault(line.seed, line)
    return dict(sorted(found.items()))


def policy_in_words(cell: Mapping[str, Any]) -> str:
    """Name a weighting policy and its weights, such as 'linear 4 to 1'."""
    name, first, last, others = (cell.get(key) for key in _WEIGHTING)
    if name == "constant":
        first, last = 1.0 if first is None else first, None
    numbers = " to ".join(f"{each:g}" for each in (first, last) if each is not None)
    details = ", ".join(f"{key} {value}" for key, value in sorted((others or {}).items()))
    return " ".join(each for each in (name, numbers, f"({details})" if details else "") if each)


def _told_apart_by(cells: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Keys beyond the usual ones in which cells differ; what all have alike is no choice."""
    keys = {key for cell in cells for key in cell} - {*_CHOICES, *_WEIGHTING, *_NAMES}
    values = {key: {json.dumps(cell.get(key), sort_keys=True) for cell in cells} for key in keys}
    return frozenset(key for key, found in values.items() if len(found) > 1)


def _choices(cell: Mapping[str, Any], told_apart_by: frozenset[str]) -> Choices:
    others = {key: cell[key] for key in told_apart_by if cell.get(key) is not None}
    known = {key: cell[key] for key in _CHOICES}
    chosen = Choices(**known, weighting=policy_in_words(cell), others=json.dumps(others, sort_keys=True))
    return chosen if cell["teacher"] is not None else chosen.alone()


def _model(content: Mapping[str, Any] | None) -> Model | None:
    if content is None:
        return None
    named = {key: content.get(key) for key in ("training_operations", "loss", "curve_loss", "seed")}
    return Model(content["name"], content["fingerprint"], **named)
