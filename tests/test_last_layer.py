"""Where a last layer can be cut is found by trial, and cutting there changes no answer."""

import copy

import pytest
import torch
import transformers
from peft import PromptTuningConfig, get_peft_model
from test_positions import MASKED, assert_like_the_full_path, batch, build, gradients, peft_asks_by_an_old_name
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from hf_dwt import last_layer
from hf_dwt.last_layer import Cut, find_cut
from hf_dwt.positions import full_logits, logits_at, select

CUT = ("Bert", "Roberta", "DistilBert", "Electra", "DebertaV2", "MPNet")
NOT_CUT = ("Albert", "ModernBert")


@pytest.mark.parametrize("name", CUT)
def test_layers_that_normalise_after_their_sums_are_cut_behind_the_attention(name: str) -> None:
    model = build(name)
    cut = find_cut(model)
    assert cut is not None
    seen: list[torch.Size] = []
    for module in model.get_submodule(cut.layers)[-1].modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[:2]))
    inputs, positions = batch("masked", share=0.2)
    logits_at(model, inputs, positions)
    assert inputs["input_ids"].shape in seen, "attention sees all tokens"
    assert seen.count(torch.Size((1, len(positions)))) >= 2, "both matrices of the feed-forward block"


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "eager") for name in CUT), ("Bert", "sdpa"), ("DistilBert", "sdpa"), ("Electra", "sdpa")],
)
def test_answers_and_gradients_are_those_of_the_full_path(name: str, mode: str) -> None:
    model = build(name, attn_implementation=mode)
    assert find_cut(model) is not None
    for share in (0.05, 0.2, 0.4):
        assert_like_the_full_path(model, *batch("masked", num_rows=4, length=13, share=share))
    assert_like_the_full_path(model, *batch("masked", num_rows=1, length=13, share=0.2))


@pytest.mark.parametrize("name", NOT_CUT)
def test_layers_that_are_shared_or_add_afterwards_are_not_cut(name: str) -> None:
    model = build(name)
    assert find_cut(model) is None
    assert_like_the_full_path(model, *batch("masked", share=0.2))


def build_like(model: nn.Module) -> nn.Module:
    """The same model without hooks."""
    twin = build("Bert")
    twin.load_state_dict(model.state_dict())
    return twin


def test_a_cut_too_early_would_be_noticed() -> None:
    model = build("Bert")
    inputs, positions = batch("masked", share=0.2)
    early = Cut("bert.encoder.layer", type(model.bert.encoder.layer[-1]), "attention", (0,))
    hook = lambda _, args, kwargs: early.apply(args, kwargs, positions.indices)  # noqa: E731
    early.module_of(model).register_forward_pre_hook(hook, with_kwargs=True)
    with pytest.raises(RuntimeError):  # its mask is for all tokens
        model(**inputs)
    inputs.pop("attention_mask")
    expected = select(build_like(model)(**inputs).logits, positions)
    assert not torch.allclose(model(**inputs).logits.squeeze(0), expected, rtol=0, atol=1e-7), (
        "others could not be attended to"
    )


def test_where_most_tokens_are_asked_about_nothing_is_cut() -> None:
    model, seen = build("Bert"), []
    model.bert.encoder.layer[-1].output.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    inputs, positions = batch("masked", num_rows=4, share=0.95)
    logits_at(model, inputs, positions)
    assert seen == [inputs["input_ids"].shape[1]]


def test_recomputed_activations_are_not_cut_and_their_gradients_are_right() -> None:
    model = build("Bert").train()
    inputs, positions = batch("masked", share=0.2)
    expected = gradients(model, select(full_logits(model, inputs), positions))
    model.activation_checkpointing_enable()
    actual = gradients(model, logits_at(model, inputs, positions))
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-9, atol=1e-9)


def test_layers_that_others_recompute_are_not_cut_and_their_gradients_are_right() -> None:
    model = build("Bert").train()
    inputs, positions = batch("masked", share=0.2)
    expected = gradients(model, select(full_logits(model, inputs), positions))
    last = model.bert.encoder.layer[-1]
    model.bert.encoder.layer[-1] = checkpoint_wrapper(last)
    actual = gradients(model, logits_at(model, inputs, positions))
    assert len(actual) == len(expected)
    for name, gradient in actual.items():
        wanted = expected[name.replace("_checkpoint_wrapped_module.", "")]
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-9)


@peft_asks_by_an_old_name
def test_virtual_tokens_are_refused_also_where_the_last_layer_could_be_cut() -> None:
    model = get_peft_model(build("Bert"), PromptTuningConfig(num_virtual_tokens=2, task_type="FEATURE_EXTRACTION"))
    model = model.double().eval()
    inputs, positions = batch("masked", share=0.2)
    with pytest.raises(ValueError, match="answers with 13 rows per example to 11 tokens"):
        logits_at(model, inputs, positions)


def test_a_model_that_is_asked_about_most_tokens_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_layer, "_known", {})
    logits_at(build("LlamaForCausalLM"), *batch("causal", share=1.0))
    assert not last_layer._known
    logits_at(build("Bert"), *batch("masked", share=0.2))
    assert len(last_layer._known) == 1


def test_a_model_of_one_layer_is_cut_too() -> None:
    model = build("Bert", num_hidden_layers=1)
    assert find_cut(model) is not None
    assert_like_the_full_path(model, *batch("masked", share=0.2))


def test_a_class_whose_tiny_model_cannot_be_run_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyError("a modelling file may raise anything")

    monkeypatch.setattr(last_layer, "build_random", fails)
    monkeypatch.setattr(last_layer, "_known", {})
    model = build("Bert")
    assert find_cut(model) is None
    assert_like_the_full_path(model, *batch("masked", share=0.2))


def test_looking_for_a_cut_touches_neither_the_model_nor_the_global_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_layer, "_known", {})
    model = build("Bert")
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert find_cut(model) is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_every_masked_class_of_the_tests_is_either_cut_or_known_not_to_be() -> None:
    assert {name.split(",")[0] for name in MASKED} == {*CUT, *NOT_CUT}
    assert isinstance(build("Bert"), transformers.BertForMaskedLM)
