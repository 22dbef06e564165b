"""Tiny models have the structure of the real one, and weights that hide nothing."""

import pytest
import torch
from tiny_teachers import make_config
from transformers import (
    BertForMaskedLM,
    CTRLLMHeadModel,
    Gemma3ForCausalLM,
    Llama4ForCausalLM,
    LlamaForCausalLM,
    ModernBertForMaskedLM,
)

from hf_dwt.remapping.axes import probe_sizes
from hf_dwt.remapping.sizes import read_sizes
from hf_dwt.remapping.tiny import (
    build_on_meta,
    build_random,
    names_by_layer,
    random_inputs,
    representative_layers,
    tiny_config,
)


def test_lists_with_an_entry_per_layer_follow_the_layers_that_are_kept() -> None:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = make_config("gemma3", num_hidden_layers=3, layer_types=kinds)
    tiny = tiny_config(config, probe_sizes(read_sizes(config), 0), [1, 2])
    assert tiny.layer_types == ["full_attention", "sliding_attention"]
    assert (tiny.num_hidden_layers, tiny.vocab_size, tiny.num_attention_heads) == (2, 101, 4)
    assert config.num_hidden_layers == 3, "the real configuration stays"


def test_windows_and_ids_fit_into_tiny_inputs() -> None:
    config = make_config("mistral", vocab_size=900, eos_token_id=899, sliding_window=512)
    tiny = tiny_config(config, {"vocabulary": 61}, [0, 1])
    assert (tiny.sliding_window, tiny.eos_token_id, tiny.bos_token_id) == (4, 1, 1)


@pytest.mark.parametrize(
    ("model_class", "config", "kept"),
    [
        (LlamaForCausalLM, make_config("llama", num_hidden_layers=5), [0, 1]),
        (LlamaForCausalLM, make_config("llama", num_hidden_layers=1), [0, 0]),
        # Only the first looks far without a norm of its own, only the fourth with one.
        (ModernBertForMaskedLM, make_config("modernbert", num_hidden_layers=5), [0, 1, 2, 3]),
        (
            Gemma3ForCausalLM,
            make_config("gemma3", num_hidden_layers=4, layer_types=["sliding_attention"] * 3 + ["full_attention"]),
            [0, 1, 2, 3],
        ),
        (Llama4ForCausalLM, make_config("llama4", num_hidden_layers=5), [0, 1, 2, 3]),
    ],
)
def test_one_layer_of_every_sort_is_kept(model_class, config, kept: list[int]) -> None:
    assert representative_layers(model_class, config) == kept


def test_layers_are_told_apart_by_the_names_of_their_parameters() -> None:
    first, second, third = names_by_layer(ModernBertForMaskedLM, make_config("modernbert", num_hidden_layers=3))
    assert second - first == {"model.layers.*.attn_norm.weight"}
    assert second == third


def test_a_number_within_a_layer_is_not_taken_for_the_layers() -> None:
    config = make_config("ctrl")
    first, second = names_by_layer(CTRLLMHeadModel, config)
    assert first == second
    assert {"transformer.h.*.ffn.0.weight", "transformer.h.*.ffn.2.weight"} < first


def test_random_weights_hide_nothing() -> None:
    model = build_random(BertForMaskedLM, make_config("bert"))
    assert not model.training
    for name, parameter in model.named_parameters():
        assert parameter.std() > 0, f"{name} is all alike"
        assert not parameter.requires_grad
    fresh = BertForMaskedLM(make_config("bert"))
    assert fresh.bert.embeddings.LayerNorm.weight.std() == 0, "a fresh model would hide much"


def test_the_same_seed_builds_the_same_model_and_the_global_generator_stays() -> None:
    config = make_config("llama")
    state = torch.get_rng_state()
    one, two, other = (build_random(LlamaForCausalLM, config, seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_on_meta_has_shapes_only_and_leaves_its_configuration_alone() -> None:
    config = make_config("llama")
    before = config.to_dict()
    model = build_on_meta(LlamaForCausalLM, config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert config.to_dict() == before


def test_the_second_example_is_padded_and_ids_are_in_the_vocabulary() -> None:
    inputs = random_inputs(61, length=12, batch_size=3)
    assert inputs["attention_mask"].sum(1).tolist() == [12, 8, 12]
    assert inputs["input_ids"].shape == (3, 12)
    assert 3 <= int(inputs["input_ids"].min()) <= int(inputs["input_ids"].max()) < 61
    assert not torch.equal(inputs["input_ids"], random_inputs(61, seed=2)["input_ids"])
