"""Losses over a run, as a picture beside the model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)

_CURVES = {
    "hard_loss": ("hard loss, training", "black", "-"),
    "eval_loss": ("hard loss, held out", "tab:orange", "--"),
    "teacher_hard_loss": ("teacher's hard loss, training", "tab:blue", ":"),
    "soft_loss": ("soft loss, training", "grey", "-."),
}


def draw_curves(log_history: Sequence[Mapping[str, float]], path: str | Path) -> bool:
    """Draw the losses that were logged into a PNG file; False if there are none, or matplotlib is missing."""
    # The last value of a step: an evaluation may be repeated at the end.
    by_step = {key: {each["step"]: each[key] for each in log_history if key in each} for key in _CURVES}
    curves = {key: list(values.items()) for key, values in by_step.items()}
    if not any(curves.values()):
        return False
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("The model card has no curves: `pip install 'hf_dwt[plots]'` brings what draws them.")
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, points in curves.items():
        label, colour, line = _CURVES[key]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, color=colour, linestyle=line, marker=".")
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel("nats per position")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return True
