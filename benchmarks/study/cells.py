"""The cells of the study: each one is a run, with all that was chosen for it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any

from benchmarks.study.config import Part, Study
from hf_dwt.arguments import DistillationArguments
from hf_dwt.remapping.methods import RANDOM, width_and_depth
from hf_dwt.sections import RecipeError, check_keys, suggestion

TEACHERS, TUNING, TUNED = "teachers", "tuning", "tuned"
# What only a cell with a teacher, or only a grown one, has.
_TEACHING = ("weighting", "soft_loss_weight", "final_soft_loss_weight", "weighting_kwargs", "temperature")
_GROWING = ("grown_from", "growth")
_NAMES = ("id", "part", "arm")
_FAMILY = ("inputs", "size", "start")


@dataclass(frozen=True)
class Cell:
    """A run.

    Attributes:
        id: Readable, unique.
        part: Of the study.
        arm: Of the part.
        inputs: Name of what it reads.
        size: Of the student.
        start: 'random', or a way of growing.
        teacher: Name of the one that teaches; None trains alone.
        grown_from: Name of the model that the student is made of; None for a random start.
        weighting: Policy; None alone, as the following.
        soft_loss_weight: None takes the policy's own.
        final_soft_loss_weight: Likewise.
        weighting_kwargs: Further settings of the policy.
        temperature: Of the soft loss.
        learning_rate: The peak; None while it waits for cells that tune it.
        steps: Optimiser steps.
        seed: Of initialisation, order and masks.
        dropout: Of the student.
        arguments: Further training arguments.
        growth: Further settings of growing.
    """

    id: str
    part: str
    arm: str
    inputs: str
    size: str
    start: str
    teacher: str | None
    grown_from: str | None
    weighting: str | None
    soft_loss_weight: float | None
    final_soft_loss_weight: float | None
    weighting_kwargs: Mapping[str, Any] | None
    temperature: float | None
    learning_rate: float | None
    steps: int
    seed: int
    dropout: float
    arguments: Mapping[str, Any] | None = None
    growth: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is kept; further arguments and settings only where there are some."""
        return {key: each for key, each in asdict(self).items() if each or key not in ("arguments", "growth")}

    @property
    def choices(self) -> str:
        """By what the same run is known, whatever part and arm name it."""
        return choices_of(self.to_dict())

    @property
    def family(self) -> str:
        """Cells for which one learning rate is tuned."""
        return family_of(self.to_dict())

    @property
    def needs(self) -> list[str]:
        """Names of the models without which it cannot run."""
        return [name for name in dict.fromkeys((self.teacher, self.grown_from)) if name is not None]


@dataclass(frozen=True)
class Planned:
    """A cell, and what it waits for.

    Attributes:
        cell: Its learning rate is None while something of `waits_for` is missing.
        waits_for: Ids of the cells that tune its learning rate and have no result yet.
    """

    cell: Cell
    waits_for: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """By what the same run is known: cells that wait for the same will have the same learning rate."""
        return (self.cell.choices, *self.waits_for)


LossOf = Callable[[str], float | None]


def choices_of(cell: Mapping[str, Any]) -> str:
    """`Cell.choices` of what was kept of a cell."""
    return json.dumps({key: each for key, each in cell.items() if key not in _NAMES}, sort_keys=True)


