"""A cell is one model on one task with one seed; finished ones are kept in a file of JSON lines."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from hf_dwt.finetuning.metrics import compute_metric
from hf_dwt.finetuning.rows import Rows


@dataclass(frozen=True)
class Cell:
    """The result of one model on one task with one seed.

    Attributes:
        model: Folder or Hub id.
        task: Its name.
        seed: Of head and order.
        key: Digest of method, model files and task: a cell of another key is another cell.
        score: Mean of the task's metrics over its evaluation splits; None where the cell failed.
        metrics: Each of them, by "metric" or, with several splits, "split/metric".
        seconds: It took so long.
        error: What went wrong.
    """

    model: str
    task: str
    seed: int
    key: str
    score: float | None
    metrics: dict[str, float]
    seconds: float
    error: str | None = None


def score_predictions(rows: Rows, predictions: dict[str, Any], metrics: Sequence[str]) -> dict[str, float]:
    """Score the predictions of every evaluation split by every metric."""
    prefix = {split: f"{split}/" if len(rows.evaluation) > 1 else "" for split in rows.evaluation}
    return {
        f"{prefix[split]}{metric}": compute_metric(metric, predictions[split].tolist(), list(part["label"]))
        for split, part in rows.evaluation.items()
        for metric in metrics
    }


def mean_score(metrics: dict[str, float]) -> float:
    """Return a task's score: the mean of its metrics, over its splits."""
    return fmean(metrics.values())


class FinishedCells:
    """The cells that a folder holds already; new ones are on disk before the next begins.

    Raises:
        ValueError: If a line of the file is JSON of something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: dict[tuple[str, str, int, str], Cell] = {}
        for number, line in enumerate(path.read_text().splitlines() if path.is_file() else (), 1):
            try:
                cell = Cell(**json.loads(line))
            except json.JSONDecodeError:
                continue  # written by half when the run was killed
            except TypeError as error:
                raise ValueError(
                    f"Line {number} of {path} is no finished cell: {line[:80]}. Remove it, or name another folder."
                ) from error
            self._cells[_identity(cell.model, cell.task, cell.seed, cell.key)] = cell

    def find(self, model: str, task: str, seed: int, key: str) -> Cell | None:
        """Return a finished cell, None if there is none."""
        return self._cells.get(_identity(model, task, seed, key))

    def add(self, cell: Cell) -> None:
        """Write a finished cell."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        half_a_line = self._path.is_file() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a") as file:
            file.write("\n" * half_a_line + json.dumps(asdict(cell)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._cells[_identity(cell.model, cell.task, cell.seed, cell.key)] = cell


def _identity(model: str, task: str, seed: int, key: str) -> tuple[str, str, int, str]:
    return model, task, seed, key
