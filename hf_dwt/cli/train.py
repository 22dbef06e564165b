"""`hf-dwt train`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedConfig

from hf_dwt.cli.inputs import read_inputs
from hf_dwt.cli.recipe import Recipe, read_recipe
from hf_dwt.cli.runs import (
    REPEAT,
    arguments_for,
    comparison_table,
    mean_length,
    publish_comparison,
    run_student,
    run_twins,
    score_teacher,
    step_cost,
)
from hf_dwt.cli.students import num_parameters, objective_of, pinned, read_teacher_config, student_config
from hf_dwt.comparison import summary
from hf_dwt.costs import StepCost
from hf_dwt.language_models import Kind
from hf_dwt.sections import RecipeError
from hf_dwt.signals import Signals

_UNKNOWN = "unknown until read"


def train(recipe_path: str | Path, options: Sequence[str] = (), *, dry_run: bool, baseline: bool, resume: bool) -> None:
    """Carry a recipe out, or tell what it would do.

    Args:
        recipe_path: YAML file.
        options: `--name value` changes.
        dry_run: Read configurations only, and print sizes, steps and costs.
        baseline: Also train the student alone, and print what the teacher brought.
        resume: Go on from the last whole checkpoint.

    Raises:
        RecipeError: If the recipe is wrong, or has no teacher to compare with.
    """
    recipe = read_recipe(recipe_path, options)
    args = arguments_for(recipe)
    # Under a launcher one process speaks for all.
    console = Console(quiet=args.process_index > 0)
    if baseline and recipe.teacher is None:
        raise RecipeError("`--baseline` trains the student without its teacher, but this recipe has none.")
    if dry_run:
        console.print(_forecast(recipe))
        return
    recipe = pinned(recipe)
    inputs = read_inputs(recipe, args.seed)
    run = run_student(recipe, inputs, resume, command=f"{REPEAT} --baseline" if baseline else REPEAT)
    teacher_config = inputs.teacher and inputs.teacher.model.config
    config = student_config(recipe, teacher_config, inputs.tokenizer)
    cost = _count_cost(recipe, inputs.kind, config, teacher_config, mean_length(recipe, inputs))
    teacher = score_teacher(recipe, inputs) if inputs.teacher is not None else None
    twins = run_twins(recipe, inputs, run, cost, resume) if baseline else []
    console.print(comparison_table([run, *twins], teacher, cost))
    for line in summary(run, *twins) if twins else ():
        console.print(line)
    publish_comparison(recipe, twins)
    console.print(f"The student is in {args.output_dir}, with its card.")


def _forecast(recipe: Recipe) -> Table:
    """What a run would be, from configurations alone."""
    recipe = pinned(recipe)
    teacher, args = read_teacher_config(recipe), arguments_for(recipe)
    kind = objective_of(recipe, teacher)
    student = student_config(recipe, teacher)
    if recipe.tokenizer is not None and teacher is None and "vocab_size" not in recipe.student:
        # A tokenizer that is still to be trained has the size that was asked for.
        student.vocab_size = recipe.tokenizer.vocab_size
    num_student = num_parameters(student, kind)
    cost = _count_cost(recipe, kind, student, teacher, recipe.data.length)
    policy = args.policy()
    weights = [policy(Signals(0, progress)) for progress in (0.0, 0.5, 1.0)]

    table = Table(title="What would be done", show_header=False)
    table.add_row("objective", kind)
    table.add_row("student", f"{num_student:,} parameters")
    if teacher is not None:
        num_teacher = num_parameters(teacher, kind)
        table.add_row("teacher", f"{num_teacher:,} parameters, {num_teacher / num_student:.2f} of the student")
        share = "cannot be counted" if cost is None else f"{cost.teacher_share:.0%} at {recipe.data.length} tokens"
        table.add_row("teacher's share of a step's cost", share)
        table.add_row("soft-loss weight", " -> ".join(f"{each.soft:g}" for each in weights))
    table.add_row("optimiser steps", f"{args.max_steps:,}" if args.max_steps > 0 else _UNKNOWN)
    table.add_row("tokens per step", f"{_tokens_per_step(recipe, args.train_batch_size):,} at most, on each process")
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
