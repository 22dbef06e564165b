import pytest
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    BartConfig,
    BartForCausalLM,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertLMHeadModel,
    BertModel,
    BertPreTrainedModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    T5Config,
    T5ForConditionalGeneration,
    XLNetConfig,
    XLNetLMHeadModel,
)

from hf_dwt.language_models import architecture_kind, language_model_kind

BERT = BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1)
GPT2 = GPT2Config(vocab_size=9, n_embd=12, n_layer=1, bos_token_id=1, eos_token_id=2)
# A dictionary, because a decoder built from the configuration changes it.
BART = {"vocab_size": 9, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
T5 = T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
XLNET = XLNetConfig(vocab_size=9, d_model=8, n_layer=1, n_head=2, d_inner=8)


class BertOfOnesOwnForMaskedLM(BertPreTrainedModel):
    """A class that transformers does not know, named as it names its own."""


class Renamed(GPT2LMHeadModel):
    """A subclass under a name that says nothing."""


class PlainForCausalLM(nn.Module):
    """Named like a language model, but without a configuration or a backbone."""


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda: BertForMaskedLM(BERT), "masked"),
        (lambda: BertOfOnesOwnForMaskedLM(BERT), "masked"),
        (lambda: BertLMHeadModel(BertConfig(**BERT.to_dict() | {"is_decoder": True})), "causal"),
        (lambda: GPT2LMHeadModel(GPT2), "causal"),
        (lambda: Renamed(GPT2), "causal"),
        (lambda: BartForCausalLM(BartConfig(**BART)), "causal"),
        (lambda: T5ForConditionalGeneration(T5), None),
        # Registered as a masked language model too.
        (lambda: BartForConditionalGeneration(BartConfig(**BART)), None),
        (lambda: BertModel(BERT), None),
        (lambda: GPT2Model(GPT2), None),
        (lambda: BertForSequenceClassification(BERT), None),
        (lambda: XLNetLMHeadModel(XLNET), None),
        (PlainForCausalLM, None),
        (lambda: nn.Linear(2, 2), None),
    ],
)
def test_only_masked_and_causal_language_models_have_a_kind(build, kind):
    assert language_model_kind(build()) == kind


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning")
def test_adapters_do_not_hide_the_kind():
    adapters = LoraConfig(target_modules=["query"])
    assert language_model_kind(get_peft_model(BertForMaskedLM(BERT), adapters)) == "masked"
    assert language_model_kind(get_peft_model(BertModel(BERT), adapters)) is None


@pytest.mark.parametrize(
    ("model_type", "architectures", "kind"),
    [
        ("bert", ["BertForMaskedLM"], "masked"),
        ("gpt2", ["GPT2LMHeadModel"], "causal"),
        ("gpt2", ["SomebodysForCausalLM"], "causal"),
        ("bert", ["BertModel"], None),
        ("bert", ["BertModel", "BertForMaskedLM"], "masked"),
        ("bert", None, None),
        ("bert", [], None),
        ("bert", ["BertForSequenceClassification"], None),
        ("xlnet", ["XLNetLMHeadModel"], None),
        ("t5", ["T5ForConditionalGeneration"], None),
        ("bart", ["BartForConditionalGeneration"], None),
    ],
)
def test_a_configuration_tells_the_kind_by_its_architectures(model_type, architectures, kind):
    assert architecture_kind(AutoConfig.for_model(model_type, architectures=architectures)) == kind
