"""Tiny models of any class: same structure as the real one, small enough to be built and run in milliseconds."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_dwt.remapping.sizes import numbers_layers, of_layers, per_layer, read_sizes, write_sizes

NUM_TOKENS = 61
# Fields that decide how many experts are built: a hundred show nothing that a few do not.
_EXPERTS = {"num_experts": 16, "num_local_experts": 16, "n_routed_experts": 16, "num_experts_per_tok": 4}
# Windows of attention shorter than the tiny inputs: layers that look near and layers that look far must differ.
_WINDOWS = ("sliding_window", "window_size", "local_attention", "attention_chunk_size")
_WINDOW = 4
# Spread of what the first norm is given: so small that a constant which a norm adds to it shows, even one that no
# configuration holds, as OPT's.
_EMBEDDING_SPREAD = 0.01


def tiny_config(config: PretrainedConfig, values: Mapping[str, int], layers: Sequence[int]) -> PretrainedConfig:
    """Copy a configuration with other sizes and some of its layers.

    Args:
        config: The real configuration.
        values: Sizes by axis, see `sizes.FIELDS`.
        layers: Which of the real layers are kept, in order: their entries in lists with one entry per layer follow.
    """
    tiny = deepcopy(config)
    for name in config.to_dict():
        if per_layer(config, name):
            setattr(tiny, name, of_layers(config, name, layers))
    write_sizes(tiny, {**values, "layers": len(layers)})
    for name, value in tiny.to_dict().items():
        if name in _EXPERTS and isinstance(value, int):
            setattr(tiny, name, min(value, _EXPERTS[name]))
        if name in _WINDOWS and isinstance(value, int):
            setattr(tiny, name, min(value, _WINDOW))
        if name.endswith(("token_id", "_index")) and isinstance(value, int) and value >= values["vocabulary"]:
            setattr(tiny, name, 1)
    return tiny


def representative_layers(model_class: type[PreTrainedModel], config: PretrainedConfig, least: int = 2) -> list[int]:
    """The first layers, as many as it takes to see one of every sort, and `least` of them at least.

    Layers are of one sort if their parameters have the same names and the configuration lists the same for them.
    """
    sorts = names_by_layer(model_class, config)
    num_layers = len(sorts)
    for name in config.to_dict():
        if per_layer(config, name) and not numbers_layers(config, name):
            for layer, value in enumerate(getattr(config, name)):
                sorts[layer].add(f"{name}={value}")
    seen: list[set[str]] = []
    for layer in range(num_layers):
        if sorts[layer] not in seen:
            seen.append(sorts[layer])
            last = layer
    return list(range(min(num_layers, max(last + 1, least)))) if num_layers > 1 else [0] * least


def names_by_layer(model_class: type[PreTrainedModel], config: PretrainedConfig) -> list[set[str]]:
    """The names of the parameters and buffers of every layer, `*` in the place of its number."""
    names: list[set[str]] = [set() for _ in range(read_sizes(config)["layers"])]
    for name in build_on_meta(model_class, config).state_dict():
        match = re.search(r"\.(\d+)\.", name)
        if match is not None and (layer := int(match.group(1))) < len(names):
            names[layer].add(f"{name[: match.start()]}.*.{name[match.end() :]}")
    return names


def build_on_meta(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """Build a model without weights."""
    with torch.device("meta"), _fixed_generator():
        return model_class(deepcopy(config))


def build_random(model_class: type[PreTrainedModel], config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Build a tiny model, in evaluation mode, whose weights are all so random that nothing hides.

    Fresh weights would: biases of 0, norms of 1 and products near 0 make wrong growths look right.
    """
    config = deepcopy(config)
    with _fixed_generator(seed):
        model = model_class(config).float().eval()
        model.requires_grad_(False)
        tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape)
            if parameter.dim() < 2:
                parameter.copy_(parameter + 0.3 * noise)
            elif any(parameter is table for table in tables):
                parameter.copy_(noise * _EMBEDDING_SPREAD)
            elif parameter.std() > 0 or parameter.dim() == 2:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
    return model


def random_inputs(vocab_size: int, length: int = 12, batch_size: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random token ids, shape (batch, length), the second example padded on its right."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocab_size, (batch_size, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, length - length // 3 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@contextmanager
def _fixed_generator(seed: int = 0) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
