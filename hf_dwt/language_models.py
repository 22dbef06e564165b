"""Which models are masked or causal language models, the two kinds that can be distilled here, and what they read."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.trainer_utils import unwrap_peft_model

Kind = Literal["masked", "causal"]
# What transformers makes and loads them by.
AUTO_CLASSES: Mapping[Kind, Any] = {"masked": AutoModelForMaskedLM, "causal": AutoModelForCausalLM}

# Registered as language models, but their positions predict something else than their own or the next token.
_OTHER_OBJECTIVES = {"XLNetLMHeadModel", "XLMWithLMHeadModel", "FlaubertWithLMHeadModel"}


def language_model_kind(model: nn.Module) -> Kind | None:
    """Return what kind of language model this is, None for everything else (encoder-decoders included).

    Example:
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> language_model_kind(BertForMaskedLM(BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1)))
        'masked'
    """
    core = unwrap_peft_model(model)
    if not isinstance(core, PreTrainedModel) or core.config.is_encoder_decoder:
        return None
    names = [base.__name__ for base in type(core).__mro__ if issubclass(base, nn.Module)]
    return None if _OTHER_OBJECTIVES.intersection(names) else next(filter(None, map(_kind_of_class, names)), None)


def architecture_kind(config: Any) -> Kind | None:
    """Return the kind that a configuration's own `architectures` name, None if they name no language model."""
    kinds = map(_kind_of_class, config.architectures or [])
    return None if config.is_encoder_decoder else next(filter(None, kinds), None)


def longest_sequence(model: PreTrainedModel) -> int | None:
    """Tokens that a model can read at once, None if its configuration sets no limit. It may be on the meta device."""
    limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is None or limit <= 0:
        return None
    # RoBERTa and its kin count positions from the padding token's id + 1: that many rows of the table are not used.
    tables = [each for each in model.modules() if isinstance(each, nn.Embedding)]
    tables = [each for each in tables if each.num_embeddings == limit and each is not model.get_input_embeddings()]
    return limit - max((each.padding_idx + 1 for each in tables if each.padding_idx is not None), default=0)


def _kind_of_class(name: str) -> Kind | None:
    """Kind by the registry of transformers, or by its naming convention for classes of one's own."""
    if name in _OTHER_OBJECTIVES:
        return None
    if name in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values() or name.endswith("ForMaskedLM"):
        return "masked"
    if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() or name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    return None
