"""Curves of held-out loss, readable without colour."""

from collections.abc import Sequence
from pathlib import Path

from hf_dwt.comparison import Run

_STYLES = (("black", "-", "o"), ("tab:orange", "--", "s"), ("tab:blue", ":", "^"))


def plot_runs(runs: Sequence[Run], teacher_loss: float, path: str | Path) -> None:
    """Draw the held-out loss of up to three runs over steps and over wall-clock, beside the teacher's.

    Args:
        runs: With their curves.
        teacher_loss: Nats per position on the same held-out set, drawn as a level line.
        path: Of the PNG file.

    Raises:
        ImportError: If matplotlib is missing; `pip install 'hf_dwt[plots]'` brings it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    over_steps, over_time = figure.subplots(1, 2, sharey=True)
    for run, (colour, line, marker) in zip(runs, _STYLES, strict=False):
        losses = [point.loss for point in run.curve]
        style = {"color": colour, "linestyle": line, "marker": marker, "label": run.name}
        over_steps.plot([point.step for point in run.curve], losses, **style)
        over_time.plot([point.seconds for point in run.curve], losses, **style)
    for axes, label in ((over_steps, "optimiser steps"), (over_time, "seconds of training")):
        axes.axhline(teacher_loss, color="grey", linestyle="-.", label="teacher")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    over_steps.set_ylabel("held-out loss (nats per position)")
    over_steps.legend()
    figure.savefig(path, dpi=120)
