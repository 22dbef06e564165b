"""Curves of losses, readable without colour: in files, and live in the output of a notebook's cell."""

import io
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.training_args import TrainingArguments

from hf_dwt.comparison import Run

__all__ = ["LiveCurves", "plot_curves", "plot_runs", "show_figure"]

# Dark enough in grey, and of Okabe and Ito's colours, which colour-blind people tell apart.
_STYLES = (("black", "-", "o"), ("#D55E00", "--", "s"), ("#0072B2", ":", "^"), ("#009E73", "-.", "D"))
_LEAST_DISTANCE = 0.075
_DPI = 80


def plot_runs(runs: Sequence[Run], teacher_loss: float, path: str | Path) -> None:
    """Draw the held-out loss of up to four runs over steps and over wall-clock, beside the teacher's.

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


def plot_curves(
    axes: Any, curves: Mapping[str, Sequence[tuple[float, float]]], levels: Mapping[str, float] | None = None
) -> None:
    """Draw curves that are told apart by dashes, markers and their names, which stand at their ends.

    Args:
        axes: Of matplotlib.
        curves: Points (x, y) by name; one without points is left out.
        levels: Heights of grey level lines, by name.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> plot_curves(axes, {"alone": [(0, 6.0), (10, 5.0)]}, levels={"teacher": 4.0})
        >>> [text.get_text() for text in axes.texts]
        ['teacher', 'alone']
    """
    ends = []
    for (name, points), (colour, line, marker) in zip(curves.items(), cycle(_STYLES), strict=False):
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=line, marker=marker, markersize=4)
            ends.append((points[-1], name, colour))
    right = max((x for (x, _), _, _ in ends), default=1.0)
    for name, height in (levels or {}).items():
        axes.axhline(height, color="dimgrey", linewidth=0.8)
        ends.append(((right, height), name, "dimgrey"))
    axes.grid(alpha=0.3)
    _name_ends(axes, sorted(ends, key=lambda end: end[0][1]))


def _name_ends(axes: Any, ends: Sequence[tuple[tuple[float, float], str, str]]) -> None:
    """Write names to the right of the axes, the lowest first, and none over another."""
    low, high = axes.get_ylim()
    place = -_LEAST_DISTANCE
    for (x, y), name, colour in ends:
        place = max((y - low) / (high - low), place + _LEAST_DISTANCE)
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6}
        beside = {"textcoords": "axes fraction", "va": "center", "color": colour, "arrowprops": line}
        axes.annotate(name, (x, y), (1.04, place), annotation_clip=False, **beside)


def show_figure(figure: Any, caption: str) -> None:
    """Show a figure in a notebook, with a caption that screen readers read in its place.

    Args:
        figure: Of matplotlib.
        caption: Says what is to be seen.
    """
    from IPython.display import Markdown, display

    display(_picture(figure, caption))
    display(Markdown(f"*{caption}*"))


def _picture(figure: Any, caption: str) -> Any:
    from IPython.display import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return Image(buffer.getvalue(), format="png", alt=caption)


class LiveCurves(TrainerCallback):  # type: ignore[misc]
    """Redraws the held-out loss in the output of a notebook's cell while a trainer trains.

    Args:
        name: Of the run.
        beside: Live curves of earlier runs, to be drawn along.
        levels: Losses to be drawn as level lines, by name: the teacher's.

    Attributes:
        points: Steps and held-out losses.
        logs: All that was logged, with its step.

    Raises:
        ImportError: If IPython or matplotlib is missing; `pip install 'hf_dwt[notebooks]'` brings them.

    Example:
        ```python
        live = LiveCurves("with teacher", levels={"teacher": 4.5})
        live.watch(trainer)
        trainer.train()
        ```
    """

    def __init__(
        self, name: str, *, beside: Sequence["LiveCurves"] = (), levels: Mapping[str, float] | None = None
    ) -> None:
        from IPython.display import DisplayHandle
        from matplotlib.figure import Figure

        self.name, self.beside, self.levels = name, beside, levels
        self.points: list[tuple[float, float]] = []
        self.logs: list[dict[str, float]] = []
        self._begun, self._first_step = 0.0, 0
        self._new_figure, self._handle = Figure, DisplayHandle()

    def watch(self, trainer: Trainer) -> None:
        """Take the place of the trainer's progress bars and printed logs."""
        for callback in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(self)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Show an empty figure."""
        self._begun, self._first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero:
            self._handle.display(self._drawn(state))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Draw what is new."""
        self.logs.append({**logs, "step": state.global_step})
        if "eval_loss" in logs:
            before = [point for point in self.points if point[0] != state.global_step]
            self.points = [*before, (state.global_step, logs["eval_loss"])]
        if state.is_world_process_zero:
            self._handle.update(self._drawn(state))

    def _drawn(self, state: TrainerState) -> Any:
        figure = self._new_figure(figsize=(7, 3.4), layout="constrained")
        axes = figure.subplots()
        plot_curves(axes, {each.name: each.points for each in (*self.beside, self)}, self.levels)
        axes.set_xlabel("optimiser steps")
        axes.set_ylabel("held-out loss (nats)")
        caption = self._caption(state)
        axes.set_title(caption, fontsize="medium", loc="left")
        return _picture(figure, caption)

    def _caption(self, state: TrainerState) -> str:
        done, seconds = state.global_step, time.monotonic() - self._begun
        told = [f"{self.name}: step {done:,} of {state.max_steps:,}"]
        if self.points:
            told.append(f"held-out loss {self.points[-1][1]:.3f}")
        told.append(f"{seconds:.0f} s")
        if self._first_step < done < state.max_steps:
            told.append(f"about {seconds / (done - self._first_step) * (state.max_steps - done):.0f} s to go")
        return ", ".join(told)
