"""Tables: what is in them as plain values, for JSON, and as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from hf_dwt.comparison import Run, operations, teacher_operations
from hf_dwt.costs import StepCost


def comparison_rows(
    runs: Sequence[Run], teacher: Mapping[str, Any] | None, cost: StepCost | None
) -> list[dict[str, Any]]:
    """The runs as rows.

    Args:
        runs: The first is what costs are relative to.
        teacher: Its row.
        cost: Of a step; None if it cannot be counted.

    Returns:
        For each run `name`, `steps`, `loss` (nats per position), `accuracy` (0 to 1), `gap` to the teacher (nats),
        `seconds`, `cost` relative to the first run, and `teacher_share` of it; None where it is not known.
    """
    return [
        {
            "name": run.name,
            "steps": run.steps,
            "loss": run.loss,
            "accuracy": run.accuracy,
            "gap": None if teacher is None else run.loss - teacher["loss"],
            "seconds": run.seconds,
            "cost": None if cost is None else operations(run, cost) / operations(runs[0], cost),
            "teacher_share": None if cost is None else teacher_operations(run, cost) / operations(run, cost),
        }
        for run in runs
    ]


def teacher_row(teacher: Run | None) -> dict[str, Any] | None:
    """The teacher's own `loss` and `accuracy` on the same examples; None without one."""
    return None if teacher is None else {"loss": teacher.loss, "accuracy": teacher.accuracy}


def comparison_table(rows: Sequence[Mapping[str, Any]], teacher: Mapping[str, Any] | None) -> Table:
    """Lay the rows out; the column `teacher` is the teacher's share of the cost."""
    table = Table(title="Held-out results", box=SIMPLE, padding=0, pad_edge=False)
    for column in ("run", "steps", "loss", "accuracy", "gap", "time", "cost", "teacher"):
        table.add_column(column, justify="left" if column == "run" else "right", no_wrap=True)
    if teacher is not None:
        table.add_row("teacher", "", f"{teacher['loss']:.4f}", f"{teacher['accuracy']:.2%}", "", "", "", "")
    for row in rows:
        gap = "" if row["gap"] is None else f"{row['gap']:+.4f}"
        cells = [row["name"], f"{row['steps']:,}", f"{row['loss']:.4f}", f"{row['accuracy']:.2%}", gap]
        costs = [_or_unknown(row["cost"], ".2f"), _or_unknown(row["teacher_share"], ".0%")]
        table.add_row(*cells, f"{row['seconds']:.0f} s", *costs)
    return table


def _or_unknown(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
