"""What can be grown at all: one stack of layers that reads tokens, with whatever was merged into its weights."""

from copy import deepcopy
from typing import Any

from torch import nn
from transformers import PretrainedConfig
from transformers.utils import is_peft_available

from hf_dwt.remapping.sizes import fields_of


def refuse_other_models(config: PretrainedConfig, name: str) -> None:
    """Refuse encoder-decoders, models made of several, and models that read no tokens, by their configuration.

    Args:
        config: Of the teacher.
        name: What it is called in the message.

    Raises:
        ValueError: If it is one of them; it says which, and what can be grown.
    """
    if why := _why_not(config):
        raise ValueError(
            f"{name} cannot be grown: {why}. What can be grown is one stack of layers that reads tokens: masked and "
            "causal language models, and bare encoders."
        )


def _why_not(config: PretrainedConfig) -> str | None:
    if config.is_encoder_decoder:
        return "it is an encoder-decoder, two stacks of which one reads the other"
    part = config.get_text_config()
    if part is not config:
        return f"it is made of several models, of which the one that reads text has a {type(part).__name__}"
    if not fields_of(config, "vocabulary"):
        return f"it reads no tokens (its {type(config).__name__} has no `vocab_size`)"
    return None


def without_adapters(model: Any) -> Any:
    """The model that an adapter's wrapper stands for, its adapters merged into a copy; everything else as it is.

    Raises:
        ValueError: If it has adapters that cannot be merged.
    """
    if is_peft_available() and isinstance(model, nn.Module):
        from peft import PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer

        if isinstance(model, PeftModel) and not model.active_peft_config.is_prompt_learning:
            return deepcopy(model).merge_and_unload()
        if isinstance(model, PeftModel) or any(isinstance(module, BaseTunerLayer) for module in model.modules()):
            raise ValueError(
                "The teacher has adapters that are no part of its weights. Those of a `PeftModel` are merged, "
                "but prompts cannot be: give a `PeftModel` without prompts, or the model alone."
            )
    return model
