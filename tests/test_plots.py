"""Plots are written, with a line for each run and one for the teacher."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from hf_dwt.comparison import Point, Run
from hf_dwt.plots import plot_runs


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
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size[0] > image.size[1]
