"""`hf-dwt train`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedConfig
from transformers.utils import logging

from hf_dwt.arguments import DWTTrainingArguments
from hf_dwt.cli.folders import require_writable
from hf_dwt.cli.inputs import named_tokenizer, read_inputs
from hf_dwt.cli.interruption import resumable
from hf_dwt.cli.recipe import Recipe, read_recipe
from hf_dwt.cli.runs import (
    REPEAT,
    arguments_for,
    mean_length,
    publish_comparison,
    require_way_to_begin,
    run_student,
    run_twins,
    score_teacher,
    step_cost,
)
from hf_dwt.cli.students import check_student, objective_of, pinned, read_teacher_config, student_config
from hf_dwt.cli.tables import comparison_rows, comparison_table, teacher_row
from hf_dwt.comparison import summary
from hf_dwt.costs import StepCost, num_configured_parameters, on_meta
from hf_dwt.course import planned_weights
from hf_dwt.feeding import data_seed
from hf_dwt.language_models import Kind
from hf_dwt.sections import RecipeError

_UNKNOWN = "unknown until read"


def train(
    recipe_path: str | Path, options: Sequence[str] = (), *, dry_run: bool, baseline: bool, resume: bool
) -> dict[str, Any] | None:
    """Carry a recipe out, or tell what it would do.

    Args:
        recipe_path: YAML file.
        options: `--name value` changes.
        dry_run: Read configurations only, and print sizes, steps and costs.
        baseline: Also train the student alone, and print what the teacher brought.
        resume: Go on from the last whole checkpoint.

    Returns:
        Of a run `runs` and `teacher`, see `tables`; `summary`, sentences; and `output_dir`. Of a dry run what
        `forecast` returns. None on all processes but the first.

    Raises:
        ValueError: If the recipe is wrong, has no teacher to compare with, or there is nothing to resume from.
    """
    logging.disable_progress_bar()
    recipe = read_recipe(recipe_path, options)
    args = arguments_for(recipe)
    # Under a launcher one process speaks for all.
    console = Console(quiet=args.process_index > 0)
    if baseline and recipe.teacher is None:
        raise RecipeError("`--baseline` trains the student without its teacher, but this recipe has none.")
    if dry_run:
        content = forecast(recipe)
        console.print(_forecast_table(content, recipe.data.length))
        return content if args.process_index == 0 else None
    require_writable(args.output_dir, "--output-dir")
    require_way_to_begin(args.output_dir, resume)
    with resumable(args.output_dir):
        content = _carried_out(recipe, args, console, baseline=baseline, resume=resume)
    return content if args.process_index == 0 else None


def _carried_out(
    recipe: Recipe, args: DWTTrainingArguments, console: Console, *, baseline: bool, resume: bool
) -> dict[str, Any]:
    recipe = pinned(recipe)
    inputs = read_inputs(recipe, data_seed(args))
    run = run_student(recipe, inputs, resume, command=f"{REPEAT} --baseline" if baseline else REPEAT)
    teacher_config = inputs.teacher and inputs.teacher.model.config
    config = student_config(recipe, teacher_config, inputs.tokenizer)
    cost = _count_cost(recipe, inputs.kind, config, teacher_config, mean_length(recipe, inputs))
    teacher = teacher_row(score_teacher(recipe, inputs) if inputs.teacher is not None else None)
    twins = run_twins(recipe, inputs, run, cost, resume) if baseline else []
    rows = comparison_rows([run, *twins], teacher, cost)
    console.print(comparison_table(rows, teacher))
    lines = list(summary(run, *twins)) if twins else []
    for line in lines:
        console.print(line)
    publish_comparison(recipe, twins)
    console.print(f"The student is in {args.output_dir}, with its card.", markup=False)
    return {"runs": rows, "teacher": teacher, "summary": lines, "output_dir": args.output_dir}


def forecast(recipe: Recipe) -> dict[str, Any]:
    """What a run would be, from configurations alone.

    Returns:
        `objective`; `student_parameters`; `teacher_parameters`; `teacher_share` of a step's cost, 0 to 1;
        `soft_loss_weight` at the beginning, in the middle and at the end; `max_steps`; `tokens_per_step` on each
        process, at most. None for what is not known before the text is read, and for a teacher that is not there.
    """
    recipe = pinned(recipe)
    teacher, args = read_teacher_config(recipe), arguments_for(recipe)
    kind = objective_of(recipe, teacher)
    # Code of the teacher's own is run only where the teacher is loaded.
    is_known = recipe.teacher is not None and not recipe.teacher.trust_remote_code
    if teacher is None or is_known:
        check_student(recipe, kind, None if teacher is None else on_meta(teacher, kind))
    has_own_vocabulary = teacher is None and "name" not in recipe.student
    student = student_config(recipe, teacher, named_tokenizer(recipe) if has_own_vocabulary else None)
    section = recipe.tokenizer
    if has_own_vocabulary and section is not None and section.name is None and "vocab_size" not in recipe.student:
        # A tokenizer that is still to be trained has the size that was asked for.
        student.vocab_size = section.vocab_size
    max_steps = args.max_steps if args.max_steps > 0 else None
    content: dict[str, Any] = {"objective": kind, "student_parameters": num_configured_parameters(student, kind)}
    content |= {"teacher_parameters": None, "teacher_share": None, "soft_loss_weight": None}
    if teacher is not None:
        cost = _count_cost(recipe, kind, student, teacher, recipe.data.length)
        content["teacher_parameters"] = num_configured_parameters(teacher, kind)
        content["teacher_share"] = None if cost is None else cost.teacher_share
        content["soft_loss_weight"] = [each.soft for each in planned_weights(args, max_steps, (0.0, 0.5, 1.0))]
    return {**content, "max_steps": max_steps, "tokens_per_step": _tokens_per_step(recipe, args.train_batch_size)}


def _forecast_table(content: Mapping[str, Any], length: int) -> Table:
    table = Table(title="What would be done", show_header=False)
    table.add_row("objective", content["objective"])
    table.add_row("student", f"{content['student_parameters']:,} parameters")
    num_teacher, share = content["teacher_parameters"], content["teacher_share"]
    if num_teacher is not None:
        relative = num_teacher / content["student_parameters"]
        table.add_row("teacher", f"{num_teacher:,} parameters, {relative:.2f} of the student")
        told = "cannot be counted" if share is None else f"{share:.0%} at {length} tokens"
        table.add_row("teacher's share of a step's cost", told)
        table.add_row("soft-loss weight", " -> ".join(f"{each:g}" for each in content["soft_loss_weight"]))
    steps = content["max_steps"]
    table.add_row("optimiser steps", _UNKNOWN if steps is None else f"{steps:,}")
    table.add_row("tokens per step", f"{content['tokens_per_step']:,} at most, on each process")
    table.add_row("examples", _UNKNOWN)
    return table


def _tokens_per_step(recipe: Recipe, batch_size: int) -> int:
    return batch_size * int(recipe.arguments.get("gradient_accumulation_steps", 1)) * recipe.data.length


def _count_cost(
    recipe: Recipe, kind: Kind, student: PreTrainedConfig, teacher: PreTrainedConfig | None, length: float
) -> StepCost | None:
    try:
        return step_cost(recipe, kind, student, teacher, length)
    except ValueError:
        return None
