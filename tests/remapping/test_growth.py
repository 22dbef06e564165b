"""A plan is carried out tensor by tensor: each weight against its plain formula."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_teachers import make_tiny
from torch import Tensor

from hf_dwt import plan_growth
from hf_dwt.remapping.anatomy import find_anatomy
from hf_dwt.remapping.growth import Growth, fill
from hf_dwt.remapping.plan import GrowthPlan
from hf_dwt.remapping.tiny import build_random


def growth_of(teacher: Any, **request: Any) -> Growth:
    plan = plan_growth(teacher, **{"noise": 0.0, **request})
    return Growth(plan, find_anatomy(type(teacher), teacher.config), teacher.state_dict().__getitem__)


def doubled(weight: Tensor) -> Tensor:
    """Rows and columns copied; the copies of a column share its weight."""
    return weight.repeat(2, 2) / 2


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "bert.encoder.layer.1.attention.self.query.weight"),
        ("bert", "bert.encoder.layer.0.output.dense.weight"),
        ("llama", "model.layers.1.mlp.gate_proj.weight"),
        ("llama", "model.layers.0.self_attn.v_proj.weight"),
    ],
)
def test_a_matrix_of_twice_the_width_is_its_copies_by_half(family: str, name: str) -> None:
    teacher = make_tiny(family)
    grown = growth_of(teacher, hidden_size=64).tensor(name)
    torch.testing.assert_close(grown, doubled(teacher.state_dict()[name]), rtol=0, atol=0)


@pytest.mark.parametrize(("family", "by"), [("llama", 1), ("llama-tied", 2)])
def test_the_norm_before_a_tied_head_is_divided_and_no_other(family: str, by: int) -> None:
    teacher = make_tiny(family)
    growth = growth_of(teacher, hidden_size=64)
    torch.testing.assert_close(growth.tensor("model.norm.weight"), teacher.model.norm.weight.repeat(2) / by)
    name = "model.layers.0.input_layernorm.weight"
    torch.testing.assert_close(growth.tensor(name), teacher.state_dict()[name].repeat(2))


def test_a_weight_that_is_added_to_one_is_divided_along_with_that_one() -> None:
    teacher = make_tiny("gemma")
    grown = growth_of(teacher, hidden_size=64).tensor("model.norm.weight")
    old = teacher.model.norm.weight.repeat(2)
    # Its embeddings, which are its head, are divided by the root of 2 for its multiplier of them.
    torch.testing.assert_close(grown + 1, (old + 1) * 2**0.5 / 2)


def test_rows_added_to_the_vocabulary_are_the_mean_of_the_others() -> None:
    teacher = make_tiny("llama")
    table = growth_of(teacher, vocab_size=64).tensor("model.embed_tokens.weight")
    old = teacher.model.embed_tokens.weight
    torch.testing.assert_close(table, torch.cat([old, old.mean(0, keepdim=True).expand(3, -1)]))


def test_a_layer_that_changes_nothing_writes_nothing_and_keeps_the_rest_of_its_source() -> None:
    teacher = make_tiny("llama")
    growth = growth_of(teacher, num_hidden_layers=4)
    weights = teacher.state_dict()
    assert [layer.identity for layer in growth.plan.layers] == [False, True, False, True]
    for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
        assert not growth.tensor(f"model.layers.3.{name}").any()
        assert torch.equal(growth.tensor(f"model.layers.2.{name}"), weights[f"model.layers.1.{name}"])
    for name in ("self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight"):
        assert torch.equal(growth.tensor(f"model.layers.3.{name}"), weights[f"model.layers.1.{name}"])


def test_a_layer_that_changes_nothing_behind_a_norm_takes_over_what_the_norm_did_after_normalising() -> None:
    teacher = make_tiny("bert")
    growth = growth_of(teacher, num_hidden_layers=4)
    weights = teacher.state_dict()
    for name in ("attention.output.dense", "output.dense"):
        for end in ("weight", "bias"):
            assert not growth.tensor(f"bert.encoder.layer.3.{name}.{end}").any()
            kept = growth.tensor(f"bert.encoder.layer.2.{name}.{end}")
            assert torch.equal(kept, weights[f"bert.encoder.layer.1.{name}.{end}"])
    plain = {"weight": torch.ones(32), "bias": torch.zeros(32)}
    for end, nothing in plain.items():
        assert torch.equal(growth.tensor(f"bert.encoder.layer.3.attention.output.LayerNorm.{end}"), nothing)
        assert torch.equal(growth.tensor(f"bert.encoder.layer.2.output.LayerNorm.{end}"), nothing)
        taken = growth.tensor(f"bert.encoder.layer.3.output.LayerNorm.{end}")
        assert torch.equal(taken, weights[f"bert.encoder.layer.1.output.LayerNorm.{end}"])


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_weights_are_computed_in_single_precision_at_least(given: torch.dtype, computed: torch.dtype) -> None:
    assert growth_of(make_tiny("llama").to(given), hidden_size=64).tensor("lm_head.weight").dtype == computed


def test_a_tensor_is_the_same_whatever_was_grown_before_it_and_another_with_another_seed() -> None:
    teacher = make_tiny("llama")
    names = ["lm_head.weight", "model.layers.0.mlp.up_proj.weight"]
    one, two, other = (growth_of(teacher, hidden_size=64, noise=0.5, seed=seed) for seed in (0, 0, 1))
    first = {name: one.tensor(name) for name in names}
    second = {name: two.tensor(name) for name in reversed(names)}
    assert all(torch.equal(first[name], second[name]) for name in names)
    assert not torch.equal(first[names[0]], other.tensor(names[0]))
    assert not torch.equal(first[names[0]], growth_of(teacher, hidden_size=64).tensor(names[0])), "noise is added"


def test_all_parameters_and_saved_buffers_of_a_student_are_filled() -> None:
    teacher = make_tiny("bert")
    growth = growth_of(teacher, hidden_size=64, num_hidden_layers=3)
    student = build_random(type(teacher), growth.plan.configs()[1])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(float("nan"))
    fill(student, growth)
    for name, value in student.state_dict().items():
        assert value.isfinite().all(), name


def test_a_weight_without_a_source_is_refused_by_name() -> None:
    teacher = make_tiny("llama")
    growth = growth_of(teacher, hidden_size=64)
    weights = {name: value for name, value in teacher.state_dict().items() if name != "model.norm.weight"}
    lacking = Growth(growth.plan, growth.anatomy, weights.__getitem__)
    student = build_random(type(teacher), growth.plan.configs()[1])
    with pytest.raises(ValueError, match=r"`model.norm.weight` of the student has nothing to come from"):
        fill(student, lacking)


def test_shares_tell_copies_from_what_is_split_and_what_is_new() -> None:
    copies = growth_of(make_tiny("llama"), hidden_size=64)
    assert copies.shares("model.embed_tokens.weight").copied == 1
    assert copies.shares("model.layers.0.mlp.up_proj.weight").split == 1
    added = growth_of(make_tiny("llama"), intermediate_size=100).shares("model.layers.0.mlp.up_proj.weight")
    assert (added.copied, added.new) == pytest.approx((0.8, 0.2))
    deeper = growth_of(make_tiny("llama"), num_hidden_layers=4)
    assert deeper.shares("model.layers.3.mlp.down_proj.weight").new == 1
    assert deeper.shares("model.layers.3.mlp.up_proj.weight").copied == 1


def test_the_wrong_answer_about_a_layout_gives_another_weight() -> None:
    teacher = make_tiny("gpt2")
    growth = growth_of(teacher, n_embd=64)
    (question,) = growth.plan.choices
    wrong: GrowthPlan = replace(growth.plan, choices={question: "by heads"})
    name = "transformer.h.0.attn.c_attn.weight"
    other = Growth(wrong, growth.anatomy, teacher.state_dict().__getitem__).tensor(name)
    right = growth.tensor(name)
    assert not torch.equal(right, other)
    torch.testing.assert_close(right[:, :32], teacher.state_dict()[name][:, :32].repeat(2, 1) / 2)
