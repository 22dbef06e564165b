"""The teacher that a student is grown from: a model in memory, or a checkpoint that may stay unread for long."""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import is_peft_available

from hf_dwt.remapping.sizes import fields_of
from hf_dwt.remapping.tiny import build_on_meta
from hf_dwt.teacher import Origin, Teacher, check_folder, without_conversion_service
from hf_dwt.weights import open_safetensors

TeacherLike: TypeAlias = Teacher | PreTrainedModel | str | os.PathLike[str]


@dataclass(frozen=True)
class Source:
    """A teacher that may still be unread.

    Attributes:
        config: Its configuration.
        model_class: Its class.
        origin: Where it came from.
        dtype: Of its weights.
        load: Its model in memory, as it was saved.
        generation: How it generates, from the model if that is there.
        read: Opens its weights; None if the whole model has to be loaded for that.
    """

    config: PretrainedConfig
    model_class: type[PreTrainedModel]
    origin: Origin
    dtype: torch.dtype
    load: Callable[[], PreTrainedModel]
    generation: Callable[[PreTrainedModel | None], GenerationConfig]
    read: Callable[[], Callable[[str], Tensor] | None]


def open_source(teacher: TeacherLike, revision: str | None, token: str | bool | None) -> Source:
    """Find a teacher and refuse it at once if it is none that can be grown.

    Args:
        teacher: As in `from_weak_teacher`.
        revision: Branch, tag or commit of a Hub id.
        token: Hub token.

    Raises:
        TypeError: If it is no model.
        ValueError: If it is not one stack of layers that reads tokens, is quantised, has adapters that cannot be merged,
            or names no class of transformers.
    """
    source = _find(teacher, revision, token)
    if why := _why_not(source.config):
        raise ValueError(
            f"{source.model_class.__name__} ({source.origin}) cannot be grown: {why}. What can be grown is one stack "
            "of layers that reads tokens: masked and causal language models, and bare encoders."
        )
    return source


def _why_not(config: PretrainedConfig) -> str | None:
    if config.is_encoder_decoder:
        return "it is an encoder-decoder, two stacks of which one reads the other"
    part = config.get_text_config()
    if part is not config:
        return f"it is made of several models, of which the one that reads text has a {type(part).__name__}"
    if not fields_of(config, "vocabulary"):
        return f"it reads no tokens (its {type(config).__name__} has no `vocab_size`)"
    return None


def _find(teacher: TeacherLike, revision: str | None, token: str | bool | None) -> Source:
    origin = Origin()
    if isinstance(teacher, Teacher):
        teacher, origin = teacher.model, teacher.origin
    if isinstance(teacher, str | os.PathLike):
        return _open_checkpoint(os.fspath(teacher), revision, token)
    model = _without_adapters(teacher)
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"`teacher` must be a `Teacher`, a transformers model, a folder or a Hub id, got {type(teacher).__name__}."
        )
    if "quantization_config" in model.config.to_dict():
        raise ValueError("The teacher is quantised: its weights cannot be grown. Load it unquantised.")
    own = deepcopy(model.generation_config) if model.can_generate() else GenerationConfig()
    return Source(model.config, type(model), origin, model.dtype, lambda: model, lambda _: own, lambda: None)


def _open_checkpoint(name: str, revision: str | None, token: str | bool | None) -> Source:
    check_folder(name)
    found: dict[str, Any] = {"revision": revision or "main", "token": token}
    config = AutoConfig.from_pretrained(name, **found)
    origin = Origin(name, revision, vars(config).get("_commit_hash"))
    found["revision"] = origin.commit or found["revision"]
    architecture = next(iter(config.architectures or []), None)
    if architecture is None or architecture not in dir(transformers):
        raise ValueError(f"{origin} names no class of transformers as its architecture, but {architecture!r}.")
    model_class: type[PreTrainedModel] = getattr(transformers, architecture)

    def load() -> PreTrainedModel:
        with without_conversion_service():
            model, loading = model_class.from_pretrained(
                name, output_loading_info=True, dtype="auto", use_safetensors=True, **found
            )
        if missing := sorted(loading["missing_keys"]):
            raise ValueError(f"{origin} was saved without {', '.join(missing[:3])}: there is nothing to grow from.")
        return model

    def read() -> Callable[[str], Tensor] | None:
        model = build_on_meta(model_class, config)
        model.tie_weights()
        names = [each for each, _ in model.named_parameters()]
        return open_safetensors(name, names, model.base_model_prefix, model.all_tied_weights_keys, **found)

    def generation(model: PreTrainedModel | None) -> GenerationConfig:
        if model is not None:
            return deepcopy(model.generation_config)
        try:
            return GenerationConfig.from_pretrained(name, **found)
        except OSError:
            return GenerationConfig.from_model_config(config)

    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    return Source(config, model_class, origin, dtype, load, generation, read)


def _without_adapters(model: Any) -> Any:
    """The model that an adapter's wrapper stands for, its adapters merged into a copy."""
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
