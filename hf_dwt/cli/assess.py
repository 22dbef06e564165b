"""`hf-dwt assess`."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from hf_dwt.assess import TeacherReport, assess_teacher
from hf_dwt.cli.inputs import read_inputs
from hf_dwt.cli.recipe import read_recipe
from hf_dwt.cli.runs import arguments_for
from hf_dwt.cli.students import student_config
from hf_dwt.comparison import Run, has_result, read_run
from hf_dwt.sections import RecipeError

_TWIN = "alone-equal-steps"


def assess(
    recipe_path: str | Path,
    options: Sequence[str] = (),
    *,
    standalone_loss: float | None,
    baseline: str | None,
    as_json: bool,
) -> None:
    """Measure a recipe's teacher on its held-out text, and print what may be said of it.

    Args:
        recipe_path: YAML file.
        options: `--name value` changes.
        standalone_loss: Of the student trained alone on the same text, nats per position.
        baseline: Folder that `hf-dwt train --baseline` has written, to take that loss from; '' is the recipe's own.
        as_json: Print JSON instead of a table.

    Raises:
        RecipeError: If the recipe has no teacher, or there is no such figure in the folder.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    recipe = read_recipe(recipe_path, options)
    if recipe.teacher is None:
        raise RecipeError("There is nobody to assess: this recipe has no `teacher`.")
    if standalone_loss is not None and baseline is not None:
        raise RecipeError("Give either `--standalone-loss` or `--baseline`: both tell the loss of the student alone.")
    args = arguments_for(recipe)
    if baseline is not None:
        standalone_loss = _read_baseline(Path(baseline or args.output_dir)).loss
    inputs = read_inputs(recipe, args.seed)
    assert inputs.teacher is not None
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
    if as_json:
        console.print(json.dumps(report.to_dict(), indent=2), markup=False, highlight=False, soft_wrap=True)
        return
    console.print(report_table(report))
    for line in (f"{report.verdict}: {report.evidence}", *(f"- {each}" for each in report.advice)):
        console.print(line, markup=False, highlight=False)


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
