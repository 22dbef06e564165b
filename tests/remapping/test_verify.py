"""The proof sees what is broken."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_teachers import batch, make_tiny
from transformers.utils import ModelOutput

from hf_dwt import from_weak_teacher
from hf_dwt.remapping.anatomy import BY_HEADS, find_anatomy
from hf_dwt.remapping.growth import Growth, fill
from hf_dwt.remapping.verify import compare, compare_with_cache, name_of_cache
from hf_dwt.remapping.width import copied, units


def test_one_changed_weight_is_seen() -> None:
    teacher = make_tiny("llama")
    student = from_weak_teacher(teacher, hidden_size=64)
    hidden = units(copied, "hidden", 32, 64, "zero", "random")
    assert compare(teacher, student, batch(), hidden).exact
    assert compare_with_cache(teacher, student, batch()["input_ids"]).exact  # type: ignore[union-attr]
    with torch.no_grad():
        student.model.layers[1].mlp.down_proj.weight[3, 5] += 0.1
    assert not compare(teacher, student, batch(), hidden).exact
    assert not compare_with_cache(teacher, student, batch()["input_ids"]).exact  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_a_cache_is_passed_by_the_name_that_the_model_has_for_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_tiny("llama")
    forward, own, passed = model.forward, name_of_cache(model), []

    def run(cache: Any, inputs: dict[str, Any]) -> ModelOutput:
        passed.append(cache)
        output = forward(**inputs, **{own: cache})
        return ModelOutput({"logits": output["logits"], name: output[own]})

    forwards = {
        "past_key_values": lambda past_key_values=None, use_cache=None, **inputs: run(past_key_values, inputs),
        "cache": lambda cache=None, use_cache=None, **inputs: run(cache, inputs),
    }
    monkeypatch.setattr(model, "forward", forwards[name])
    assert compare_with_cache(model, model, batch()["input_ids"]).exact  # type: ignore[union-attr]
    assert [cache is None for cache in passed] == [True, False] * 2


def test_the_wrong_layout_is_not_exact() -> None:
    teacher = make_tiny("gpt2")
    student, report = from_weak_teacher(teacher, n_embd=64, output_report=True)
    (question,) = report.plan.choices
    wrong = replace(report.plan, choices={question: BY_HEADS})
    fill(student, Growth(wrong, find_anatomy(type(teacher), teacher.config), teacher.state_dict().__getitem__))
    assert not compare(teacher, student, batch(), units(copied, "hidden", 32, 64, "zero", "random")).exact


def test_a_student_that_is_not_equal_is_refused_by_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = make_tiny("bert")

    def spoilt(student, growth) -> None:
        fill(student, growth)
        student.get_input_embeddings().weight[4] += 1.0

    monkeypatch.setattr("hf_dwt.factory.fill", spoilt)
    with torch.no_grad(), pytest.raises(ValueError, match="does not predict what its teacher"):
        from_weak_teacher(teacher, num_hidden_layers=3)


def test_the_teacher_is_left_as_it_was() -> None:
    teacher = make_tiny("llama").train()
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    from_weak_teacher(teacher, hidden_size=64, verify="full")
    assert teacher.training
    assert all(torch.equal(before[name], weight) for name, weight in teacher.state_dict().items())


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_teacher_in_half_precision_makes_an_equal_student_in_half_precision(family: str) -> None:
    student, report = from_weak_teacher(make_tiny(family).bfloat16(), hidden_size=64, output_report=True, verify="full")
    assert (student.dtype, student.config.dtype, report.exact) == (torch.bfloat16, torch.bfloat16, True)
    # Casting costs what growing does not.
    assert report.difference.relative < 1e-4 < report.bfloat16.relative
    assert len(report.training_losses) == 2


def test_the_shares_of_a_report_add_up() -> None:
    _, report = from_weak_teacher(make_tiny("bert"), hidden_size=64, num_hidden_layers=4, output_report=True)
    for shares in [report.shares, *report.modules.values()]:
        assert abs(shares.copied + shares.split + shares.new - 1) < 1e-9
    assert report.modules["bert.encoder.layer.*.attention.self.query.weight"].split == 1
    assert report.modules["bert.embeddings.word_embeddings.weight"].copied == 1
    assert report.modules["bert.encoder.layer.*.output.dense.weight"].new == 0.5
