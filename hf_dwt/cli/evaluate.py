"""`hf-dwt evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from transformers.utils import logging

from hf_dwt.cli.folders import require_writable
from hf_dwt.finetuning.plot import plot_report
from hf_dwt.finetuning.runs import Progress, evaluate_suite


def evaluate(
    models: Sequence[str],
    *,
    suite: str,
    seeds: int,
    method: Any,
    tasks: Sequence[str] | None,
    data: str | None,
    output: str,
) -> dict[str, Any]:
    """Score models on a suite, print the tables, and write them with a plot.

    Args:
        models: Folders, Hub ids, or `id@revision`.
        suite: Name or YAML file.
        seeds: How many.
        method: 'full', 'lora' or 'probe'.
        tasks: Names of tasks, None for all but the optional ones.
        data: A copy of the suite's data set.
        output: Folder for results; what is finished there is not repeated.

    Returns:
        What is in `results.json`.

    Raises:
        ValueError: If the suite, a model or an argument is wrong, or every cell has failed.
        OSError: If a model is not there.
    """
    console = Console()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    folder = Path(output)
    require_writable(folder, "--output")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Bar(*columns, console=console) as bar:
        line = bar.add_task("cells", total=None, left="")

        def show(progress: Progress) -> None:
            left = "" if progress.seconds_left is None else f"about {progress.seconds_left / 60:.1f} min left"
            bar.update(line, completed=progress.num_done, total=progress.num_cells, left=left)

        report = evaluate_suite(
            models, suite, seeds=seeds, method=method, output_dir=folder, tasks=tasks, data=data, on_cell=show
        )
    if len(report.failed) == len(report.cells):
        raise ValueError(f"Nothing could be scored; the first of {len(report.cells)} faults: {report.failed[0].error}")
    console.print(Markdown(str(report)))
    try:
        plot_report(report, folder / "results.png")
        written = "results.json, results.md and results.png"
    except ImportError:
        written = "results.json and results.md (a plot needs matplotlib: pip install 'hf_dwt[plots]')"
    console.print(f"{written} are in {folder}.", markup=False)
    if report.failed:
        told = f"{len(report.failed)} of {len(report.cells)} cells have failed; the same command tries them again."
        console.print(told, markup=False)
    return report.to_dict()
