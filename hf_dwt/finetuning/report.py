"""What came out of a suite, as tables and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from hf_dwt.finetuning.cells import Cell
from hf_dwt.finetuning.statistics import Summary, paired_difference, summarise
from hf_dwt.finetuning.suites import Suite

AVERAGE = "average"


@dataclass(frozen=True)
class SuiteReport:
    """Scores of models on a suite.

    Attributes:
        suite: Its tasks.
        method: 'full', 'lora' or 'probe'.
        models: In the order given; the first is what the others are compared with.
        seeds: All that were asked for.
        cells: Finished and failed ones.
        versions: Of the libraries that the scores depend on.
    """

    suite: Suite
    method: str
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    versions: dict[str, str]

    @property
    def failed(self) -> list[Cell]:
        """Cells without a score."""
        return [cell for cell in self.cells if cell.error is not None]

    @property
    def averaged(self) -> list[str]:
        """Names of the tasks that enter the average."""
        return [task.name for task in self.suite.tasks if not task.optional]

    @property
    def columns(self) -> list[str]:
        """The tasks and, where there is anything to average, the average."""
        return [*(task.name for task in self.suite.tasks), *([AVERAGE] if len(self.averaged) > 1 else [])]

    def scores(self, model: str, column: str) -> dict[int, float]:
        """Return the scores of a model on a task, or on average over tasks, by seed.

        The average of a seed is there where all its tasks are.
        """
        if column == AVERAGE:
            every = [self.scores(model, task) for task in self.averaged]
            return {
                seed: fmean(each[seed] for each in every) for seed in self.seeds if all(seed in each for each in every)
            }
        found = (cell for cell in self.cells if (cell.model, cell.task) == (model, column))
        return {cell.seed: cell.score for cell in found if cell.score is not None}

    def summary(self, model: str, column: str) -> Summary | None:
        """Summarise a model's scores on a task or on average; None if it has none."""
        scores = self.scores(model, column)
        return summarise(list(scores.values())) if scores else None

    def difference(self, model: str, column: str) -> Summary | None:
        """Summarise how much better a model is than the first one, seed by seed."""
        return paired_difference(self.scores(model, column), self.scores(self.models[0], column))

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        table = {
            model: {column: _as_dict(self.summary(model, column)) for column in self.columns} for model in self.models
        }
        differences = {
            model: {column: _as_dict(self.difference(model, column)) for column in self.columns}
            for model in self.models[1:]
        }
        head = {"suite": asdict(self.suite), "method": self.method, "models": self.models, "seeds": self.seeds}
        body = {"average_over": self.averaged, "scores": table, "differences_from_first": differences}
        return {**head, **body, "cells": [asdict(cell) for cell in self.cells], "versions": self.versions}

    def save(self, folder: Path) -> None:
        """Write `results.json` and `results.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        (folder / "results.md").write_text(str(self) + "\n")

    def __str__(self) -> str:
        """Tables in Markdown."""
        lines = [f"# {self.suite.name}, {self.method}, {len(self.seeds)} seeds", "", self.suite.description, ""]
        lines += ["Scores times 100, mean and standard deviation over seeds.", ""]
        lines += self._table(self.models, [self._row(model) for model in self.models])
        if len(self.models) > 1:
            lines += ["", f"Differences from {self.models[0]}, paired by seed, with a 95 % interval (Student's t).", ""]
            lines += self._table(self.models[1:], [self._difference_row(model) for model in self.models[1:]])
        lines += ["", *self._notes()]
        return "\n".join(lines)

    def _table(self, models: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        head = [f"| model | {' | '.join(self.columns)} |", "|---|" + "---:|" * len(self.columns)]
        return head + [f"| {model} | {' | '.join(row)} |" for model, row in zip(models, rows, strict=True)]

    def _row(self, model: str) -> list[str]:
        return [_score_text(self.summary(model, column)) for column in self.columns]

    def _difference_row(self, model: str) -> list[str]:
        return [_difference_text(self.difference(model, column)) for column in self.columns]

    def _notes(self) -> list[str]:
        metrics = "; ".join(f"{task.name}: {', '.join(task.metrics)}" for task in self.suite.tasks)
        notes = [f"A task's score is the mean of its metrics over its evaluation splits ({metrics})."]
        if AVERAGE in self.columns:
            notes.append(f"The average is the mean of the scores of {', '.join(self.averaged)}.")
        if self.method == "probe":
            notes.append("A probe draws nothing at random: its seeds agree, and say nothing of chance.")
        return notes + [f"Failed: {cell.model} on {cell.task}, seed {cell.seed}: {cell.error}" for cell in self.failed]


def _as_dict(summary: Summary | None) -> dict[str, Any] | None:
    return None if summary is None else asdict(summary)


def _score_text(summary: Summary | None) -> str:
    if summary is None:
        return "failed"
    spread = "" if summary.deviation is None else f" ± {100 * summary.deviation:.2f}"
    return f"{100 * summary.mean:.2f}{spread}"


def _difference_text(summary: Summary | None) -> str:
    if summary is None:
        return "failed"
    if summary.interval is None:
        return f"{100 * summary.mean:+.2f}"
    low, high = summary.interval
    return f"{100 * summary.mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
