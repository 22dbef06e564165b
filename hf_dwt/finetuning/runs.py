"""All cells of a suite, one after another; finished ones are not repeated."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from transformers.utils import logging

from hf_dwt.adapters import require_peft
from hf_dwt.finetuning.cells import Cell, FinishedCells, mean_score, score_predictions
from hf_dwt.finetuning.full import fine_tune
from hf_dwt.finetuning.lora import tune_adapters
from hf_dwt.finetuning.models import Candidate, open_candidate
from hf_dwt.finetuning.probe import probe
from hf_dwt.finetuning.report import SuiteReport
from hf_dwt.finetuning.rows import Rows, read_rows
from hf_dwt.finetuning.suites import Suite, Task, Training, load_suite

logger = logging.get_logger(__name__)

Method = Literal["full", "lora", "probe"]
_Run = Callable[[Candidate, Rows, Training, int, Path], dict[str, np.ndarray]]
_METHODS: Mapping[str, _Run] = {"full": fine_tune, "lora": tune_adapters, "probe": probe}
_LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "scikit-learn")


@dataclass(frozen=True)
class Progress:
    """Where a suite stands after a cell.

    Attributes:
        cell: The last one.
        num_done: Cells, this one among them.
        num_cells: Of the suite.
        seconds_left: About, from the cells that were run now; None before there is one.
    """

    cell: Cell
    num_done: int
    num_cells: int
    seconds_left: float | None


def evaluate_suite(
    models: str | Path | Sequence[str | Path],
    suite: str | Path = "demo",
    *,
    seeds: int | Sequence[int] = 5,
    method: Method = "full",
    output_dir: str | Path = "evaluation",
    tasks: Sequence[str] | None = None,
    data: str | None = None,
    on_cell: Callable[[Progress], None] | None = None,
) -> SuiteReport:
    """Fine-tune and score each model on each task with each seed.

    Finished cells are kept in `output_dir` and not repeated; a cell that fails is reported, and the rest goes on.

    Args:
        models: Folders, Hub ids or `id@revision`, each read at one commit. The first is what the others are
            compared with.
        suite: 'glue', 'demo', 'molecules', or a YAML file.
        seeds: How many, or which. A seed changes the new head (with 'lora', the adapters too) and the order of the
            training rows, nothing else.
        method: 'full' trains all weights, 'lora' adapters (kept in `output_dir/adapters`), 'probe' a linear classifier
            on a frozen model, in seconds.
        output_dir: For `cells.jsonl`, `results.json` and `results.md`.
        tasks: Names of tasks. None: all but the optional ones.
        data: A copy of the data set elsewhere, instead of the suite's `source`.
        on_cell: Called after each cell.

    Raises:
        ValueError: If the suite, a model or an argument is wrong; before any training.
        OSError: If a model is not there.
        ImportError: If `evaluate` or scikit-learn is missing, which `pip install 'hf_dwt[eval]'` brings, or peft for
            'lora'; before any training.

    Example:
        >>> evaluate_suite("me/student", "glu")
        Traceback (most recent call last):
        hf_dwt.sections.RecipeError: There is no suite 'glu': name a YAML file, or one of demo, glue, molecules.
    """
    if method not in get_args(Method):
        raise ValueError(f"`method` must be one of {', '.join(get_args(Method))}, got {method!r}.")
    chosen = load_suite(suite, tasks, data)
    names = [str(models)] if isinstance(models, (str, Path)) else list(dict.fromkeys(map(str, models)))
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(dict.fromkeys(seeds))
    if not names or not numbers or not chosen.tasks:
        raise ValueError("There is nothing to do: give at least one model, one seed and one task.")
    # Before any training: a library that is missing would let each cell fail at its end.
    versions = _versions()
    if method == "lora":
        require_peft("`method='lora'`")
    candidates = [open_candidate(name, with_head=method != "probe") for name in names]
    folder = Path(output_dir)
    cells = []
    started, num_run, num_cells = time.monotonic(), 0, len(candidates) * len(numbers) * len(chosen.tasks)
    for cell, is_new in _run_cells(candidates, chosen, numbers, method, folder):
        cells.append(cell)
        num_run += is_new
        left = (time.monotonic() - started) / num_run * (num_cells - len(cells)) if num_run else None
        if on_cell is not None:
            on_cell(Progress(cell, len(cells), num_cells, left))
    report = SuiteReport(chosen, method, tuple(names), tuple(numbers), tuple(cells), versions)
    report.save(folder)
    return report


def _versions() -> dict[str, str]:
    try:
        return {name: version(name) for name in _LIBRARIES}
    except PackageNotFoundError as error:
        raise ImportError(f"Suites need {error.name}, which is not installed: pip install 'hf_dwt[eval]'.") from error


def _run_cells(
    candidates: Sequence[Candidate], suite: Suite, seeds: Sequence[int], method: str, folder: Path
) -> Iterator[tuple[Cell, bool]]:
    """Cells, and whether each was run just now; the rows of a task are read once, when they are first needed."""
    finished = FinishedCells(folder / "cells.jsonl")
    for task in suite.tasks:
        rows = cache(partial(read_rows, task))
        for candidate in candidates:
            key = hashlib.sha256(f"{method} {candidate.fingerprint} {task.fingerprint()}".encode()).hexdigest()[:16]
            for seed in seeds:
                known = finished.find(candidate.name, task.name, seed, key)
                if known is not None:
                    yield known, False
                    continue
                where = _place_of(folder, method, f"{task.name}-{key}-{seed}")
                cell = _run_cell(candidate, task, rows, seed, method, key, where)
                if cell.error is None:
                    finished.add(cell)
                yield cell, True


def _place_of(folder: Path, method: str, cell: str) -> Path:
    """Where a method keeps what it makes: each adapter by itself, features of texts together, whole models nowhere."""
    return {"full": folder, "lora": folder / "adapters" / cell, "probe": folder / "features"}[method]


def _run_cell(
    candidate: Candidate, task: Task, rows_of: Callable[[], Rows], seed: int, method: str, key: str, folder: Path
) -> Cell:
    started = time.monotonic()
    metrics: dict[str, float] = {}
    score = error = None
    # Whatever a model, a data set or a library does wrong shall not cost the other cells; Ctrl-C does end the run.
    try:
        rows = rows_of()
        predictions = _METHODS[method](candidate, rows, task.training, seed, folder)
        metrics = score_predictions(rows, predictions, task.metrics)
        score = mean_score(metrics)
    except Exception as failure:
        error = f"{type(failure).__name__}: {' '.join(str(failure).split())}"
        logger.warning(f"{candidate.name} on `{task.name}`, seed {seed}, failed: {error}", exc_info=True)
    return Cell(candidate.name, task.name, seed, key, score, metrics, time.monotonic() - started, error)
