"""A report says what was taken, how near the student is, and what a user should know."""

from typing import Any

import pytest
import torch
from tiny_teachers import make_tiny
from transformers import BertConfig, BertModel

from hf_dwt import RemappingReport, from_weak_teacher
from hf_dwt.remapping.anatomy import find_anatomy
from hf_dwt.remapping.axes import kind_of
from hf_dwt.remapping.growth import Growth
from hf_dwt.remapping.report import report_on
from hf_dwt.remapping.verify import Difference, compare


def report(family: str = "bert", **request: object) -> RemappingReport:
    found: RemappingReport = from_weak_teacher(make_tiny(family), output_report=True, **request)[1]
    return found


def lines_of(found: RemappingReport) -> dict[str, str]:
    """Lines of a printed report by their first word."""
    return {line.split()[0].rstrip(":"): line for line in str(found).splitlines()}


def test_a_printed_report_has_the_numbers_of_the_report() -> None:
    student, found = from_weak_teacher(make_tiny("llama"), hidden_size=64, output_report=True)
    lines = lines_of(found)
    assert found.num_parameters == sum(parameter.numel() for parameter in student.parameters())
    assert str(found).startswith(f"{found.num_parameters:,} parameters: {found.shares}")
    for kind, shares in found.modules.items():
        assert lines[kind].endswith(str(shares))
    assert lines["Student"] == "Student: equal to the teacher"
    assert str(found.difference) in lines["float32"]
    assert str(found.cached_difference) in lines["with"]
    assert "bfloat16" not in lines


def test_modules_are_named_once_for_all_layers_and_their_shares_make_up_the_whole() -> None:
    student, found = from_weak_teacher(make_tiny("bert"), num_hidden_layers=4, output_report=True)
    sizes: dict[str, int] = {}
    for name, parameter in student.named_parameters():
        sizes[kind_of(name)] = sizes.get(kind_of(name), 0) + parameter.numel()
    assert set(found.modules) == set(sizes)
    assert found.modules["bert.encoder.layer.*.output.dense.weight"].new == 0.5
    new = sum(shares.new * sizes[kind] for kind, shares in found.modules.items())
    assert new / found.num_parameters == pytest.approx(found.shares.new)


def test_what_was_not_compared_is_not_claimed() -> None:
    found = report(hidden_size=64, verify=False)
    assert (found.exact, found.difference, found.cached_difference) == (None, None, None)
    assert lines_of(found)["Student"] == "Student: not compared"
    drawn = report(hidden_size=64, method="random")
    assert (drawn.exact, drawn.shares.new) == (None, 1.0)


def test_a_full_report_measures_half_precision_and_training_mode_too() -> None:
    found = report(hidden_size=64, verify="full")
    lines = lines_of(found)
    assert str(found.bfloat16) in lines["bfloat16"]
    theirs, ours = found.training_losses or (0.0, 0.0)
    assert theirs > 0
    assert f"teacher {theirs:.4f}, student {ours:.4f}" in lines["loss"]


def test_a_bare_encoder_has_no_loss_to_measure() -> None:
    encoder = BertModel(BertConfig(vocab_size=99, hidden_size=24, num_hidden_layers=1, num_attention_heads=2))
    found = from_weak_teacher(encoder, hidden_size=48, verify="full", output_report=True)[1]
    assert found.exact
    assert found.bfloat16 is not None
    assert found.training_losses is None


def test_a_student_that_is_not_equal_is_told_so_and_a_near_one_how_near() -> None:
    copied = report(hidden_size=48, method="fpi")
    assert lines_of(copied)["Student"] == "Student: not equal to the teacher"
    assert not copied.warnings
    near = report(hidden_size=48, method="near")
    assert near.exact is False
    assert lines_of(near)["Warning"] == f"Warning: {near.warnings[0]}"
    assert str(near.difference) in near.warnings[0]


def test_a_spoilt_student_is_not_reported_as_equal() -> None:
    teacher = make_tiny("llama")
    student, found = from_weak_teacher(teacher, hidden_size=64, output_report=True)
    growth = _growth(found, teacher)
    assert report_on(found.plan, student, growth, teacher).exact
    with torch.no_grad():
        student.lm_head.weight[3] += 0.1
    assert report_on(found.plan, student, growth, teacher).exact is False


def test_what_single_precision_cannot_decide_is_decided_in_double_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = make_tiny("llama")
    student, found = from_weak_teacher(teacher, hidden_size=64, output_report=True)
    assert found.in_double is None, "there was nothing to decide"
    in_single, seen = Difference(2e-3, 1.0, 1.0), []

    def rounded(theirs: Any, ours: Any, *args: Any) -> Difference:
        seen.append((theirs.dtype, ours.dtype))
        return compare(theirs, ours, *args) if ours.dtype == torch.float64 else in_single

    monkeypatch.setattr("hf_dwt.remapping.report.compare", rounded)
    again = report_on(found.plan, student, _growth(found, teacher), teacher)
    assert seen == [(torch.float32, torch.float32), (torch.float64, torch.float64)]
    assert (again.exact, again.difference) == (True, in_single)
    assert again.in_double is not None
    assert again.in_double.exact
    assert "this is rounding, in float64 it is equal" in again.warnings[0]
    with torch.no_grad():
        student.lm_head.weight[3] += 0.1
    assert report_on(found.plan, student, _growth(found, teacher), teacher).exact is False
    assert student.dtype == torch.float32


def _growth(found: RemappingReport, teacher: Any) -> Growth:
    return Growth(found.plan, find_anatomy(type(teacher), teacher.config), teacher.state_dict().__getitem__)
