"""Which axis every dimension of every parameter runs along, found by comparing configurations of other sizes.

The class is built on the meta device several times, with sizes that share no factors; a dimension whose sizes are
always three times the hidden size runs three times along the hidden axis. Nothing is tabulated per architecture.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PretrainedConfig, PreTrainedModel

from hf_dwt.remapping.sizes import Sizes, read_sizes
from hf_dwt.remapping.tiny import build_on_meta, tiny_config

# An axis as a parameter sees it: "query" is heads x head_dim, "key_value" is key_value_heads x head_dim, "heads x 3" is
# three entries for every head.
# Multiples of what modelling files ask for: rotary parts of a quarter, grouped products of 16 bytes.
_PROBES = (
    {"heads": 4, "key_value_heads": 2, "head_dim": 16, "intermediate": 144, "vocabulary": 101, "positions": 67},
    {"heads": 12, "key_value_heads": 2, "head_dim": 24, "intermediate": 208, "vocabulary": 127, "positions": 83},
    {"heads": 12, "key_value_heads": 6, "head_dim": 40, "intermediate": 304, "vocabulary": 149, "positions": 97},
    {"heads": 20, "key_value_heads": 10, "head_dim": 16, "intermediate": 368, "vocabulary": 167, "positions": 113},
    {"heads": 16, "key_value_heads": 4, "head_dim": 56, "intermediate": 464, "vocabulary": 191, "positions": 139},
)
_MOST_PARTS = 8


@dataclass(frozen=True)
class Dimension:
    """What one dimension of a parameter is made of.

    Attributes:
        segments: Axes in the order in which they lie in memory; empty where the size never changes.
        offset: Entries before the first segment that never change (RoBERTa's positions start after 2).
    """

    segments: tuple[str, ...]
    offset: int = 0

    def __str__(self) -> str:
        return " + ".join(self.segments) or "fixed"


FIXED = Dimension(())


def kind_of(name: str) -> str:
    """The name of a parameter or module with `*` for the number of its layer, the same for all layers.

    That is the first number in the name; a later one tells what stands in a layer apart (CTRL: `ffn.0`, `ffn.2`).
    """
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name, count=1)


def axis_sizes(sizes: Sizes) -> dict[str, int]:
    """Sizes of the axes that parameters can run along."""
    values = dict(sizes.values)
    values.pop("layers")
    values["query"] = values["heads"] * values["head_dim"]
    values["key_value"] = values["key_value_heads"] * values["head_dim"]
    return values


def find_dimensions(
    model_class: type[PreTrainedModel], config: PretrainedConfig, layers: Sequence[int]
) -> dict[str, tuple[Dimension, ...]]:
    """Find the axes of every kind of parameter.

    Args:
        model_class: The class.
        config: Of a real model.
        layers: One of every sort of its layers, see `tiny.representative_layers`.

    Returns:
        Kind of parameter (see `kind_of`) to its dimensions.

    Raises:
        ValueError: If a dimension follows no axis that is known; it names the parameter.
    """
    observed: list[tuple[dict[str, int], dict[str, tuple[int, ...]]]] = []
    for number in range(len(_PROBES)):
        probe = tiny_config(config, probe_sizes(read_sizes(config), number), layers)
        model = build_on_meta(model_class, probe)
        shapes = {kind_of(name): tuple(value.shape) for name, value in model.state_dict().items()}
        observed.append((axis_sizes(read_sizes(probe)), shapes))
    dimensions = {}
    for kind, shape in observed[0][1].items():
        if any(kind not in shapes or len(shapes[kind]) != len(shape) for _, shapes in observed):
            raise ValueError(f"`{kind}` exists at some sizes of `{model_class.__name__}` only: its axes are not known.")
        dimensions[kind] = tuple(
            _match(kind, [shapes[kind][i] for _, shapes in observed], [sizes for sizes, _ in observed])
            for i in range(len(shape))
        )
    return dimensions


def probe_sizes(sizes: Sizes, number: int, *, apart: bool = True) -> dict[str, int]:
    """Sizes of one probe: equal only where the real ones are equal for a reason.

    Args:
        sizes: The real ones.
        number: Of the probe.
        apart: Whether the width of all heads may differ from the hidden size, and the number of key-value heads from
            that of the heads, though the real ones agree. Some classes can be built so, but not run.
    """
    values = dict(_PROBES[number])
    coupled = sizes["heads"] * sizes["head_dim"] == sizes["hidden"]
    free = sizes.head_dim_is_free and (apart or not coupled)
    if not apart and sizes["key_value_heads"] == sizes["heads"]:
        values["key_value_heads"] = values["heads"]
    values["hidden"] = values["heads"] * (values["head_dim"] + 4 if free else values["head_dim"])
    values["embedding"] = 48 + 32 * number if sizes.get("embedding") != sizes["hidden"] else values["hidden"]
    values["expert"] = values["intermediate"] - 16
    values["shared_expert"] = values["intermediate"] - 32
    values["rotary"] = 8
    return {axis: value for axis, value in values.items() if axis in sizes or axis in ("key_value_heads", "head_dim")}


def _match(kind: str, seen: list[int], sizes: list[dict[str, int]]) -> Dimension:
    if len(set(seen)) == 1:
        return FIXED
    single = [axis for axis in _ORDER if axis in sizes[0]]
    for parts in range(1, _MOST_PARTS + 1):
        for axis in single:
            if all(size == parts * each[axis] for size, each in zip(seen, sizes, strict=True)):
                return Dimension((axis,) * parts)
    for axis in ("heads", "key_value_heads"):
        entries = {size / each[axis] for size, each in zip(seen, sizes, strict=True)}
        if len(entries) == 1 and (entry := entries.pop()).is_integer():
            return Dimension((f"{axis} x {int(entry)}",))
    for segments in _FUSED:
        if all(size == sum(each[axis] for axis in segments) for size, each in zip(seen, sizes, strict=True)):
            return Dimension(segments)
    for axis in ("positions", "vocabulary"):
        rest = {size - each[axis] for size, each in zip(seen, sizes, strict=True) if axis in each}
        if len(rest) == 1 and 0 < (offset := rest.pop()) <= 4:
            return Dimension((axis,), offset)
    raise ValueError(f"A dimension of `{kind}` follows none of the sizes in the configuration: it cannot be grown.")


# Hidden before query: where both are always equal, the flow of data tells them apart, see `dataflow`.
_ORDER = (
    *("hidden", "intermediate", "expert", "shared_expert", "query", "key_value", "head_dim", "vocabulary", "positions"),
    *("embedding", "rotary"),
)
_FUSED: tuple[tuple[str, ...], ...] = (
    ("query", "key_value", "key_value"),
    ("query", "query", "key_value", "key_value"),
    ("query", "head_dim", "head_dim"),
    ("key_value", "key_value", "query"),
)


def numbered(names: Iterable[str]) -> dict[str, set[int]]:
    """Prefixes that are followed by a number, with the numbers seen."""
    found: dict[str, set[int]] = {}
    for name in names:
        for match in re.finditer(r"\.(\d+)(?=\.|$)", name):
            found.setdefault(name[: match.start()], set()).add(int(match.group(1)))
    return found
