"""A grown student in the trainer: warned about, and saved with its plan."""

from pathlib import Path

import pytest
from tiny_runs import KINDS, make_teacher
from trainer_runs import make_trainer

from hf_dwt import GrowthPlan, from_weak_teacher

WARNING = "starts as its teacher's equal"


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_equals_its_teacher_is_warned_about_also_from_its_folder(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    student = from_weak_teacher(make_teacher(kind), num_hidden_layers=3)
    trainer = make_trainer(tmp_path / "run", kind, model=student, max_steps=1)
    trainer.save_model(tmp_path / "grown")
    trainer.train()
    assert WARNING in caplog.text
    assert 'weighting="inheritance"' in caplog.text
    assert GrowthPlan.load(tmp_path / "grown").depth_method == "identity"
    caplog.clear()
    loaded = type(student).from_pretrained(tmp_path / "grown")
    make_trainer(tmp_path / "again", kind, model=loaded, max_steps=1).train()
    assert WARNING in caplog.text


def test_a_grown_student_that_was_trained_since_is_a_start_as_any_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    student = from_weak_teacher(make_teacher(), num_hidden_layers=3)
    first = make_trainer(tmp_path / "run", model=student, max_steps=1)
    first.train()
    first.save_model(tmp_path / "trained")
    assert first.record()["student"]["growth"]["depth"] == "identity"  # type: ignore[index]
    plan = GrowthPlan.load(tmp_path / "trained")
    assert plan.num_trained_steps == 1
    _, report = from_weak_teacher(make_teacher(), plan, output_report=True)
    assert report.plan.num_trained_steps == 0
    caplog.clear()
    loaded = type(student).from_pretrained(tmp_path / "trained")
    second = make_trainer(tmp_path / "again", model=loaded, max_steps=1)
    second.train()
    second.save_model()
    record = second.record()
    assert record is not None
    assert record["student"]["growth"] is None
    assert record["student"]["started_from"] == str(tmp_path / "trained")
    assert not (tmp_path / "again" / "growth_plan.json").exists()
    assert WARNING not in caplog.text


def test_students_that_are_no_equals_start_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stacked = from_weak_teacher(make_teacher("masked"), method="stack", num_hidden_layers=4)
    make_trainer(tmp_path / "stacked", model=stacked, max_steps=1).train()
    make_trainer(tmp_path / "random", max_steps=1).train()
    assert WARNING not in caplog.text
