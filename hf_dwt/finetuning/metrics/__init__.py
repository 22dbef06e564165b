"""Metrics as `evaluate` modules that need no Hub; each folder is one."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

# By name the kind of task that each scores.
METRICS: Mapping[str, str] = {
    **dict.fromkeys(("accuracy", "f1", "matthews_correlation"), "classification"),
    **dict.fromkeys(("pearson", "spearman"), "regression"),
}


@cache
def load_metric(name: str) -> Any:
    """Load a metric with `evaluate.load`, from the module that comes with this package.

    Raises:
        ImportError: If `evaluate` is missing; `pip install 'hf_dwt[eval]'` brings it.
        ValueError: If there is no such metric.
    """
    if name not in METRICS:
        raise ValueError(f"There is no metric {name!r}: use one of {', '.join(METRICS)}.")
    import evaluate

    return evaluate.load(str(Path(__file__).parent / name), keep_in_memory=True)


def compute_metric(name: str, predictions: Any, references: Any) -> float:
    """Score predictions.

    Args:
        name: Of the metric.
        predictions: Classes, or numbers for the correlations.
        references: What is true, in the same order.
    """
    return float(load_metric(name).compute(predictions=predictions, references=references)[name])
