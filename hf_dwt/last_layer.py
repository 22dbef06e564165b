"""Where the last layer of a model can drop the tokens that nobody asks about.

Behind its attention, a layer that normalises after its residual sums (BERT and its kin) takes every token by itself:
what it computes of tokens at which no prediction is asked for is thrown away. No class is listed here. On a tiny model
of the class, the inputs of each module of the last layer are cut in turn; the first one that leaves the answers as
they are is where a real model may be cut too.
"""

# Axes in names: B batch, L length, N positions, H hidden.

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_dwt.remapping.axes import probe_sizes
from hf_dwt.remapping.sizes import read_sizes
from hf_dwt.remapping.tiny import build_random, random_inputs, representative_layers, tiny_config
from hf_dwt.unsharded import unsharded


@dataclass(frozen=True)
class Cut:
    """A place to cut.

    Attributes:
        layers: Name of the list of layers.
        layer_class: Of the last of them.
        module: Name within it.
        arguments: Which of the module's arguments are cut: by index, or by name.
    """

    layers: str
    layer_class: type[nn.Module]
    module: str
    arguments: tuple[int | str, ...]

    def module_of(self, model: nn.Module) -> nn.Module | None:
        """The module of a real model whose inputs are to be cut.

        None where the layer is wrapped: a wrapper may shard it, or compute it again in the backward pass, when nobody
        says any more what was asked for.
        """
        layers = model.get_submodule(self.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers[-1].get_submodule(self.module) if type(layers[-1]) is self.layer_class else None

    def fits(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], length: int) -> bool:
        """Tell whether the module is given so many tokens of each example; prompt tuning puts others before them."""
        given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        return all(each.shape[1] == length for key, each in given if key in self.arguments)

    def apply(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], indices: Tensor
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Cut arguments of shape (batch, length, features) to (1, positions, features).

        Args:
            args: Of the module.
            kwargs: Of the module.
            indices: Shape (positions,), into the flattened (batch * length) tokens.
        """
        cut_args = tuple(_rows(each, indices) if key in self.arguments else each for key, each in enumerate(args))
        cut_kwargs = {key: _rows(each, indices) if key in self.arguments else each for key, each in kwargs.items()}
        return cut_args, cut_kwargs


def find_cut(model: PreTrainedModel) -> Cut | None:
    """Find where a model of this class and configuration can be cut; None where it cannot.

    Args:
        model: A masked language model with a backbone of its own.
    """
    key = type(model), model.config.to_json_string()
    if key not in _known:
        try:
            with unsharded():
                _known[key] = next(_cuts(type(model), model.config), None)
        except Exception:  # a modelling file may raise anything: then its models are run as they are
            _known[key] = None
    return _known[key]


_known: dict[tuple[type, str], Cut | None] = {}


@torch.no_grad()
def _cuts(model_class: type[PreTrainedModel], config: PretrainedConfig) -> Iterator[Cut]:
    """The places where a tiny model can be cut, in the order in which they are reached."""
    layers = representative_layers(model_class, config)
    model = build_random(model_class, tiny_config(config, probe_sizes(read_sizes(config), 0, apart=False), layers))
    backbone = model.double().base_model
    inputs = random_inputs(model.config.get_text_config().vocab_size)
    batch_size, length = inputs["input_ids"].shape
    indices = torch.arange(1, batch_size * length, 5)
    expected = backbone(**inputs)[0].flatten(end_dim=1)[indices][None]
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == len(layers)
    }
    for name, modules in lists.items():
        for place in _called(modules[-1], backbone, inputs):
            arguments = _arguments(modules[-1].get_submodule(place), backbone, inputs, (batch_size, length))
            cut = Cut(name, type(modules[-1]), place, arguments)
            answer = _cut_answer(cut, model, inputs, indices)
            if answer is not None and answer.shape == expected.shape and torch.allclose(answer, expected, atol=1e-9):
                yield cut


def _called(layer: nn.Module, backbone: nn.Module, inputs: Mapping[str, Tensor]) -> list[str]:
    """Modules of a layer, itself included, in the order in which they are called; those called once."""
    calls: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda _, __, name=name: calls.append(name))
        for name, module in layer.named_modules()
    ]
    backbone(**inputs)
    for handle in handles:
        handle.remove()
    return [name for name in calls if calls.count(name) == 1]


def _arguments(
    module: nn.Module, backbone: nn.Module, inputs: Mapping[str, Tensor], shape: tuple[int, int]
) -> tuple[int | str, ...]:
    """Which arguments of a module hold something for every token."""
    found: list[int | str] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        found.extend(key for key, each in given if isinstance(each, Tensor) and each.shape[:2] == shape)

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    backbone(**inputs)
    handle.remove()
    return tuple(found)


def _cut_answer(cut: Cut, model: PreTrainedModel, inputs: Mapping[str, Tensor], indices: Tensor) -> Tensor | None:
    module = cut.module_of(model)
    assert module is not None
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: cut.apply(args, kwargs, indices), with_kwargs=True
    )
    try:
        answer: Tensor = model.base_model(**inputs)[0]
    except (RuntimeError, ValueError, IndexError):  # shapes that no longer fit each other
        return None
    finally:
        handle.remove()
    return answer


def _rows(values: Tensor, indices: Tensor) -> Tensor:
    return values.flatten(end_dim=1).index_select(0, indices).unsqueeze(0)
