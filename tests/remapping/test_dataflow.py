"""One forward pass tells who feeds whom, what a norm does, and which activation stands before the head."""

import pytest
import torch
from tiny_teachers import batch, make_tiny

from hf_dwt.remapping.dataflow import Dataflow, Norm, first_tensor, is_matrix, watch

LAYERS = {"bert": "bert.encoder.layer", "gpt2": "transformer.h", "llama": "model.layers", "gemma": "model.layers"}
LAYERS |= {"olmo2": "model.layers"}


def watched(family: str, **fields: object) -> Dataflow:
    return watch(make_tiny(family, **fields), batch(), [f"{LAYERS[family]}.{number}" for number in range(2)])


@pytest.mark.parametrize(
    ("family", "norm"),
    [
        ("bert", Norm(centres=True, adds_one=False)),
        ("gpt2", Norm(centres=True, adds_one=False)),
        ("llama", Norm(centres=False, adds_one=False)),
        ("gemma", Norm(centres=False, adds_one=True)),
    ],
)
def test_a_norm_is_known_by_what_it_does(family: str, norm: Norm) -> None:
    norms = watched(family).norms
    assert set(norms.values()) == {norm}
    assert all("norm" in kind.lower() or "ln_" in kind for kind in norms), "no matrix or table is taken for one"


@pytest.mark.parametrize(
    ("family", "reads", "does_not"),
    [
        ("bert", "bert.encoder.layer.*.attention.self.key", "bert.encoder.layer.*.attention.output.dense"),
        ("bert", "bert.encoder.layer.*.intermediate.dense", "bert.encoder.layer.*.output.dense"),
        ("gpt2", "transformer.h.*.attn.c_attn", "transformer.h.*.attn.c_proj"),
        ("llama", "model.layers.*.mlp.gate_proj", "model.layers.*.mlp.down_proj"),
        ("olmo2", "model.layers.*.self_attn.q_proj", "model.layers.*.self_attn.o_proj"),
    ],
)
def test_what_is_given_the_residual_stream_reads_it(family: str, reads: str, does_not: str) -> None:
    flow = watched(family)
    assert reads in flow.reads_residual
    assert does_not not in flow.reads_residual


@pytest.mark.parametrize(("family", "post_norm"), [("bert", True), ("gpt2", False), ("llama", False), ("olmo2", False)])
def test_a_layer_that_ends_with_a_norm_is_told_from_one_that_adds_after_it(family: str, post_norm: bool) -> None:
    assert watched(family).post_norm is post_norm


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_the_activation_before_the_head_is_known_by_what_it_makes_of_a_tensor(activation: str) -> None:
    head = watched("bert", hidden_act=activation).head
    assert head is not None
    assert head.activation == activation
    assert head.matrix == "cls.predictions.transform.dense"
    assert head.norm_before == "bert.encoder.layer.1.output.LayerNorm"


def test_an_unknown_activation_and_a_missing_transform_are_no_head() -> None:
    assert watched("bert", hidden_act="mish").head is None
    assert watched("llama").head is None


@pytest.mark.parametrize(("family", "last"), [("bert", "cls.predictions.transform.LayerNorm"), ("llama", "model.norm")])
def test_what_ran_last_before_the_head_is_named(family: str, last: str) -> None:
    assert watched(family).before_head == last


def test_watching_leaves_the_model_as_it_was() -> None:
    model = make_tiny("gemma")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    watch(model, batch(), ["model.layers.0", "model.layers.1"])
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_modules_are_noted_in_the_order_in_which_they_ran() -> None:
    order = watched("gpt2").order
    wanted = ["transformer.h.0.ln_1", "transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_fc", "transformer.h.1.ln_1"]
    assert sorted(wanted, key=order.index) == wanted
    assert "transformer.wte" not in order
    assert order[-1] == "lm_head"


def test_the_first_tensor_of_numbers_with_fractions_is_found_in_anything() -> None:
    tensor = torch.zeros(2)
    assert first_tensor((None, {"ids": torch.ones(2).long(), "states": [tensor]})) is tensor
    assert first_tensor((torch.ones(2).long(), "text")) is None


def test_matrices_are_linear_modules_of_both_sorts() -> None:
    assert is_matrix(make_tiny("gpt2").transformer.h[0].mlp.c_fc)
    assert is_matrix(make_tiny("llama").lm_head)
    assert not is_matrix(make_tiny("llama").model.embed_tokens)
