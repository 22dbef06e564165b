"""How a stack of layers grows: which old layer each new one comes from, and layers that change nothing."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

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
    sources = interleave(num_old, num_new)
    return [Layer(source, index > 0 and source == sources[index - 1]) for index, source in enumerate(sources)]


def repeat_last(num_old: int, num_new: int) -> list[int]:
    """The old layers, then the last one again and again: the remapping of the paper (Lee et al., 2023, section 3.3)."""
    return [min(index, num_old - 1) for index in range(num_new)]


def stack(num_old: int, num_new: int) -> list[int]:
    """The whole stack again and again."""
    return [index % num_old for index in range(num_new)]


def interleave(num_old: int, num_new: int) -> list[int]:
    """Every old layer, followed by its share of copies, which are spread evenly."""
    return [index * num_old // num_new for index in range(num_new)]


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


def affine_source(layers: Sequence[Layer], number: int) -> int | None:
    """The teacher's layer whose weight and bias end a layer that normalises last; None if it only normalises.

    Such a layer gives y = g * n + b, where n is normalised. A silenced layer behind it that is given n makes n of it
    again, whatever g is. So n is handed on, and the last of the silenced layers gets g and b.

    Args:
        layers: Of the student.
        number: Which of them.

    Raises:
        ValueError: If a layer that changes nothing has no other layer before it.
    """
    if number + 1 < len(layers) and layers[number + 1].identity:
        return None
    while number >= 0 and layers[number].identity:
        number -= 1
    if number < 0:
        raise ValueError("Where layers normalise last, the first one cannot be a layer that changes nothing.")
    return layers[number].source
