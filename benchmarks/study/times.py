"""Step times, measured alone: each model and start that the parts use in turn, on one core, with one thread."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measuring import environment, in_turn
from benchmarks.step_arms import NUM_FIRST_STEPS, StepTimer
from benchmarks.study.cells import Cell, teacher_cell
from benchmarks.study.recipes import is_grown_apart, recipe_of
from benchmarks.study.results import TIMES, append
from benchmarks.study.running import pin, quietly
from benchmarks.study.scheduling import Plan
from benchmarks.study.workers import call_in_process, usable_cores
from hf_dwt.cli.inputs import Inputs, read_inputs
from hf_dwt.cli.recipe import Recipe, make_recipe
from hf_dwt.cli.runs import make_trainer
from hf_dwt.sections import RecipeError

NUM_ROUNDS, NUM_STEPS = 5, 12
_KEY = ("inputs", "size", "teacher", "start")


@dataclass(frozen=True)
class Timing:
    """What the process that measures is given.

    Attributes:
        recipes: By the position of the cell in the list of results.
        folder: Of models and data.
        core: To run on.
        num_rounds: Turns of each.
        num_steps: Of each turn.
    """

    recipes: tuple[Mapping[str, Any], ...]
    folder: str
    core: int | None
    num_rounds: int = NUM_ROUNDS
    num_steps: int = NUM_STEPS


def measure(plan: Plan, num_rounds: int = NUM_ROUNDS, num_steps: int = NUM_STEPS) -> list[dict[str, Any]]:
    """Measure the steps of a plan's cells, one cell for each inputs, size, teacher and start; the lines are kept.

    A teacher is heard in every step. A student that is grown from another model than its teacher takes the steps of
    one that is grown from it.

    Raises:
        RecipeError: If a teacher has not been trained here.
    """
    chosen: dict[tuple[Any, ...], Cell] = {}
    for each in plan.cells():
        chosen.setdefault(tuple(vars(each.cell)[key] for key in _KEY), each.cell)
    cells = [_heard_throughout(cell) for cell in chosen.values()]
    if lacking := [name for cell in cells for name in plan.lacking(cell)]:
        raise RecipeError(
            f"The teacher `{lacking[0]}` is not here: run `{teacher_cell(plan.study, lacking[0]).id}` first."
        )
    recipes = tuple(recipe_of(plan.study, cell) for cell in cells)
    timing = Timing(recipes, str(plan.folder), usable_cores()[0], num_rounds, num_steps)
    answer = call_in_process(step_times, timing, plan.folder / "times.log")
    rows = []
    for cell, rounds in zip(cells, answer["rounds"], strict=True):
        row = {key: vars(cell)[key] for key in _KEY}
        seconds = median(second for each in rounds for second in each)
        row |= {"seconds_per_step": seconds, "rounds": rounds, "environment": answer["environment"]}
        append(plan.results.folder / TIMES, row)
        rows.append(row)
    return rows


def step_times(timing: Timing) -> dict[str, Any]:
    """Seconds of steps, for each recipe a list of turns."""
    os.chdir(timing.folder)
    pin(timing.core)
    quietly()
    recipes = [make_recipe(each) for each in timing.recipes]
    inputs = [read_inputs(recipe, int(recipe.arguments["seed"])) for recipe in recipes]
    arms = {
        str(index): lambda recipe=recipe, read=read: _turn(recipe, read, timing.num_steps)
        for index, (recipe, read) in enumerate(zip(recipes, inputs, strict=True))
    }
    rounds = in_turn(arms, timing.num_rounds)
    return {"rounds": [rounds[str(index)] for index in range(len(recipes))], "environment": environment()}


def _turn(recipe: Recipe, inputs: Inputs, num_steps: int) -> list[float]:
    timer = StepTimer("cpu")
    with TemporaryDirectory() as scratch:
        changes = {"output_dir": scratch, "max_steps": num_steps + NUM_FIRST_STEPS, "eval_strategy": "no"}
        trainer = make_trainer(recipe, inputs, with_teacher=inputs.teacher is not None, **changes)
        trainer.add_callback(timer)
        trainer.train()
    return timer.seconds()


def _heard_throughout(cell: Cell) -> Cell:
    grown_from = cell.teacher if is_grown_apart(cell) else cell.grown_from
    constant = {"weighting": "constant", "soft_loss_weight": 1.0, "final_soft_loss_weight": None}
    own = {} if cell.teacher is None else {**constant, "weighting_kwargs": None}
    return replace(cell, grown_from=grown_from, learning_rate=cell.learning_rate or 1e-3, **own)
