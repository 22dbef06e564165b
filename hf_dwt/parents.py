"""The smaller model that a student is grown from."""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel

from hf_dwt.hub.access import fetch_model, resolve_commit
from hf_dwt.model_files import (
    check_folder,
    looks_local,
    name_of,
    refuse_broken_files,
    without_conversion_service,
)
from hf_dwt.remapping.growable import refuse_other_models, without_adapters
from hf_dwt.remapping.tiny import build_on_meta
from hf_dwt.teacher import Origin, Teacher
from hf_dwt.weights import open_safetensors

TeacherLike: TypeAlias = Teacher | PreTrainedModel | str | os.PathLike[str]


@dataclass(frozen=True)
class Parent:
    """A model that a student is grown from; its weights may still be unread.

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


def open_parent(teacher: TeacherLike, revision: str | None, token: str | bool | None) -> Parent:
    """Find what a student is to be grown from.

    Raises:
        ValueError: If it cannot be grown.
        TypeError: If it is no model.
        OSError: If it is not there, or cannot be read.
    """
    source = _find(teacher, revision, token)
    if "quantization_config" in source.config.to_dict():
        raise ValueError(
            f"The teacher ({source.origin}) is quantised: its weights cannot be grown. Take it unquantised."
        )
    refuse_other_models(source.config, f"{source.model_class.__name__} ({source.origin})")
    return source


def _find(teacher: TeacherLike, revision: str | None, token: str | bool | None) -> Parent:
    origin = Origin()
    if isinstance(teacher, Teacher):
        teacher, origin = teacher.model, teacher.origin
    if isinstance(teacher, str | os.PathLike):
        return _open_checkpoint(name_of(teacher), revision, token)
    model = without_adapters(teacher)
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"`teacher` must be a `Teacher`, a transformers model, a folder or a Hub id, got {type(teacher).__name__}."
        )
    own = deepcopy(model.generation_config) if model.can_generate() else GenerationConfig()
    return Parent(model.config, type(model), origin, model.dtype, lambda: model, lambda _: own, lambda: None)


def _open_checkpoint(name: str, revision: str | None, token: str | bool | None) -> Parent:
    check_folder(name, revision)
    commit = None if looks_local(name) else resolve_commit(name, revision, token)
    origin, name = Origin(name, revision, commit), os.path.expanduser(name)
    found: dict[str, Any] = {"revision": commit or "main", "token": token}
    # Left open, transformers would ask on the terminal.
    config = AutoConfig.from_pretrained(name, trust_remote_code=False, **found)
    architecture = next(iter(config.architectures or []), None)
    if architecture is None or architecture not in dir(transformers):
        raise ValueError(f"{origin} names no class of transformers as its architecture, but {architecture!r}.")
    model_class: type[PreTrainedModel] = getattr(transformers, architecture)

    @cache
    def folder() -> Path:
        # By name, transformers would go from an adapter's configuration to another repository.
        path = Path(name) if commit is None else fetch_model(name, commit, token)
        refuse_broken_files(path, origin)
        return path

    def load() -> PreTrainedModel:
        with without_conversion_service():
            model, loading = model_class.from_pretrained(
                folder(), output_loading_info=True, dtype="auto", use_safetensors=True
            )
        if missing := sorted(loading["missing_keys"]):
            raise ValueError(f"{origin} was saved without {', '.join(missing[:3])}: there is nothing to grow from.")
        return model

    def read() -> Callable[[str], Tensor] | None:
        model = build_on_meta(model_class, config)
        model.tie_weights()
        names = [each for each, _ in model.named_parameters()]
        return open_safetensors(folder(), names, model.base_model_prefix, model.all_tied_weights_keys)

    def generation(model: PreTrainedModel | None) -> GenerationConfig:
        if model is not None:
            return deepcopy(model.generation_config)
        try:
            return GenerationConfig.from_pretrained(name, **found)
        except OSError:
            return GenerationConfig.from_model_config(config)

    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    return Parent(config, model_class, origin, dtype, load, generation, read)
