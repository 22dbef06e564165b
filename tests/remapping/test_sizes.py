"""Sizes are read, inferred as users expect, and refused by name."""

import pytest
from tiny_teachers import make_config, make_tiny
from transformers import (
    FalconH1Config,
    FalconMambaConfig,
    GPT2Config,
    GPTNeoConfig,
    Lfm2Config,
    Llama4TextConfig,
    PretrainedConfig,
    SmolLM3Config,
)

from hf_dwt.remapping.sizes import grown_config, of_layers, per_layer, read_sizes


@pytest.mark.parametrize(
    ("family", "request_", "expected"),
    [
        ("bert", {"hidden_size": 64}, {"num_attention_heads": 8, "intermediate_size": 160}),
        ("bert", {"num_attention_heads": 5}, {"hidden_size": 40, "intermediate_size": 100}),
        ("llama", {"hidden_size": 64}, {"num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 160}),
        ("distilbert", {"dim": 48}, {"n_heads": 6, "hidden_dim": 120}),
        ("gpt2", {"n_embd": 48}, {"n_head": 6}),
        ("electra-same-embedding", {"hidden_size": 64}, {"embedding_size": 64, "num_attention_heads": 8}),
        ("bert", {"num_hidden_layers": 9}, {}),
    ],
)
def test_sizes_left_out_follow(family: str, request_: dict[str, int], expected: dict[str, int]) -> None:
    config, inferred = grown_config(make_config(family), None, request_)
    for name, size in {**request_, **expected}.items():
        assert getattr(config, name) == size
    assert expected.items() <= inferred.items()
    assert bool(inferred) == bool(expected)


@pytest.mark.parametrize(
    ("family", "request_", "message"),
    [
        ("bert", {"hidden_size": 16}, "`hidden_size` is 16, less than the teacher's 32"),
        ("bert", {"hidden_size": 36}, "no multiple of the size of the teacher's heads, 8"),
        ("bert", {"num_hiden_layers": 3}, "Did you mean `num_hidden_layers`"),
        ("llama", {"num_hidden_layers": -1}, "`num_hidden_layers` is -1: a size is at least 1"),
        ("gpt2", {"num_attention_heads": 0}, "`num_attention_heads` is 0: a size is at least 1"),
        ("bert", {"hidden_act": "relu"}, "`hidden_act` is 'relu', the teacher has 'gelu'"),
        ("bert", {"layer_norm_eps": 0.1}, "`layer_norm_eps` is 0.1"),
        ("qwen3", {"num_attention_heads": 5}, "`num_key_value_heads` too"),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}, "`rope_parameters`"),
        ("gpt2", {"n_head": 8, "n_embd": 32}, "`n_head`|less than the teacher's"),
    ],
)
def test_what_cannot_be_is_refused_by_name(family: str, request_: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grown_config(make_config(family), None, request_)


def test_another_class_of_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="is a GPT2Config, but the teacher has a BertConfig"):
        grown_config(make_config("bert"), GPT2Config(), {})


def test_models_without_heads_are_refused_for_that() -> None:
    with pytest.raises(ValueError, match="no attention heads that can be found"):
        read_sizes(FalconMambaConfig())


def test_none_stands_for_four_times_the_width() -> None:
    assert read_sizes(make_tiny("gpt2").config)["intermediate"] == 128


def test_lists_that_happen_to_be_as_long_as_the_layers_are_not_of_the_layers() -> None:
    two = FalconH1Config(num_hidden_layers=2, eos_token_id=[1, 2])
    for name in ("time_step_limit", "mlp_multipliers", "eos_token_id"):
        assert len(getattr(two, name)) == 2
        assert not per_layer(two, name)
    assert not per_layer(make_config("bert", num_hidden_layers=1, architectures=["BertForMaskedLM"]), "architectures")


def test_lists_of_the_layers_are_known_whether_the_class_has_them_by_default_or_not() -> None:
    gemma = make_config("gemma3", num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])
    assert per_layer(gemma, "layer_types")
    neo = GPTNeoConfig(num_layers=2, attention_types=[[["global", "local"], 1]])
    assert per_layer(neo, "attention_layers")
    assert not per_layer(neo, "attention_types")
    assert per_layer(make_config("bert", num_hidden_layers=2, kinds=["a", "b"]), "kinds")


@pytest.mark.parametrize(
    ("config", "name", "expected"),
    [
        (Llama4TextConfig(num_hidden_layers=3), "moe_layers", [0, 1, 2, 3]),
        (Lfm2Config(num_hidden_layers=3), "full_attn_idxs", [0, 1, 2, 3]),
        (SmolLM3Config(num_hidden_layers=3, no_rope_layers=[0, 1, 1]), "no_rope_layers", [0, 0, 1, 1]),
        # As numbers would be, but this class has ones and zeros.
        (SmolLM3Config(num_hidden_layers=2, no_rope_layers=[0, 1]), "no_rope_layers", [0, 0, 1, 1]),
    ],
)
def test_numbers_of_layers_are_told_from_what_layers_are(
    config: PretrainedConfig, name: str, expected: list[int]
) -> None:
    assert per_layer(config, name)
    assert of_layers(config, name, [0, 0, 1, 1]) == expected
