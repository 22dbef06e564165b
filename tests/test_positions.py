import copy
import pickle

import pytest
import torch
import transformers
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_dwt import positions as positions_module
from hf_dwt.language_models import language_model_kind
from hf_dwt.losses import IGNORED_LABEL
from hf_dwt.positions import (
    Positions,
    causal_positions,
    full_logits,
    has_labels,
    logits_at,
    masked_positions,
    num_positions,
    positions_of,
    select,
    without_labels,
)

SIZES = {
    "vocab_size": 53,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MASKED = {
    "Bert": {},
    "Roberta": {},
    "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 32},
    "Albert": {"embedding_size": 8},
    "Electra": {"embedding_size": 8},
    "DebertaV2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "MPNet": {},
    "ModernBert": {"sparse_prediction": False, "cls_token_id": 1, "sep_token_id": 2},
    "ModernBert, sparse_prediction": {"sparse_prediction": True, "cls_token_id": 1, "sep_token_id": 2},
}
CAUSAL = {
    "GPT2LMHeadModel": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 40},
    "LlamaForCausalLM": {"num_key_value_heads": 2},
    "Qwen2ForCausalLM": {"num_key_value_heads": 2},
}


def build(name: str, **changes: object) -> PreTrainedModel:
    """Build a tiny model without dropout, in float64, so that two forward passes compare to the last digits."""
    if name in CAUSAL:
        model_class, own = getattr(transformers, name), CAUSAL[name]
    else:
        model_class, own = getattr(transformers, f"{name.split(',')[0]}ForMaskedLM"), MASKED.get(name, {})
    renamed = {
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "intermediate_size",
    }
    sizes = {key: value for key, value in SIZES.items() if not (name == "GPT2LMHeadModel" and key in renamed)}
    model = model_class(model_class.config_class(**sizes | own | changes))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.double().eval()


def batch(kind: str, num_rows: int = 3, length: int = 11, share: float = 0.3) -> tuple[dict[str, Tensor], Positions]:
    input_ids = torch.randint(3, SIZES["vocab_size"], (num_rows, length))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[-1, length - 3 :] = 0
    asked = (torch.rand(num_rows, length) < share) & attention_mask.bool()
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    return inputs, positions_of(kind, {"labels": input_ids.masked_fill(~asked, IGNORED_LABEL)})


