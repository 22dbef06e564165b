"""Axes are found by comparing sizes, and a dimension that follows none is refused by name."""

import pytest
import torch
from tiny_teachers import FAMILIES, make_config, make_tiny
from torch import nn
from transformers import LlamaForCausalLM

from hf_dwt.remapping.axes import FIXED, Dimension, axis_sizes, find_dimensions, kind_of, numbered, probe_sizes
from hf_dwt.remapping.sizes import read_sizes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.11.mlp.up_proj.weight", "model.layers.*.mlp.up_proj.weight"),
        ("transformer.h.0.ffn.2.weight", "transformer.h.*.ffn.2.weight"),
        ("model.layers.3", "model.layers.*"),
        ("model.norm.weight", "model.norm.weight"),
        ("h2.conv1d.weight", "h2.conv1d.weight"),
    ],
)
def test_a_kind_is_the_same_for_all_layers_and_keeps_every_other_number(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("family", "kind", "dimensions"),
    [
        ("llama", "model.layers.*.self_attn.q_proj.weight", [("query",), ("hidden",)]),
        ("llama", "model.layers.*.self_attn.v_proj.weight", [("key_value",), ("hidden",)]),
        ("phi3", "model.layers.*.self_attn.qkv_proj.weight", [("query", "key_value", "key_value"), ("hidden",)]),
        ("phi3", "model.layers.*.mlp.gate_up_proj.weight", [("intermediate", "intermediate"), ("hidden",)]),
        ("gpt2", "transformer.h.*.mlp.c_proj.weight", [("intermediate",), ("hidden",)]),
        ("qwen3", "model.layers.*.self_attn.k_norm.weight", [("head_dim",)]),
        ("electra", "electra.embeddings_project.weight", [("hidden",), ("embedding",)]),
        ("ctrl", "transformer.h.*.ffn.0.weight", [("intermediate",), ("hidden",)]),
        ("ctrl", "transformer.h.*.ffn.2.weight", [("hidden",), ("intermediate",)]),
    ],
)
def test_axes_of_a_parameter_are_found(family: str, kind: str, dimensions: list[tuple[str, ...]]) -> None:
    model = make_tiny(family)
    assert find_dimensions(type(model), model.config, [0, 1])[kind] == tuple(Dimension(axes) for axes in dimensions)


def test_rows_before_the_first_position_are_told_apart_and_token_types_never_change() -> None:
    model = make_tiny("roberta")
    found = find_dimensions(type(model), model.config, [0, 1])
    assert found["roberta.embeddings.position_embeddings.weight"][0] == Dimension(("positions",))
    assert found["roberta.embeddings.token_type_embeddings.weight"][0] == FIXED
    model = make_tiny("opt")
    found = find_dimensions(type(model), model.config, [0, 1])
    assert found["model.decoder.embed_positions.weight"][0] == Dimension(("positions",), offset=2)


class _Squared(LlamaForCausalLM):
    def __init__(self, config) -> None:
        super().__init__(config)
        self.table = nn.Parameter(torch.empty(config.hidden_size**2))


class _Sometimes(LlamaForCausalLM):
    def __init__(self, config) -> None:
        super().__init__(config)
        if config.num_attention_heads > 4:
            self.table = nn.Parameter(torch.empty(3))
        else:
            self.other = nn.Parameter(torch.empty(3))


def test_a_dimension_that_follows_no_size_is_refused_by_the_name_of_its_parameter() -> None:
    with pytest.raises(ValueError, match="A dimension of `table` follows none of the sizes"):
        find_dimensions(_Squared, make_config("llama"), [0, 1])
    with pytest.raises(ValueError, match="`other` exists at some sizes of `_Sometimes` only"):
        find_dimensions(_Sometimes, make_config("llama"), [0, 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_axes_that_may_differ_have_one_size_in_every_probe(family: str) -> None:
    sizes = read_sizes(make_config(family))
    probes = [probe_sizes(sizes, number) for number in range(5)]
    for first, second in [("hidden", "intermediate"), ("vocabulary", "positions"), ("heads", "key_value_heads")]:
        assert any(probe.get(first) != probe.get(second) for probe in probes)
    assert all(probe["hidden"] % probe["heads"] == 0 for probe in probes)


def test_a_probe_that_must_run_keeps_what_the_real_sizes_have_in_common() -> None:
    bert, llama = (probe_sizes(read_sizes(make_config(family)), 0, apart=False) for family in ("bert", "llama"))
    assert bert["heads"] == bert["key_value_heads"]
    assert llama["heads"] > llama["key_value_heads"]
    assert bert["hidden"] == bert["heads"] * bert["head_dim"]


def test_the_width_of_all_heads_is_an_axis_and_the_number_of_layers_is_none() -> None:
    sizes = axis_sizes(read_sizes(make_config("llama")))
    assert (sizes["query"], sizes["key_value"]) == (32, 16)
    assert "layers" not in sizes


def test_numbers_are_collected_by_what_stands_before_them() -> None:
    assert numbered(["h.0.ffn.0.weight", "h.0.ffn.2.weight", "h.1.norm", "wte"]) == {"h": {0, 1}, "h.0.ffn": {0, 2}}
