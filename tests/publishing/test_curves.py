import sys
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from hf_dwt.publishing.curves import draw_curves

LOGS = [{"hard_loss": 3.0, "step": 1}, {"hard_loss": 2.0, "teacher_hard_loss": 2.5, "step": 2}, {"train_runtime": 1.0}]


def test_losses_become_a_picture(tmp_path: Path) -> None:
    assert draw_curves(LOGS, tmp_path / "curves.png")
    first = (tmp_path / "curves.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    draw_curves(LOGS, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == first, "the same picture makes no new commit"


def test_each_of_several_held_out_sets_has_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, tuple[tuple[float, ...], ...]] = {}
    monkeypatch.setattr(Axes, "plot", lambda _, *points, label, **style: drawn.update({label: points}))
    monkeypatch.setattr(Axes, "legend", lambda _: None)
    sets = [{f"eval_{each}_loss": 2.0, f"eval_{each}_perplexity": 7.4, "step": 2} for each in ("a", "b")]
    draw_curves([*LOGS, *sets, {"eval_soft_loss": 1.0, "step": 2}], tmp_path / "curves.png")
    assert drawn["hard loss, held out a"] == drawn["hard loss, held out b"] == ((2,), (2.0,))
    assert len(drawn) == 4


def test_without_losses_there_is_no_picture(tmp_path: Path) -> None:
    assert not draw_curves(LOGS[2:], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_without_matplotlib_it_is_said_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw_curves(LOGS, tmp_path / "curves.png")
    assert "pip install 'hf_dwt[plots]'" in caplog.text