def gradients(model: nn.Module, logits: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss that weighs every logit differently."""
    model.zero_grad()
    (torch.linspace(-1, 1, logits.numel()).view_as(logits) * logits).sum().backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def assert_like_the_full_path(model: nn.Module, inputs: dict[str, Tensor], positions: Positions) -> None:
    expected = select(full_logits(model, inputs), positions)
    expected_gradients = gradients(model, expected)
    actual = logits_at(model, inputs, positions)
    actual_gradients = gradients(model, actual)
    assert actual.shape == (len(positions), expected.shape[-1])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)
    assert actual_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(actual_gradients[name], gradient, rtol=1e-9, atol=1e-9)


def rows_seen_by_the_head(model: PreTrainedModel, compute: object) -> int:
    seen: list[int] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel() // args[0].shape[-1])
    )
    compute()
    handle.remove()
    return sum(seen)


@pytest.fixture
def no_class_known(monkeypatch):
    """No class is known yet to need the full path."""
    monkeypatch.setattr(positions_module, "_classes_without_selection", set())


@pytest.fixture
def bert() -> PreTrainedModel:
    return build("Bert")


every_architecture = pytest.mark.parametrize("name", [*MASKED, *CAUSAL])


@every_architecture
def test_values_and_gradients_of_all_parameters_are_those_of_the_full_path(name, no_class_known):
    model = build(name)
    inputs, positions = batch(language_model_kind(model))
    assert 0 < len(positions) < inputs["input_ids"].numel()
    assert_like_the_full_path(model, inputs, positions)
    assert not positions_module._classes_without_selection


@every_architecture
@pytest.mark.parametrize(("num_rows", "share"), [(1, 1.0), (1, 0.2), (3, 1.0), (3, 0.0)])
def test_one_example_all_positions_and_none_are_like_the_full_path_too(name, num_rows, share, no_class_known):
    model = build(name)
    assert_like_the_full_path(model, *batch(language_model_kind(model), num_rows, share=share))
    assert not positions_module._classes_without_selection


@every_architecture
def test_tuples_that_are_asked_for_are_like_the_full_path_too(name, no_class_known):
    model = build(name)
    inputs, positions = batch(language_model_kind(model))
    inputs["return_dict"] = False
    assert isinstance(model(**inputs), tuple)
    assert_like_the_full_path(model, inputs, positions)
    assert not positions_module._classes_without_selection


# The other classes fail with such a configuration, with or without this package.
@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert", "Albert", "Electra", "DebertaV2", "MPNet"])
def test_backbones_configured_to_answer_with_tuples_are_like_the_full_path_too(name, no_class_known):
    model = build(name, return_dict=False)
    inputs, positions = batch("masked")
    assert isinstance(model.base_model(**inputs), tuple)
    assert_like_the_full_path(model, inputs, positions)
    assert not positions_module._classes_without_selection


@every_architecture
def test_the_head_is_run_at_the_positions_only(name):
    model = build(name)
    inputs, positions = batch(language_model_kind(model))
    assert rows_seen_by_the_head(model, lambda: logits_at(model, inputs, positions)) == len(positions)
    assert rows_seen_by_the_head(model, lambda: full_logits(model, inputs)) == inputs["input_ids"].numel()


def test_no_position_gives_no_rows_and_zero_gradient(bert):
    inputs, positions = batch("masked", share=0.0)
    logits = logits_at(bert, inputs, positions)
    assert logits.shape == (0, SIZES["vocab_size"])
    assert all((gradient == 0).all() for gradient in gradients(bert, logits).values())


@pytest.mark.parametrize("name", ["Bert", "ModernBert", "GPT2LMHeadModel", "LlamaForCausalLM"])
def test_recomputed_activations_give_the_same_gradients(name):
    model = build(name).train()
    kind = language_model_kind(model)
    inputs, positions = batch(kind)
    expected = gradients(model, select(full_logits(model, inputs), positions))
    model.activation_checkpointing_enable()
    if kind == "causal":
        inputs["use_cache"] = False
    actual = gradients(model, logits_at(model, inputs, positions))
    assert actual.keys() == expected.keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(actual[parameter], gradient, rtol=1e-9, atol=1e-9)


peft_asks_by_an_old_name = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning"
)


@peft_asks_by_an_old_name
@pytest.mark.parametrize(("name", "target"), [("Bert", "query"), ("LlamaForCausalLM", "q_proj")])
def test_a_model_with_adapters_is_like_the_full_path_too(name, target, no_class_known):
    inner = build(name)
    task_type = "CAUSAL_LM" if name in CAUSAL else None
    model = get_peft_model(inner, LoraConfig(target_modules=[target], init_lora_weights=False, task_type=task_type))
    inputs, positions = batch(language_model_kind(model))
    assert_like_the_full_path(model, inputs, positions)
    assert rows_seen_by_the_head(inner, lambda: logits_at(model, inputs, positions)) == len(positions)
    assert not positions_module._classes_without_selection


@peft_asks_by_an_old_name
def test_a_model_that_answers_with_more_rows_than_tokens_is_refused():
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = get_peft_model(build("LlamaForCausalLM"), settings)
    inputs, positions = batch("causal")
    with pytest.raises(ValueError, match="answers with 15 rows per example to 11 tokens"):
        logits_at(model, inputs, positions)


def test_a_class_without_rows_to_select_takes_the_full_path_and_one_warning_says_so(no_class_known, caplog):
    small = {"word_embed_proj_dim": 16, "ffn_dim": 32, "dropout": 0.0}
    model = transformers.OPTForCausalLM(transformers.OPTConfig(**SIZES | small)).eval()
    inputs, positions = batch("causal")
    for _ in range(3):
        assert_like_the_full_path(model, inputs, positions)
    (record,) = [each for each in caplog.records if "OPTForCausalLM" in each.message]
    assert record.levelname == "WARNING"
    assert "its head is run at every position, which costs time and memory but changes no result" in record.message
    assert positions_module._classes_without_selection == {transformers.OPTForCausalLM}


def test_other_classes_are_not_warned_of(no_class_known, caplog, bert):
    logits_at(bert, *batch("masked"))
    assert not caplog.records


class OneModule(PreTrainedModel):
    """A language model that is its own backbone."""

    config_class = transformers.BertConfig
    base_model_prefix = "nothing"

    def __init__(self, config: transformers.BertConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        return (self.head(self.embeddings(input_ids)),)


def test_a_model_that_is_its_own_backbone_takes_the_full_path(no_class_known, caplog):
    model = OneModule(transformers.BertConfig(**SIZES))
    assert_like_the_full_path(model, *batch("masked"))
    assert "`OneModule` has no backbone" in caplog.text


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_used_model_works_and_is_its_own(copied, bert):
    inputs, positions = batch("masked")
    expected = logits_at(bert, inputs, positions)
    twin = copied(bert)
    torch.testing.assert_close(logits_at(twin, inputs, positions), expected)
    with positions_module._keep_only(bert, inputs, positions):
        assert full_logits(twin, inputs).shape[:2] == inputs["input_ids"].shape, "the copy has a selection of its own"


def test_full_logits_after_use_are_those_of_an_unused_model(bert):
    inputs, positions = batch("masked")
    expected = full_logits(copy.deepcopy(bert), inputs)
    for _ in range(3):
        logits_at(bert, inputs, positions)
    assert torch.equal(full_logits(bert, inputs), expected)
    assert len(bert.base_model._forward_hooks) == 1


def test_a_forward_pass_that_fails_leaves_the_model_usable(bert):
    inputs, positions = batch("masked")
    expected = full_logits(bert, inputs)
    with pytest.raises(IndexError):
        logits_at(bert, inputs | {"input_ids": inputs["input_ids"] + 1000}, positions)
    assert torch.equal(full_logits(bert, inputs), expected)
    assert torch.equal(logits_at(bert, inputs, positions), select(expected, positions))


@pytest.mark.parametrize(
    ("name", "first"), [("Bert", "full path"), ("Bert", "positions"), ("LlamaForCausalLM", "full path")]
)
@torch.no_grad()
def test_compiled_models_do_not_reuse_the_positions_of_an_earlier_batch(name, first, no_class_known):
    model = build(name, num_hidden_layers=1)
    inputs, positions = batch(language_model_kind(model), share=0.5)
    expected = full_logits(model, inputs)
    compiled = torch.compile(model, backend="eager")
    if first == "full path":
        torch.testing.assert_close(full_logits(compiled, inputs), expected)
    for chosen in (positions.indices, positions.indices.flip(0)):
        others = Positions(chosen, positions.labels, positions.length)
        torch.testing.assert_close(logits_at(compiled, inputs, others), select(expected, others))
        torch.testing.assert_close(full_logits(compiled, inputs), expected)
    assert not positions_module._classes_without_selection, "the compiled graph went on without the selection"
    torch.compiler.reset()


LABELS = torch.tensor([[5, -100, 7, 8], [-100, 6, -100, -100]])


def test_masked_positions_are_where_the_labels_are():
    positions = masked_positions(LABELS)
    assert positions.indices.tolist() == [0, 2, 3, 5]
    assert positions.labels.tolist() == [5, 7, 8, 6]
    assert positions.examples.tolist() == [0, 0, 0, 1]
    assert (len(positions), positions.length) == (4, 4)


def test_causal_positions_predict_the_next_label_and_the_last_token_of_a_row_nothing():
    positions = causal_positions(LABELS)
    assert positions.indices.tolist() == [1, 2, 4]
    assert positions.labels.tolist() == [7, 8, 6]
    assert positions.examples.tolist() == [0, 0, 1]


def test_causal_loss_at_the_positions_is_that_of_transformers():
    model = build("GPT2LMHeadModel")
    inputs, _ = batch("causal")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED_LABEL)
    positions = causal_positions(labels)
    assert len(positions) == 3 * 10 - 3
    loss = nn.functional.cross_entropy(logits_at(model, inputs, positions), positions.labels)
    torch.testing.assert_close(loss.float(), model(**inputs, labels=labels).loss)


@pytest.mark.parametrize("make", [masked_positions, causal_positions])
def test_labels_that_ask_for_nothing_give_no_positions(make):
    assert len(make(torch.full((2, 3), IGNORED_LABEL))) == 0
    assert len(causal_positions(torch.tensor([[4], [5]]))) == 0


def test_the_kind_of_model_decides_how_labels_are_read():
    assert positions_of("masked", {"labels": LABELS}).indices.tolist() == [0, 2, 3, 5]
    assert positions_of("causal", {"labels": LABELS}).indices.tolist() == [1, 2, 4]


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_labels_that_are_shifted_already_are_not_shifted_again(kind):
    inputs = {"labels": torch.full_like(LABELS, 9), "shift_labels": LABELS}
    assert positions_of(kind, inputs).indices.tolist() == [0, 2, 3, 5]
    assert positions_of(kind, {"labels": LABELS, "shift_labels": None}) is not None


def test_a_batch_has_labels_under_either_name_unless_they_are_none():
    assert has_labels({"labels": LABELS})
    assert has_labels({"shift_labels": LABELS})
    assert not has_labels({"labels": None, "input_ids": LABELS})


def test_a_model_is_never_given_labels():
    inputs = {"input_ids": 1, "labels": 2, "shift_labels": 3, "attention_mask": 4}
    assert without_labels(inputs) == {"input_ids": 1, "attention_mask": 4}
    assert len(inputs) == 4


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("names", [("labels",), ("shift_labels",), ("labels", "shift_labels")])
def test_positions_are_counted_as_they_are_found(kind, names):
    inputs = dict.fromkeys(names, LABELS)
    assert num_positions(kind, inputs).item() == len(positions_of(kind, inputs)) > 0
