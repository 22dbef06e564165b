"""How a stack of layers grows: which old layer each new one comes from, and layers that change nothing."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_dwt.remapping.registry import Registry


@dataclass(frozen=True)
class Layer:
    """A layer of the student.

    Attributes:
        source: Layer of the teacher that it comes from.
        identity: Whether it passes on what it is given, so that the depth changes no output.
    """

    source: int
    identity: bool = False


DepthMethod = Callable[[int, int], Sequence[Layer | int]]


def identity(num_old: int, num_new: int) -> list[Layer]:
    """Every old layer, followed by its share of new ones that change nothing (LLaMA Pro spreads them so)."""
    sources = [index * num_old // num_new for index in range(num_new)]
    return [Layer(source, index > 0 and source == sources[index - 1]) for index, source in enumerate(sources)]


def repeat_last(num_old: int, num_new: int) -> list[int]:
    """The old layers, then the last one again and again: the remapping of the paper (Lee et al., 2023, section 3.3)."""
    return [min(index, num_old - 1) for index in range(num_new)]


def stack(num_old: int, num_new: int) -> list[int]:
    """The whole stack again and again."""
    return [index % num_old for index in range(num_new)]


def interleave(num_old: int, num_new: int) -> list[int]:
    """Every layer as often as it goes, next to its copies."""
    each = -(-num_new // num_old)
    return [min(index // each, num_old - 1) for index in range(num_new)]


def spread(num_old: int, num_new: int) -> list[int]:
    """Each new layer from the old one at the same relative depth."""
    return [int((index + 0.5) * num_old / num_new) for index in range(num_new)]


DEPTH_METHODS: Registry[DepthMethod] = Registry(
    "depth method",
    {
        "identity": identity,
        "repeat_last": repeat_last,
        "stack": stack,
        "interleave": interleave,
        "spread": spread,
    },
)


def register_depth_method(name: str) -> Callable[[DepthMethod], DepthMethod]:
    """Make a depth method of your own known by a name.

    The function is called as `method(num_old, num_new)` and returns, for each new layer, the old one that it comes
    from, as a number or as a `Layer`.

    Raises:
        ValueError: If the name is that of a built-in method.

    Example:
        >>> @register_depth_method("repeat_first")
        ... def repeat_first(num_old: int, num_new: int) -> list[int]:
        ...     return [max(0, layer - (num_new - num_old)) for layer in range(num_new)]
    """
    return DEPTH_METHODS.register(name)


def layer_map(name: str, num_old: int, num_new: int) -> tuple[Layer, ...]:
    """Where the layers of the student come from; a stack that does not grow stays as it is.

    Raises:
        ValueError: If there is no such method, or it names layers that do not exist.
    """
    if num_new == num_old:
        return tuple(Layer(index) for index in range(num_old))
    if name not in DEPTH_METHODS:
        raise ValueError(f"There is no depth method {name!r}. Known: {', '.join(DEPTH_METHODS)}.")
    layers = tuple(each if isinstance(each, Layer) else Layer(each) for each in DEPTH_METHODS[name](num_old, num_new))
    if len(layers) != num_new or not all(0 <= each.source < num_old for each in layers):
        raise ValueError(
            f"The depth method {name!r} must name {num_new} of the layers 0 to {num_old - 1}, got "
            f"{[each.source for each in layers]}."
        )
    return layers


def with_fitting_sources(
    layers: Sequence[Layer], theirs: Sequence[AbstractSet[str]], ours: Sequence[AbstractSet[str]]
) -> tuple[Layer, ...]:
    """Let each layer that changes nothing come from the nearest one that is made of the same parameters.

    ModernBERT's first layer has no norm before its attention, but a copy that stands second needs one.

    Args:
        layers: Of the student.
        theirs: What the parameters of each layer of the teacher are called within it.
        ours: The same of the student.
    """
    fitting = []
    for layer, needed in zip(layers, ours, strict=True):
        sources = [source for source, names in enumerate(theirs) if names == needed] if layer.identity else []
        nearest = min(sources, key=lambda source: abs(source - layer.source), default=layer.source)
        fitting.append(replace(layer, source=nearest))
    return tuple(fitting)


@dataclass(frozen=True)
class PostNormBlock:
    """The modules of a layer that normalises after its residual sums, by kind (see `axes.kind_of`).

    Attributes:
        attention_out: Writes what attention found.
        attention_norm: Normalises after it.
        up: Reads for the feed-forward units.
        down: Writes what they found.
        norm: Normalises at the end.
    """

    attention_out: str
    attention_norm: str
    up: str
    down: str
    norm: str


def post_norm_identity(
    block: PostNormBlock, module: str, is_bias: bool, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor
) -> Tensor:
    """A parameter of a layer that passes on y = g * n + b, what the normalisation before it wrote.

    Attention adds -b, and its own norm, with weight 1 and bias 0, makes z = (g * n - mean) / s of the rest. n has mean
    0, so that n / s = L z with L = diag(1/g) - (1/g)(1/g)^T / sum(1/g). The feed-forward units add (L - I) z, two units
    for each entry, since act(u) - act(-u) = u for ReLU, GELU and SiLU. The last norm is the one before.

    Args:
        block: The layer's modules.
        module: Which of them the parameter belongs to.
        is_bias: Whether it is the bias and not the weight, whose shape is (out, in).
        weight: The parameter of the layer it was copied from, grown.
        norm_weight: g, shape (hidden,).
        norm_bias: b, shape (hidden,).
    """
    hidden = len(norm_weight)
    zero = torch.zeros_like(weight)
    if module == block.attention_out:
        return -norm_bias.to(weight.dtype) if is_bias else zero
    if module == block.attention_norm:
        return zero if is_bias else torch.ones_like(weight)
    if module == block.up:
        if is_bias:
            return weight.index_fill(0, torch.arange(2 * hidden), 0.0)
        unit = torch.eye(hidden, dtype=weight.dtype)
        return torch.cat([unit, -unit, weight[2 * hidden :]])
    if module == block.down:
        if is_bias:
            return zero
        inverse = 1 / norm_weight.double()
        linear = torch.diag(inverse) - torch.outer(inverse, inverse) / inverse.sum() - torch.eye(hidden)
        zero[:, :hidden], zero[:, hidden : 2 * hidden] = linear, -linear
        return zero
    return weight
