"""A plan carried out, one tensor at a time."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from math import sqrt

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_dwt.remapping.anatomy import BY_HEADS, Anatomy, Part
from hf_dwt.remapping.axes import Dimension, axis_sizes, kind_of
from hf_dwt.remapping.blocks import Blocks
from hf_dwt.remapping.depth import Layer, affine_source
from hf_dwt.remapping.near import NearWidth
from hf_dwt.remapping.plan import GrowthPlan
from hf_dwt.remapping.shares import Shares
from hf_dwt.remapping.sizes import read_sizes
from hf_dwt.remapping.width import (
    WIDTH_METHODS,
    Expansion,
    Fill,
    fused,
    generator_for,
    head_entries,
    head_sources,
    per_entry,
    read,
    scale_norm,
    units,
    write,
)

_TABLES = ("vocabulary", "positions")

# Questions that belong to a whole model.
EMBEDDING_SCALE = "multiplier of the embeddings"
ROOT = "root of the width"
HEAD_ENTRIES = "entries of a head"
RANDOM_ENTRIES = "writes new entries of a head at random"


class Growth:
    """Computes the student's parameters from the teacher's.

    Args:
        plan: What to do.
        anatomy: Of the class.
        teacher_tensor: Reads a parameter of the teacher by name, on whatever device.
    """

    def __init__(self, plan: GrowthPlan, anatomy: Anatomy, teacher_tensor: Callable[[str], Tensor]) -> None:
        self.plan, self.anatomy, self._teacher_tensor = plan, anatomy, teacher_tensor
        old, new = plan.configs()
        self.old, self.new = read_sizes(old), read_sizes(new)

    @cached_property
    def blocks(self) -> Blocks:
        """What a layer is made of."""
        return Blocks(self.anatomy, self.plan.choices)

    @cached_property
    def near(self) -> NearWidth | None:
        """What makes up for units that a norm would mix with the old ones; None where none are new."""
        hidden = self.expansions["hidden"]
        if self.plan.width_method != "near" or not hidden.new.any():
            return None
        num_new, helpers = int(hidden.new.sum()), self.expansions.get("intermediate")
        return NearWidth(self.blocks, self._in_full, num_new, self.old["layers"], helpers)

    @cached_property
    def expansions(self) -> dict[str, Expansion]:
        """How each axis grows."""
        method = WIDTH_METHODS[self.plan.width_method]
        old, new = axis_sizes(self.old), axis_sizes(self.new)
        heads = head_sources(method, (old["heads"], old["key_value_heads"]), (new["heads"], new["key_value_heads"]))
        within, gain = head_entries(self.plan.choices.get(HEAD_ENTRIES), old["head_dim"], new["head_dim"])
        grown = {
            "query": per_entry(heads[0], old["heads"], within, old["head_dim"], gain),
            "key_value": per_entry(heads[1], old["key_value_heads"], within, old["head_dim"], gain),
        }
        for axis in {
            axis for part in self.anatomy.parts.values() for each in part.dimensions for axis in each.segments
        }:
            name, _, entries = axis.partition(" x ")
            if entries:
                sources = heads[name == "key_value_heads"]
                grown[axis] = per_entry(sources, old[name], range(int(entries)), int(entries), 1.0)
        centres = any(norm.centres for norm in self.anatomy.flow.norms.values())
        for axis, size in old.items():
            if axis in ("hidden", "embedding"):
                # What a norm writes straight to the residual stream is not 0 at the new units.
                full = self.anatomy.flow.post_norm or self.blocks.embedding_norm is not None
                reads: Fill = "zero" if full and self.plan.width_method == "near" else "random"
                grown[axis] = units(method, axis, size, new[axis], "mean" if centres else "zero", reads)
            elif axis in _TABLES:
                rows = [index if index < size else -1 for index in range(new[axis])]
                grown[axis] = Expansion(torch.tensor(rows), size, "mean", "zero")
            elif axis not in grown:
                grown[axis] = units(method, axis, size, new[axis], "random", "zero")
        return grown

    def tensor(self, name: str) -> Tensor:
        """Compute a parameter of the student, in float32 or the teacher's precision if that is higher.

        Raises:
            KeyError: If the layer that it would come from has no such parameter.
        """
        number, layer = self._layer(name)
        if number is None or layer is None:
            return self._grown(name, name)
        affine = affine_source(self.plan.layers, number) if self._is_last_norm(name) else None
        source = self._named(name, layer.source if affine is None else affine)
        grown = self._grown(source, name)
        if self.plan.width_method == "aki" and layer.source + 1 < self.old["layers"]:
            grown = self._with_next_layer(grown, self._named(name, layer.source + 1), name)
        return self._silent(grown, name) if self._is_silent(name) else grown

    def _layer(self, name: str) -> tuple[int | None, Layer | None]:
        for prefix in self.anatomy.layers:
            if name.startswith(prefix + "."):
                number = int(name[len(prefix) + 1 :].partition(".")[0])
                return number, self.plan.layers[number]
        return None, None

    def _named(self, name: str, layer: int) -> str:
        prefix = next(each for each in self.anatomy.layers if name.startswith(each + "."))
        rest = name[len(prefix) + 1 :].partition(".")[2]
        return f"{prefix}.{layer}.{rest}"

    def _in_full(self, name: str) -> Tensor:
        tensor = self._teacher_tensor(name).cpu()
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

    def _grown(self, source: str, name: str) -> Tensor:
        grown = self._expanded(source, name)
        return grown if self.near is None else self.near.adjusted(grown, source)

    def _expanded(self, source: str, name: str) -> Tensor:
        part = self.anatomy.part(kind_of(name), self.plan.choices)
        tensor = self._in_full(source)
        generator = generator_for(self.plan.seed, name)
        is_table = kind_of(name) == self.anatomy.embeddings or (
            self.anatomy.tied and kind_of(name) == self.anatomy.head
        )
        if is_table and self.plan.choices.get(EMBEDDING_SCALE) == ROOT:
            tensor = tensor / self._embedding_factor
        if part.norm is not None and part.roles == ("norm",):
            axis = self._expansion(part.dimensions[0], part)
            if axis is not None:
                tensor = scale_norm(tensor, axis, part.norm.adds_one, sqrt(axis.norm_share))
            return self._for_head(tensor, name, part)
        for dim, (dimension, role) in enumerate(zip(part.dimensions, part.roles, strict=True)):
            axis = self._expansion(dimension, part)
            if axis is None:
                continue
            if role == "read":
                tensor = read(tensor, dim, axis, self.plan.noise, generator)
            elif part.norm is not None:
                tensor = write(tensor, dim, Expansion(axis.source, axis.num_old), generator)
            else:
                if self.plan.choices.get(RANDOM_ENTRIES) == part.module:
                    axis = replace(axis, written="random")
                tensor = write(tensor, dim, axis, generator)
        return self._for_head(tensor, name, part)

    def _expansion(self, dimension: Dimension, part: Part) -> Expansion | None:
        """How a dimension grows, None if it does not."""
        segments = [self.expansions[axis] for axis in dimension.segments]
        if all(each.num_old == len(each.source) for each in segments):
            return None
        if dimension.offset:
            table = segments[0]
            source = torch.cat(
                [torch.arange(dimension.offset), torch.where(table.new, -1, table.source + dimension.offset)]
            )
            return Expansion(source, table.num_old + dimension.offset, table.written, table.read)
        if len(segments) == 1:
            return segments[0]
        by_heads = part.layout is not None and self.plan.choices.get(part.layout) == BY_HEADS
        old, new = self._groups(dimension) if by_heads else (1, 1)
        return fused(segments, old, new)

    def _groups(self, dimension: Dimension) -> tuple[int, int]:
        axes = set(dimension.segments)
        counted = {"query": "heads", "key_value": "key_value_heads"}
        name = "key_value_heads" if "key_value" in axes else counted.get(dimension.segments[0], dimension.segments[0])
        return axis_sizes(self.old)[name], axis_sizes(self.new)[name]

    @cached_property
    def _embedding_factor(self) -> float:
        return sqrt(self.new["hidden"] / self.old["hidden"])

    def _for_head(self, tensor: Tensor, name: str, part: Part) -> Tensor:
        """Divide what feeds a tied head, which reads the copies of a unit without sharing them out."""
        flow = self.anatomy.flow
        if not self.anatomy.tied or flow.before_head is None or kind_of(flow.before_head) != part.module:
            return tensor
        number, _ = self._layer(name)
        if number is not None and number != len(self.plan.layers) - 1:
            return tensor
        feature = self.expansions[self.anatomy.parts[self.anatomy.embeddings].dimensions[1].segments[0]]
        factor = feature.num_old / int((~feature.new).sum())
        if self.plan.choices.get(EMBEDDING_SCALE) == ROOT:
            factor *= self._embedding_factor
        if factor == 1:
            return tensor
        if part.norm is not None and part.norm.adds_one and part.roles == ("norm",):
            return (tensor + 1) * factor - 1
        return tensor * factor

    def _with_next_layer(self, grown: Tensor, following: str, name: str) -> Tensor:
        """Take the rows of new units from the layer above (AKI of bert2BERT)."""
        part = self.anatomy.part(kind_of(name), self.plan.choices)
        for dim, (dimension, role) in enumerate(zip(part.dimensions, part.roles, strict=True)):
            axis = self._expansion(dimension, part) if role == "write" and part.norm is None else None
            if axis is not None:
                above = self._grown(following, name)
                shape = [1] * grown.dim()
                shape[dim] = -1
                return torch.where(axis.added.reshape(shape), above, grown)
        return grown

    def _is_last_norm(self, name: str) -> bool:
        return self.anatomy.flow.post_norm and kind_of(name.rpartition(".")[0]) == self.blocks.norms[-1]

    def _is_silent(self, name: str) -> bool:
        """Whether a parameter adds nothing to the residual stream, or a norm of it only normalises."""
        number, layer = self._layer(name)
        if number is None or layer is None:
            return False
        if self._is_last_norm(name):
            return affine_source(self.plan.layers, number) is None
        module = kind_of(name.rpartition(".")[0])
        norms = self.blocks.norms if self.anatomy.flow.post_norm else []
        return layer.identity and module in [*self.blocks.residual_writers, *norms]

    def _silent(self, grown: Tensor, name: str) -> Tensor:
        part = self.anatomy.part(kind_of(name), self.plan.choices)
        if part.norm is not None and part.roles == ("norm",) and not part.norm.adds_one:
            return torch.ones_like(grown)
        return torch.zeros_like(grown)

    def shares(self, name: str) -> Shares:
        """Where the entries of a parameter come from."""
        part = self.anatomy.part(kind_of(name), self.plan.choices)
        if self._is_silent(name):
            return Shares(0.0, 0.0, 1.0)
        known, whole = 1.0, 1.0
        for dimension, role in zip(part.dimensions, part.roles, strict=True):
            axis = self._expansion(dimension, part)
            if axis is not None:
                known *= axis.norm_share
                alone = ((axis.copies == 1) & ~axis.new) if role == "read" else ~axis.new
                whole *= float(alone.double().mean())
        return Shares(whole, known - whole, 1 - known)


@torch.no_grad()
def fill(student: PreTrainedModel, growth: Growth) -> None:
    """Compute every parameter of a student, one tensor at a time, cast last; copy the buffers that are saved.

    Raises:
        ValueError: If the layer that a parameter would come from has none of its name.
    """
    saved = set(student.state_dict())
    buffers = {name: buffer for name, buffer in student.named_buffers() if name in saved}
    for name, target in {**dict(student.named_parameters()), **buffers}.items():
        try:
            target.copy_(growth.tensor(name))
        except KeyError as error:
            raise ValueError(
                f"`{name}` of the student has nothing to come from: the teacher has no {error}. Its layers are not all "
                "of one sort; a wrapper around the teacher may also rename its weights."
            ) from error
