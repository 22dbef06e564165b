"""A plan is kept, read and carried out again, and refuses what it was not made for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_teachers import largest_difference, make_tiny

from hf_dwt import GrowthPlan, from_weak_teacher, plan_growth
from hf_dwt.remapping.plan import plan_of, save_plan_of


def test_the_same_student_grows_again_from_a_saved_plan_and_another_from_another_seed(tmp_path: Path) -> None:
    teacher = make_tiny("gpt2")
    request = {"n_embd": 64, "n_layer": 3}
    student, report = from_weak_teacher(teacher, output_report=True, seed=5, **request)
    report.plan.save(tmp_path)
    weights = student.state_dict()
    again = from_weak_teacher(teacher, GrowthPlan.load(tmp_path)).state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    other = from_weak_teacher(teacher, seed=6, **request)
    assert not all(torch.equal(weights[name], weight) for name, weight in other.state_dict().items())
    assert largest_difference(student, other) <= 2e-5


def test_a_plan_shows_sizes_and_which_of_them_were_inferred() -> None:
    text = str(plan_growth(make_tiny("bert"), hidden_size=64, num_hidden_layers=3))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[2:-2]}
    assert rows["hidden_size"] == ["32", "64"]
    assert rows["num_attention_heads"] == ["4", "8", "inferred"]
    assert rows["vocab_size"] == ["61", "61", "kept"]
    assert "layers come from: 0 0= 1" in text


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("gpt2", {}, "The plan grows a BertForMaskedLM, the teacher is a GPT2LMHeadModel"),
        ("bert", {"hidden_size": 64}, "whose `hidden_size` is 32; this one has 64"),
    ],
)
def test_another_teacher_is_refused(family: str, fields: dict[str, int], message: str) -> None:
    plan = plan_growth(make_tiny("bert"), num_hidden_layers=3)
    with pytest.raises(ValueError, match=message):
        from_weak_teacher(make_tiny(family, **fields), plan)


def test_a_plan_takes_no_overrides() -> None:
    plan = plan_growth(make_tiny("bert"), num_hidden_layers=3)
    with pytest.raises(ValueError, match="leave out hidden_size"):
        from_weak_teacher(make_tiny("bert"), plan, hidden_size=64)


def test_files_that_are_no_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no plan of growth"):
        GrowthPlan.load(tmp_path)
    (tmp_path / "growth_plan.json").write_text('{"layers": []}')
    with pytest.raises(ValueError, match="is no plan of growth"):
        GrowthPlan.load(tmp_path)


def test_a_plan_is_known_for_as_long_as_its_student_and_from_its_folder(tmp_path: Path) -> None:
    teacher = make_tiny("bert")
    student = from_weak_teacher(teacher, num_hidden_layers=3)
    student.save_pretrained(tmp_path)
    save_plan_of(student, tmp_path)
    loaded = type(student).from_pretrained(tmp_path)
    assert plan_of(loaded) is not None
    assert plan_of(loaded).layers == plan_of(student).layers  # type: ignore[union-attr]
    assert plan_of(teacher) is None


@pytest.mark.parametrize(
    ("request_", "outcome"),
    [
        ({"hidden_size": 64}, "equal to the teacher (largest difference"),
        ({"hidden_size": 48, "method": "fpi"}, "not equal to the teacher (largest difference"),
        ({"hidden_size": 64, "verify": False}, "not compared; of its parameters"),
        ({"hidden_size": 64, "method": "random"}, "not compared; of its parameters 0.0% copied, 0.0% split, 100.0%"),
    ],
)
def test_what_came_of_a_growth_is_kept_beside_the_student_and_makes_no_other_plan(
    request_: dict[str, object], outcome: str, tmp_path: Path
) -> None:
    student, report = from_weak_teacher(make_tiny("bert"), output_report=True, **request_)
    save_plan_of(student, tmp_path)
    kept = GrowthPlan.load(tmp_path)
    assert kept.outcome == report.outcome
    assert kept.outcome.startswith(outcome)
    assert replace(report.plan, outcome=kept.outcome) == report.plan
