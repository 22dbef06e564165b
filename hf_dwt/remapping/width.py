"""How an axis grows: where each new unit comes from, and what that means for the weights on both of its sides.

Legend: D old units, D' new ones. A weight that writes to an axis has one row per unit, a weight that reads from it one
column. Writing copies rows; reading divides what the copies of a unit receive among them, so that the sum stays.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from hf_dwt.remapping.registry import Registry

NEW = -1
Fill = Literal["zero", "mean", "random"]
UnitSources = Callable[[str, int, int], Sequence[int]]


@dataclass(frozen=True)
class Expansion:
    """The growth of one axis.

    Attributes:
        source: Old unit that each new one comes from, `NEW` where there is none; shape (D',).
        num_old: D.
        written: What a weight writes to units that are new.
        read: How a weight reads units that are new: at random where they are written as 0, not at all where they are
            written at random.
        gain: What is written is multiplied by it, what is read divided.
    """

    source: Tensor
    num_old: int
    written: Fill = "zero"
    read: Fill = "random"
    gain: float = 1.0

    @cached_property
    def new(self) -> Tensor:
        """Which units are new, shape (D',)."""
        return self.source == NEW

    @cached_property
    def copies(self) -> Tensor:
        """How many units come from the same old one as this unit, shape (D',); 1 for new units."""
        counts = torch.bincount(self.source[~self.new], minlength=self.num_old)
        return torch.where(self.new, 1, counts[self.source.clamp(min=0)])

    @cached_property
    def added(self) -> Tensor:
        """Which units are not the first that comes from an old one, shape (D',); copies need not lie behind all old."""
        order, source = torch.arange(len(self.source)), self.source.clamp(min=0)
        first = torch.full((self.num_old,), len(order))
        first = first.scatter_reduce(0, source[~self.new], order[~self.new], "amin")
        return self.new | (order != first[source])

    @property
    def norm_share(self) -> float:
        """Share of the units that is not 0: by it a mean of squares shrinks."""
        return float((~self.new).sum()) / len(self.source)


def units(method: UnitSources, axis: str, num_old: int, num_new: int, written: Fill, read: Fill) -> Expansion:
    """Grow an axis of single units."""
    source = torch.tensor(list(method(axis, num_old, num_new)), dtype=torch.long)
    if len(source) != num_new or source.min() < NEW or source.max() >= num_old:
        raise ValueError(
            f"A width method must name {num_new} sources between {NEW} and {num_old - 1} for the axis {axis!r}, "
            f"got {len(source)} between {int(source.min())} and {int(source.max())}."
        )
    return Expansion(source, num_old, written, read)


def hidden_share(method: str, num_old: int, num_new: int) -> float:
    """Share of the hidden units of the student that come from the teacher's: the others are 0 after every norm."""
    return units(WIDTH_METHODS[method], "hidden", num_old, num_new, "zero", "random").norm_share


def head_sources(
    method: UnitSources, num_old: tuple[int, int], num_new: tuple[int, int]
) -> tuple[list[int], list[int]]:
    """Sources of query heads and of key-value heads: a query head stays with the key-value head it asks.

    Args:
        method: Asked for the axes "key_value_heads" and "group" (the query heads of one key-value head).
        num_old: Query heads and key-value heads.
        num_new: The same of the student.
    """
    (heads, groups), (new_heads, new_groups) = num_old, num_new
    members, new_members = heads // groups, new_heads // new_groups
    if new_members >= members:
        group_source = list(method("key_value_heads", groups, new_groups))
        member_source = list(method("group", members, new_members))
        query = [
            NEW if NEW in (group, member) else group * members + member
            for group in group_source
            for member in member_source
        ]
        return query, group_source
    # Groups get smaller: an old group is dealt to several new ones, which share copies of its key-value head.
    parts = -(-members // new_members)
    if parts * groups > new_groups:
        raise ValueError(
            f"{new_heads} query heads on {new_groups} key-value heads cannot hold the teacher's {heads} on {groups}: "
            f"give at least {parts * groups} key-value heads, or at least {members} query heads for each."
        )
    group_source = [index // parts if index < parts * groups else NEW for index in range(new_groups)]
    query = [NEW] * new_heads
    for head in range(heads):
        group, member = divmod(head, members)
        query[(group * parts + member // new_members) * new_members + member % new_members] = head
    return query, group_source


HEAD_ANSWERS = ("copies", "new entries last", "pairs of halves", "pairs of neighbours")


def head_entries(answer: str | None, old: int, new: int) -> tuple[list[int], float]:
    """Sources of the entries of one head, and the gain that keeps scores what they were.

    A score is divided by the root of the size of a head. Queries, keys and values are all multiplied by the gain, so
    that it enters scores squared; what reads the values divides by it.

    Args:
        answer: One of `HEAD_ANSWERS`. Rotary positions turn pairs of entries, at a rate that depends on where the pair
            lies: it moves to where the larger head has the same rate.
        old: Entries of a head of the teacher.
        new: Of the student.
    """
    times = new // old
    if new == old:
        return list(range(old)), 1.0
    if answer == "copies":
        return copied("head_dim", old, new), times**-0.25
    within = [NEW] * new
    for entry in range(old):
        if answer == "pairs of halves":
            half, place = divmod(entry, old // 2)
            within[half * (new // 2) + place * times] = entry
        elif answer == "pairs of neighbours":
            within[entry // 2 * 2 * times + entry % 2] = entry
        else:
            within[entry] = entry
    return within, (new / old) ** 0.25


def per_entry(heads: Sequence[int], num_old_heads: int, within: Sequence[int], head_dim: int, gain: float) -> Expansion:
    """Grow an axis of whole heads.

    Args:
        heads: Source of each new head.
        num_old_heads: Old heads.
        within: Source of each entry of a new head.
        head_dim: Entries of an old head.
        gain: See `Expansion`.
    """
    source = [NEW if NEW in (head, entry) else head * head_dim + entry for head in heads for entry in within]
    # Queries and keys are multiplied with each other: new entries of a head cannot be random in both.
    if NEW in within:
        return Expansion(torch.tensor(source), num_old_heads * head_dim, "zero", "random", gain)
    return Expansion(torch.tensor(source), num_old_heads * head_dim, "random", "zero", gain)


def fused(segments: Sequence[Expansion], old_groups: int, new_groups: int) -> Expansion:
    """Join axes that lie in one dimension, in so many groups of one chunk of each segment (1: one after the other)."""
    old_sizes = [each.num_old for each in segments]
    new_sizes = [len(each.source) for each in segments]
    starts = [sum(old_sizes[:index]) for index in range(len(segments))]
    position = torch.empty(sum(old_sizes), dtype=torch.long)
    position[_memory_order(old_sizes, old_groups)] = torch.arange(sum(old_sizes))
    sources = torch.cat(
        [torch.where(each.new, NEW, each.source + start) for each, start in zip(segments, starts, strict=True)]
    )[_memory_order(new_sizes, new_groups)]
    sources = torch.where(sources == NEW, NEW, position[sources.clamp(min=0)])
    first = segments[0]
    return Expansion(sources, sum(old_sizes), first.written, first.read, first.gain)


def _memory_order(sizes: Sequence[int], groups: int) -> Tensor:
    """Entries of the segments, numbered one segment after the other, in the order in which they lie in memory."""
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    chunks = [
        (torch.arange(size) + start).reshape(groups, -1) for size, start in zip(sizes, starts, strict=True) if size
    ]
    return torch.cat(chunks, dim=1).flatten()


def write(tensor: Tensor, dim: int, axis: Expansion, generator: torch.Generator) -> Tensor:
    """Grow a dimension by which a weight writes."""
    grown = _select(tensor, dim, axis)
    if axis.gain != 1:
        grown = grown * axis.gain
    # A bias has nothing to be random about.
    fill: Fill = "zero" if tensor.dim() == 1 and axis.written == "random" else axis.written
    return _filled(grown, dim, axis.new, fill, tensor, generator)


def read(tensor: Tensor, dim: int, axis: Expansion, noise: float, generator: torch.Generator) -> Tensor:
    """Grow a dimension by which a weight reads.

    Copies of a unit share its weight. Noise that sums to 0 over the copies, different in every row,
    breaks their symmetry and changes no output; `noise` is in standard deviations of the weight.
    """
    shape = [1] * tensor.dim()
    shape[dim] = -1
    grown = _select(tensor, dim, axis) / (axis.copies.to(tensor.dtype) * axis.gain).reshape(shape)
    if noise and int(axis.copies.max()) > 1:
        drawn = torch.randn(grown.shape, generator=generator, dtype=grown.dtype) * (noise * _spread(tensor))
        source, old = axis.source.clamp(min=0), list(grown.shape)
        old[dim] = axis.num_old
        sums = grown.new_zeros(old).index_add(dim, source, drawn.masked_fill(axis.new.reshape(shape), 0))
        grown = grown + drawn - sums.index_select(dim, source) / axis.copies.to(grown.dtype).reshape(shape)
    return _filled(grown, dim, axis.new, axis.read, tensor, generator)


def scale_norm(tensor: Tensor, axis: Expansion, adds_one: bool, factor: float) -> Tensor:
    """Grow the weight of a normalisation and multiply it; `adds_one` as in `dataflow.Norm`."""
    weight = tensor + 1 if adds_one else tensor
    grown = torch.where(axis.new, weight.mean(), weight[axis.source.clamp(min=0)]) * factor
    return grown - 1 if adds_one else grown


def _select(tensor: Tensor, dim: int, axis: Expansion) -> Tensor:
    return tensor.index_select(dim, axis.source.clamp(min=0))


def _filled(grown: Tensor, dim: int, new: Tensor, fill: Fill, old: Tensor, generator: torch.Generator) -> Tensor:
    if not new.any():
        return grown
    shape = [1] * grown.dim()
    shape[dim] = -1
    mask = new.reshape(shape)
    if fill == "zero":
        return grown.masked_fill(mask, 0.0)
    if fill == "mean":
        return torch.where(mask, _mean_of_old(grown, dim, new), grown)
    drawn = torch.randn(grown.shape, generator=generator, dtype=grown.dtype) * _spread(old)
    return torch.where(mask, drawn, grown)


def _mean_of_old(grown: Tensor, dim: int, new: Tensor) -> Tensor:
    kept = (~new).nonzero().flatten()
    return grown.index_select(dim, kept).mean(dim, keepdim=True)


def _spread(tensor: Tensor) -> float:
    return float(tensor.std(correction=0)) if tensor.numel() else 0.0


def generator_for(seed: int, name: str) -> torch.Generator:
    """Random numbers of one tensor, the same whatever else is grown, and in whatever order."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def copied(axis: str, num_old: int, num_new: int) -> list[int]:
    """Every unit again and again."""
    return [index % num_old for index in range(num_new)]


def extended(axis: str, num_old: int, num_new: int) -> list[int]:
    """The old units, then new ones."""
    return [index if index < num_old else NEW for index in range(num_new)]


def exact(axis: str, num_old: int, num_new: int) -> list[int]:
    """Copies where the axis grows by a whole factor, new units after the old ones otherwise."""
    return copied(axis, num_old, num_new) if num_new % num_old == 0 else extended(axis, num_old, num_new)


def near(axis: str, num_old: int, num_new: int) -> list[int]:
    """As `exact` for the hidden units; new feed-forward units, which help the norms, see `near`."""
    return exact(axis, num_old, num_new) if axis == "hidden" else extended(axis, num_old, num_new)


# `aki` also copies: what sets it apart is which layer the copies are taken from, see `growth`.
WIDTH_METHODS: Registry[UnitSources] = Registry(
    "width method",
    {
        "exact": exact,
        "near": near,
        "fpi": copied,
        "aki": copied,
        "pad": extended,
    },
)


def register_width_method(name: str) -> Callable[[UnitSources], UnitSources]:
    """Make a width method of your own known by a name.

    The function is called as `method(axis, num_old, num_new)` and returns the old unit that each new one is a copy of,
    -1 where it is new. The weights follow: copies share what the old unit was read with; new hidden units are written
    as 0 (with LayerNorm: the mean), other new units are not read.

    Raises:
        ValueError: If the name is that of a built-in method.

    Example:
        >>> @register_width_method("mirrored")
        ... def mirrored(axis: str, num_old: int, num_new: int) -> list[int]:
        ...     there_and_back = [*range(num_old), *reversed(range(num_old))]
        ...     return [there_and_back[unit % (2 * num_old)] for unit in range(num_new)]
        >>> mirrored("hidden", 2, 6)
        [0, 1, 1, 0, 0, 1]
    """
    return WIDTH_METHODS.register(name)
