"""Plots are written, with a line for each run and one for the teacher."""

import itertools
import re
from pathlib import Path
from typing import Any, ClassVar

import IPython.display
import PIL.Image
import pytest
from IPython.display import Image
from matplotlib.figure import Figure
from tiny_runs import arguments, examples, make_student, tokenizer
from transformers import TrainerControl, TrainerState

from hf_dwt import DWTTrainer
from hf_dwt.comparison import Point, Run
from hf_dwt.plots import LiveCurves, plot_curves, plot_runs, show_figure


def test_curves_are_drawn_over_steps_and_over_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: (saved.append(self), save(self, *args, **kwargs))
    )
    curve = (Point(1, 2.0, 3.0), Point(2, 5.0, 1.0))
    runs = [Run(name, 2, 1.0, 0.5, 5.0, 2, curve) for name in ("with teacher", "alone")]
    plot_runs(runs, teacher_loss=0.5, path=tmp_path / "curves.png")
    over_steps, over_time = saved[0].axes
    assert [line.get_xdata()[-1] for line in over_steps.lines[:2]] == [2, 2]
    assert [line.get_xdata()[-1] for line in over_time.lines[:2]] == [5.0, 5.0]
    assert over_steps.lines[2].get_ydata()[0] == 0.5
    assert [text.get_text() for text in over_steps.get_legend().get_texts()] == ["with teacher", "alone", "teacher"]
    styles = {(line.get_linestyle(), line.get_marker()) for line in over_steps.lines}
    assert len(styles) == 3, "told apart without colour"
    with PIL.Image.open(tmp_path / "curves.png") as image:
        assert image.size[0] > image.size[1]


# Curves that are told apart, and live ones


def test_curves_end_in_their_names_and_no_name_covers_another() -> None:
    axes = Figure().subplots()
    curves = {"with teacher": [(0, 6.0), (10, 4.001)], "alone": [(0, 6.0), (10, 4.0)], "not begun": []}
    plot_curves(axes, curves, levels={"teacher": 3.999})
    assert [text.get_text() for text in axes.texts] == ["teacher", "alone", "with teacher"], "the lowest first"
    heights = [text.xyann[1] for text in axes.texts]
    assert all(above - below > 0.07 for below, above in itertools.pairwise(heights))
    assert len({(line.get_linestyle(), line.get_marker()) for line in axes.lines}) == 3


class Handle:
    """Stands for what redraws an output of a cell."""

    shown: ClassVar[list[Image]] = []

    def display(self, picture: Image) -> None:
        self.shown.append(picture)

    def update(self, picture: Image) -> None:
        self.shown[-1] = picture


def test_live_curves_take_the_place_of_what_the_trainer_would_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(IPython.display, "DisplayHandle", Handle)
    settings = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "logging_steps": 1}
    lives: list[LiveCurves] = []
    for name in ("first", "second"):
        data = {"train_dataset": examples(), "eval_dataset": examples()}
        trainer = DWTTrainer(
            make_student(), arguments(tmp_path, **settings), processing_class=tokenizer(), teacher=None, **data
        )
        live = LiveCurves(name, beside=lives, levels={"teacher": 1.0})
        live.watch(trainer)
        trainer.train()
        lives = [*lives, live]
    assert capsys.readouterr().out == ""
    assert len(Handle.shown) == 2, "each is one output, redrawn"
    assert [step for step, _ in live.points] == [2, 4]
    assert live.points[-1][1] == trainer.state.log_history[-2]["eval_loss"]
    trainer.evaluate()
    assert [step for step, _ in live.points] == [2, 4], "a second evaluation takes the place of the first"
    alt = Handle.shown[-1].alt
    assert re.fullmatch(rf"second: step 4 of 4, held-out loss {live.points[-1][1]:.3f}, \d+ s", alt)


def test_the_time_that_is_left_is_told_by_the_steps_that_this_run_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IPython.display, "DisplayHandle", Handle)
    now = 100.0
    monkeypatch.setattr("hf_dwt.plots.time.monotonic", lambda: now)
    live, state = LiveCurves("resumed"), TrainerState(global_step=900, max_steps=1000, is_world_process_zero=True)
    live.on_train_begin(arguments("unused"), state)
    assert Handle.shown[-1].alt == "resumed: step 900 of 1,000, 0 s"
    now, state.global_step = 110.0, 901
    live.on_log(arguments("unused"), state, TrainerControl(), {})
    assert Handle.shown[-1].alt == "resumed: step 901 of 1,000, 10 s, about 990 s to go"


def test_a_figure_is_shown_with_its_caption_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    figure = Figure()
    figure.subplots()
    show_figure(figure, "Nothing.")
    picture, caption = shown
    assert picture.alt == "Nothing."
    assert picture.data.startswith(b"\x89PNG")
    assert caption.data == "*Nothing.*"