def family_of(cell: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> str:
    """`Cell.family` of what was kept of a cell; `changes` name another inputs, size or start."""
    family = {key: cell[key] for key in _FAMILY} | dict(changes or {})
    return json.dumps({**family, "taught": cell["teacher"] is not None}, sort_keys=True)


def teacher_cell(study: Study, name: str) -> Cell:
    """The cell that trains a teacher, alone."""
    section = study.teachers[name]
    missing = [key for key in ("steps", "learning_rate", "seed") if vars(section)[key] is None]
    if missing:
        raise RecipeError(f"`teachers.{name}` is not published and has no `{missing[0]}`.")
    choices = {"inputs": section.inputs, "size": section.size, "start": RANDOM, "teacher": None}
    choices |= {"learning_rate": section.learning_rate, "steps": section.steps}
    cell = _cell(study, f"{TEACHERS}/{name}/seed-{section.seed}", TEACHERS, name, choices)
    return replace(cell, seed=int(section.seed or 0))


def expand(study: Study, loss_of: LossOf) -> list[Planned]:
    """All cells of a study, teachers first, those of a part in the order of its seeds.

    Args:
        study: To be expanded.
        loss_of: Final held-out loss of the cell of these choices; None if it has not been run.

    Raises:
        RecipeError: If a choice is not known, or two cells have one id.
    """
    trained = [name for name, section in study.teachers.items() if section.published is None]
    planned = [Planned(teacher_cell(study, name)) for name in trained]
    drafts = [draft for part in study.parts for draft in _drafts(study, part)]
    tuning = [draft.cell for draft in drafts if draft.cell.part == TUNING]
    planned += [_tuned(draft, tuning, loss_of) for draft in drafts]
    ids = [each.cell.id for each in planned]
    if twice := [each for each in ids if ids.count(each) > 1]:
        raise RecipeError(f"Two cells are called `{twice[0]}`: name one of the arms otherwise.")
    return planned


def best_rate(cells: Sequence[Cell], loss_of: LossOf) -> float | None:
    """The learning rate with the lowest final loss, mean over seeds; None if there are none."""
    losses: dict[float, list[float]] = {}
    for cell in cells:
        loss = loss_of(cell.choices)
        if cell.learning_rate is not None and loss is not None:
            losses.setdefault(cell.learning_rate, []).append(loss)
    return min(losses, key=lambda rate: fmean(losses[rate])) if losses else None


@dataclass(frozen=True)
class _Draft:
    """A cell whose learning rate may still be 'tuned', as that of another family."""

    cell: Cell
    is_tuned: bool
    tuned_as: Mapping[str, Any] | None


def _drafts(study: Study, part: Part) -> Iterator[_Draft]:
    for seed in part.seeds:
        for arm, own in part.arms.items():
            vary = own["vary"]
            for values in product(*vary.values()):
                varied = dict(zip(vary, values, strict=True))
                _check_arm(part.name, arm, own, study)
                choices = {**study.defaults, **part.choices, **own, **varied}
                named = [_named(key, value) for key, value in varied.items()]
                name = "/".join([part.name, arm, *named, f"seed-{seed}"])
                cell = replace(_cell(study, name, part.name, arm, choices), seed=seed)
                tuned_as = choices.get("tuned_as") or {}
                check_keys(f"`tuned_as` of `{name}`", tuned_as, _FAMILY)
                yield _Draft(cell, choices.get("learning_rate") == TUNED, tuned_as)


def _tuned(draft: _Draft, tuning: Sequence[Cell], loss_of: LossOf) -> Planned:
    if not draft.is_tuned:
        return Planned(draft.cell)
    wanted = family_of(draft.cell.to_dict(), draft.tuned_as)
    family = [cell for cell in tuning if cell.family == wanted]
    if not family:
        raise RecipeError(f"No cell of the part `{TUNING}` tunes the learning rate of `{draft.cell.id}` ({wanted}).")
    # Shorter runs take higher rates: they say where to look, no more.
    longest = max(cell.steps for cell in family)
    family = [cell for cell in family if cell.steps == longest]
    missing = tuple(cell.id for cell in family if loss_of(cell.choices) is None)
    rate = None if missing else best_rate(family, loss_of)
    return Planned(replace(draft.cell, learning_rate=rate), missing)


def _cell(study: Study, name: str, part: str, arm: str, choices: Mapping[str, Any]) -> Cell:
    """Make a cell of choices, in one form only: what does not concern it is None."""
    _check(study, name, choices)
    own = {key: each for key, each in choices.items() if key not in ("share", "tuned_as", "vary")}
    if own["teacher"] is None:
        own |= dict.fromkeys(_TEACHING)
    if own["start"] == RANDOM:
        own |= dict.fromkeys(_GROWING)
    rate, steps = own["learning_rate"], choices.get("share", 1) * own["steps"] * study.step_factor
    own |= {"learning_rate": None if rate == TUNED else float(rate), "steps": max(round(steps), 2)}
    own |= {"dropout": float(own.get("dropout") or 0), "grown_from": own.get("grown_from")}
    own = {**dict.fromkeys(_TEACHING), **own}
    if own["teacher"] is not None:
        own["temperature"] = own["temperature"] or 1
    numbers = ("soft_loss_weight", "final_soft_loss_weight", "temperature")
    own |= {key: float(own[key]) for key in numbers if own[key] is not None}
    return Cell(id=name, part=part, arm=arm, seed=0, **own)


def _check(study: Study, name: str, choices: Mapping[str, Any]) -> None:
    for key in ("inputs", "size", "start", "learning_rate", "steps"):
        if choices.get(key) is None:
            raise RecipeError(f"`{name}` has no `{key}`.")
    if "teacher" not in choices:
        raise RecipeError(f"`{name}` does not say which `teacher` it has, or that it has none (null).")
    for key, known in (("inputs", study.inputs), ("size", study.sizes)):
        if choices[key] not in known:
            raise RecipeError(
                f"`{name}`: there is no {key} `{choices[key]}`. {suggestion(str(choices[key]), [*known])}"
            )
    for key in ("teacher", "grown_from"):
        if choices.get(key) is not None and choices[key] not in study.teachers:
            hint = suggestion(str(choices[key]), [*study.teachers])
            raise RecipeError(f"`{name}`: `{key}` is `{choices[key]}`, which is no teacher. {hint}")
    if not (choices["learning_rate"] == TUNED or isinstance(choices["learning_rate"], float)):
        raise RecipeError(f"`{name}`: `learning_rate` is a number or `{TUNED}`, got {choices['learning_rate']!r}.")
    if not isinstance(choices["steps"], int) or choices["steps"] < 1:
        raise RecipeError(f"`{name}`: `steps` should be a whole number, got {choices['steps']!r}.")
    if choices["start"] != RANDOM:
        width_and_depth(choices["start"], None, None)
        if choices.get("grown_from") is None:
            raise RecipeError(f"`{name}` starts by `{choices['start']}`, but has no `grown_from`.")
    if choices["teacher"] is not None:
        settings = {key: choices[key] for key in _TEACHING if choices.get(key) is not None}
        DistillationArguments(**settings)


def _check_arm(part: str, arm: str, own: Mapping[str, Any], study: Study) -> None:
    """Refuse what an arm says itself and would not follow."""
    vary = own["vary"]
    useless = _TEACHING if "teacher" in own and own["teacher"] is None else ()
    if own.get("start") == RANDOM:
        useless = (*useless, *_GROWING)
    for key in useless:
        if own.get(key) is not None or key in vary:
            raise RecipeError(f"The arm `{arm}` of the part `{part}` does not use `{key}`.")


def _named(key: str, value: Any) -> str:
    if value is None:
        return "none" if key == "teacher" else f"no-{key}"
    return value if isinstance(value, str) else f"{key.replace('_', '-')}-{value:g}"
