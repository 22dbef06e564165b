"""Which modules read the residual stream and which write to it, found by watching a tiny model run.

Shapes alone cannot tell: in BERT a head's output and the residual stream have the same size. Whether a matrix reads
the one or the other is told by the tensor that it is given.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from hf_dwt.remapping.axes import kind_of


@dataclass(frozen=True)
class Norm:
    """A normalisation, known by what it does.

    Attributes:
        centres: Whether it subtracts the mean (LayerNorm) or not (RMSNorm).
        adds_one: Whether it multiplies by 1 + weight (Gemma).
    """

    centres: bool
    adds_one: bool


@dataclass(frozen=True)
class HeadTransform:
    """A matrix, an activation and a norm that run after the last layer; modules by kind.

    Attributes:
        matrix: Writes what the activation takes.
        activation: Its name in `transformers.activations.ACT2FN`.
        norm: Takes what the activation returns.
        norm_before: The norm that ran before the matrix, by its full name.
    """

    matrix: str
    activation: str
    norm: str
    norm_before: str


@dataclass
class Dataflow:
    """What was seen in one forward pass; modules by kind (see `axes.kind_of`).

    Attributes:
        norms: Normalisations with a weight.
        reads_residual: Linear modules whose input came straight from the residual stream or a norm of it.
        head: What runs between the layers and the output embeddings, where it is a `HeadTransform`.
        before_head: The module with parameters that ran last before the output embeddings, by its full name.
        post_norm: Whether a layer ends with a normalisation, so that the residual stream is normalised itself.
        order: Full names of the modules with parameters, in the order in which they ran; without tables of
            embeddings, which take whole numbers.
    """

    norms: dict[str, Norm] = field(default_factory=dict)
    reads_residual: set[str] = field(default_factory=set)
    head: HeadTransform | None = None
    before_head: str | None = None
    post_norm: bool = False
    order: list[str] = field(default_factory=list)


def is_matrix(module: nn.Module) -> bool:
    """Whether a module multiplies by a weight matrix."""
    return isinstance(module, nn.Linear | Conv1D)


@torch.no_grad()
def watch(model: PreTrainedModel, inputs: dict[str, Tensor], layers: list[str]) -> Dataflow:
    """Run a tiny model once and note who feeds whom.

    Args:
        model: In evaluation mode, with random weights.
        inputs: What it is called with.
        layers: Full names of the modules that stand in numbered lists.
    """
    flow = Dataflow()
    # Tensors are kept, so that no two of them share an identity.
    residual: dict[int, Tensor] = {}
    normalised: dict[int, Tensor] = {}
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    head = model.get_output_embeddings()

    def before(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name in layers and (given := first_tensor((args, kwargs.get("hidden_states")))) is not None:
            residual[id(given)] = given

    def after(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given, result = first_tensor((args, tuple(kwargs.values()))), first_tensor(output)
        if name in layers and result is not None:
            flow.post_norm |= id(result) in normalised
            residual[id(result)] = result
        if given is None or result is None or not list(module.parameters(recurse=False)):
            return
        calls.append((name, module, given, result))
        if (norm := _as_norm(module, given, result)) is not None:
            flow.norms[kind_of(name)] = norm
            normalised[id(result)] = result
        elif is_matrix(module) and (id(given) in residual or id(given) in normalised):
            flow.reads_residual.add(kind_of(name))

    with _hooks(model, before, after):
        model(**inputs)
    flow.order = [name for name, *_ in calls]
    flow.head = _head_transform(calls, flow.norms)
    for name, module, *_ in calls:
        if module is head:
            break
        flow.before_head = name
    return flow


def _head_transform(calls: list[tuple[str, nn.Module, Tensor, Tensor]], norms: dict[str, Norm]) -> HeadTransform | None:
    for index in range(1, len(calls) - 1):
        (name, module, _, wrote), (norm, _, taken, _) = calls[index], calls[index + 1]
        before = [each for each, *_ in calls[:index] if kind_of(each) in norms]
        stands_alone = is_matrix(module) and "*" not in kind_of(name) and kind_of(norm) in norms
        activation = _activation_between(wrote, taken) if stands_alone else None
        if activation is not None and before:
            return HeadTransform(kind_of(name), activation, kind_of(norm), before[-1])
    return None


def _activation_between(wrote: Tensor, taken: Tensor) -> str | None:
    """Know an activation by what it made of a tensor."""
    if wrote.shape != taken.shape:
        return None
    for name in ("gelu", "gelu_new", "relu", "silu", "quick_gelu", "tanh", "relu2", "linear"):
        if torch.allclose(ACT2FN[name](wrote), taken, rtol=1e-5, atol=1e-6):
            return name
    return None


def first_tensor(value: Any) -> Tensor | None:
    """The first floating-point tensor in what a module takes or returns."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return next((found for each in value if (found := first_tensor(each)) is not None), None)
    return None


@contextmanager
def _hooks(model: nn.Module, before: Any, after: Any) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        handles.append(
            module.register_forward_pre_hook(
                lambda module, args, kwargs, name=name: before(name, module, args, kwargs), with_kwargs=True
            )
        )
        handles.append(
            module.register_forward_hook(
                lambda module, args, kwargs, output, name=name: after(name, module, args, kwargs, output),
                with_kwargs=True,
            )
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_norm(module: nn.Module, given: Tensor, result: Tensor) -> Norm | None:
    """Know a normalisation by its behaviour: its output does not change when its input is scaled."""
    weights = list(module.parameters(recurse=False))
    if any(weight.dim() != 1 for weight in weights) or given.shape != result.shape or list(module.children()):
        return None
    try:
        plain = module.forward(given * 1e3)
        scaled = module.forward(given * 1e6)
        shifted = module.forward(given * 1e3 + 1e3)
    except TypeError:
        return None  # It takes more than a tensor.
    if not isinstance(plain, Tensor) or not torch.allclose(plain, scaled, rtol=1e-3, atol=1e-3):
        return None
    weight = weights[0]
    kept = weight.clone()
    try:
        weight.zero_()
        without = module.forward(given * 1e3)
    finally:
        weight.copy_(kept)
    bias = weights[1] if len(weights) > 1 else 0.0
    adds_one = not torch.allclose(without, torch.zeros_like(without) + bias, atol=1e-3)
    return Norm(centres=torch.allclose(plain, shifted, rtol=1e-2, atol=1e-2), adds_one=adds_one)
