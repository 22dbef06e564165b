"""From a cell to the recipe that `hf-dwt train` takes; folders are below that of the study's models and data."""

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.study.cells import TEACHERS, Cell
from benchmarks.study.config import Study
from hf_dwt.remapping.methods import RANDOM
from hf_dwt.sections import RecipeError


def recipe_of(study: Study, cell: Cell) -> dict[str, Any]:
    """The content of a cell's recipe.

    A grown student that is trained alone has a teacher with weight 0, which is never asked. One that is grown from
    another model than its teacher starts from a folder, see `growing_of`.
    """
    base = study.inputs[cell.inputs]
    arguments = {**base.arguments, **(cell.arguments or {}), "output_dir": folder_of(cell)}
    arguments |= {"learning_rate": cell.learning_rate, "max_steps": cell.steps, "seed": cell.seed}
    recipe: dict[str, Any] = {"objective": base.objective, "student": student_fields(study, cell), "data": base.data}
    if base.tokenizer is not None:
        recipe["tokenizer"] = base.tokenizer
    heard = cell.teacher or cell.grown_from
    if heard is not None:
        recipe["teacher"] = {"name": model_folder(study, heard)}
        arguments |= _weights(cell)
    if is_grown_apart(cell):
        recipe["student"] = {"name": f"{folder_of(cell)}-start"}
    elif cell.start != RANDOM:
        recipe["growth"] = growth_of(cell)
    return dict(json.loads(json.dumps({**recipe, "arguments": arguments})))


def growing_of(study: Study, cell: Cell) -> dict[str, Any] | None:
    """The recipe by which a student is grown before its own recipe is read; None if that one grows it."""
    if not is_grown_apart(cell) or cell.grown_from is None:
        return None
    own = recipe_of(study, cell)
    grown = {"student": student_fields(study, cell), "growth": growth_of(cell)}
    return {**own, **grown, "teacher": {"name": model_folder(study, cell.grown_from)}}


def is_grown_apart(cell: Cell) -> bool:
    """Whether the teacher is another model than the one that the student is grown from."""
    return cell.teacher is not None and cell.grown_from not in (None, cell.teacher)


def student_fields(study: Study, cell: Cell) -> dict[str, Any]:
    """Fields of the student's configuration."""
    base = study.inputs[cell.inputs]
    model_type = base.student["model_type"]
    if model_type not in study.sizes[cell.size]:
        raise RecipeError(f"`sizes.{cell.size}` has no `{model_type}`, which `{cell.id}` needs.")
    return {**base.student, **study.sizes[cell.size][model_type], **dict.fromkeys(base.dropout, cell.dropout)}


def growth_of(cell: Cell) -> dict[str, Any]:
    """Settings of growing."""
    return {"method": cell.start, **(cell.growth or {})}


def folder_of(cell: Cell) -> str:
    """Where a cell's student goes."""
    return f"./{TEACHERS}/{cell.arm}" if cell.part == TEACHERS else f"./runs/{cell.id.replace('/', '--')}"


def model_folder(study: Study, name: str) -> str:
    """Where the teacher of this name is."""
    return study.teachers[name].published or f"./{TEACHERS}/{name}"


def same_recipe(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two recipes are the same but for the folder of the student."""
    return _without_folders(ours) == _without_folders(theirs)


def _weights(cell: Cell) -> dict[str, Any]:
    if cell.teacher is None:
        return {"weighting": "constant", "soft_loss_weight": 0}
    names = ("weighting", "soft_loss_weight", "final_soft_loss_weight", "weighting_kwargs", "temperature")
    return {name: vars(cell)[name] for name in names if vars(cell)[name] is not None}


def _without_folders(recipe: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {key: each for key, each in recipe["arguments"].items() if key != "output_dir"}
    student = {key: each for key, each in recipe["student"].items() if key != "name"}
    return {**recipe, "arguments": arguments, "student": student}
