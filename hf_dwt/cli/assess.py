"""`hf-dwt assess`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from hf_dwt.assess import TeacherReport, assess_teacher
from hf_dwt.cli.inputs import Inputs, read_inputs
from hf_dwt.cli.recipe import read_recipe
from hf_dwt.cli.runs import arguments_for
from hf_dwt.cli.students import student_config
from hf_dwt.collators import evaluation_collator
from hf_dwt.comparison import Run, has_result, held_out_of, read_run
from hf_dwt.feeding import data_seed
from hf_dwt.sampling import sampled_batches
from hf_dwt.sections import RecipeError

_TWIN = "alone-equal-steps"
_BATCH_SIZE = 32


def assess(
    recipe_path: str | Path,
    options: Sequence[str] = (),
    *,
    standalone_loss: float | None,
    baseline: str | None,
) -> dict[str, Any]:
    """Measure a recipe's teacher on its held-out text, and print what may be said of it.

    Args:
        recipe_path: YAML file.
        options: `--name value` changes.
        standalone_loss: Of the student trained alone on the same text, nats per position.
        baseline: Folder that `hf-dwt train --baseline` has written, to take that loss from; '' is the recipe's own.

    Returns:
        The fields of the report, and `doubt` where there is one: why the loss of the student alone may not be of the
        same examples.

    Raises:
        RecipeError: If the recipe has no teacher, there is no such figure in the folder, or it is of other examples or
            masks than the recipe's.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    recipe = read_recipe(recipe_path, options)
    if recipe.teacher is None:
        raise RecipeError("There is nobody to assess: this recipe has no `teacher`.")
    if standalone_loss is not None and baseline is not None:
        raise RecipeError("Give either `--standalone-loss` or `--baseline`: both tell the loss of the student alone.")
    # Before everything is read.
    if standalone_loss is not None and not 0 <= standalone_loss < math.inf:
        raise RecipeError(f"`--standalone-loss` is {standalone_loss}: a loss is finite and at least 0, in nats.")
    args = arguments_for(recipe)
    run = None if baseline is None else _read_baseline(Path(baseline or args.output_dir))
    inputs = read_inputs(recipe, data_seed(args))
    assert inputs.teacher is not None
    doubt = None
    if run is not None:
        standalone_loss, doubt = run.loss, _doubt(run, inputs, args.seed)
    report = assess_teacher(
        inputs.teacher,
        inputs.evaluation,
        standalone_loss=standalone_loss,
        student=student_config(recipe, inputs.teacher.model.config, inputs.tokenizer),
        processing_class=inputs.tokenizer,
        data_collator=inputs.collator,
        batch_size=args.per_device_eval_batch_size,
        seed=args.seed,
    )
    console = Console()
    console.print(report_table(report))
    lines = [f"{report.verdict}: {report.evidence}", *(f"- {each}" for each in report.advice)]
    for line in [*lines, doubt] if doubt else lines:
        console.print(line, markup=False, highlight=False)
    return report.to_dict() | ({} if doubt is None else {"doubt": doubt})


def report_table(report: TeacherReport) -> Table:
    """Lay a report out; what is not known is left out."""
    table = Table(title="The teacher", show_header=False)
    table.add_row("teacher", f"{report.teacher} ({report.kind}), {report.num_parameters:,} parameters")
    table.add_row("examples", f"{report.num_examples:,}, {report.num_positions:,} positions")
    table.add_row("loss", f"{report.loss:.4f} nats, perplexity {report.perplexity:.2f}, accuracy {report.accuracy:.2%}")
    table.add_row("unigram loss", f"{report.unigram_loss:.4f} nats")
    table.add_row("entropy", f"{report.entropy:.4f} nats, calibration error {report.calibration_error:.4f}")
    if report.standalone_loss is not None:
        table.add_row("student alone", f"{report.standalone_loss:.4f} nats")
    if report.quality is not None:
        table.add_row("quality", f"{report.quality:.3f} (0: unigram, 1: the student alone)")
    if report.relative_parameters is not None:
        table.add_row("size", f"{report.relative_parameters:.2f} of the student's parameters")
    if report.relative_cost is not None:
        table.add_row("cost", f"{report.relative_cost:.2f} of a forward pass, {report.share_of_step:.0%} of a step")
    unknown = "" if report.unknown_share is None else f", {report.unknown_share:.2%} of the text is unknown to it"
    table.add_row("tokenizer", f"{report.num_shared_tokens:,} shared tokens{unknown}")
    return table


def _doubt(run: Run, inputs: Inputs, seed: int) -> str | None:
    """Say that it cannot be known whether a run's loss is of the same examples and masks; None if it is.

    Raises:
        RecipeError: If it is not.
    """
    collator = evaluation_collator(inputs.collator, seed)
    own = held_out_of(sampled_batches(inputs.evaluation, collator, _BATCH_SIZE), collator)
    if run.held_out is None:
        return (
            f"The run {run.name!r} does not tell what examples and masks its loss is of: the verdict holds only if "
            "they are those of this recipe."
        )
    differences = run.held_out.differences(own)
    if differences:
        raise RecipeError(
            f"The loss of the run {run.name!r} is not of what the teacher would be asked here: it differs in "
            f"{', '.join(differences)}. Assess with that run's recipe and `--seed`, or train the baseline again."
        )
    return None


def _read_baseline(folder: Path) -> Run:
    """The student alone: at equal steps, as `hf-dwt train --baseline` leaves it, or the run in the folder itself."""
    for candidate in (folder / _TWIN, folder):
        if has_result(candidate):
            run = read_run(candidate)
            if run.taught_steps == 0:
                return run
    raise RecipeError(
        f"{str(folder)!r} holds no run of the student alone: `hf-dwt train --baseline` makes one, in a folder "
        f"{_TWIN!r} beside the student."
    )
