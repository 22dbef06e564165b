"""Losses over a run, as a picture beside the model card."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from transformers.utils import logging

from hf_dwt.publishing.results import held_out_sets

logger = logging.get_logger(__name__)

_CURVES = {
    "hard_loss": ("hard loss, training", "black", "-"),
    "teacher_hard_loss": ("teacher's hard loss, training", "tab:blue", ":"),
    "soft_loss": ("soft loss, training", "grey", "-."),
}
_HELD_OUT_COLOURS = ("tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def draw_curves(log_history: Sequence[Mapping[str, float]], path: str | Path) -> bool:
    """Draw the losses that were logged into a PNG file; False if there are none, or matplotlib is missing."""
    # The last value of a step: an evaluation may be repeated at the end.
    styles = _CURVES | _held_out_curves(log_history)
    by_step = {key: {each["step"]: each[key] for each in log_history if key in each} for key in styles}
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
        label, colour, line = styles[key]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, color=colour, linestyle=line, marker=".")
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel("nats per position")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return True


def _held_out_curves(log_history: Sequence[Mapping[str, float]]) -> dict[str, tuple[str, str, str]]:
    """A curve for each of the held-out sets."""
    sets = dict.fromkeys(prefix for each in log_history for prefix in held_out_sets(each))
    names = [prefix.removeprefix("eval").replace("_", " ", 1) for prefix in sets]
    labels = [f"hard loss, held out{name}" for name in names]
    return {
        f"{prefix}_loss": (label, colour, "--")
        for prefix, label, colour in zip(sets, labels, cycle(_HELD_OUT_COLOURS), strict=False)
    }
