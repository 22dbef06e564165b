"""What a class of models is made of: the axes of every parameter, and on which side of each axis it stands."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_dwt.remapping.axes import Dimension, find_dimensions, kind_of, numbered, probe_sizes
from hf_dwt.remapping.dataflow import Dataflow, Norm, is_matrix, watch
from hf_dwt.remapping.sizes import read_sizes
from hf_dwt.remapping.tiny import build_on_meta, build_random, random_inputs, representative_layers, tiny_config

# write: a row per unit; read: a column per unit; rows: one row per token or position; norm: the weight of a norm.
Role = Literal["write", "read", "rows", "norm"]
Choices = Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """One parameter of every layer.

    Attributes:
        dimensions: Axes of its dimensions.
        roles: Roles of its dimensions.
        module: Kind of the module that owns it.
        norm: If it belongs to a normalisation, which.
        orientation: The question which of its last two dimensions reads, None where that is known.
        layout: The question how the segments of a fused dimension lie, None where there is one segment.
    """

    dimensions: tuple[Dimension, ...]
    roles: tuple[Role, ...]
    module: str
    norm: Norm | None = None
    orientation: str | None = None
    layout: str | None = None


@dataclass(frozen=True)
class Anatomy:
    """What a class of models is made of.

    Attributes:
        parts: Kind of parameter (see `axes.kind_of`) to what it is.
        layers: Prefixes of the module lists that get longer with the number of layers; empty where layers are shared.
        flow: Who feeds whom.
        tied: Whether the output embeddings are the input embeddings.
        embeddings: Kind of the input embeddings' weight.
        head: Kind of the output embeddings' weight, None for a model without a head.
        options: What shapes and dataflow leave open: kind to its possible answers, the likeliest first.
    """

    parts: Mapping[str, Part]
    layers: tuple[str, ...]
    flow: Dataflow
    tied: bool
    embeddings: str
    head: str | None
    options: Mapping[str, tuple[str, ...]]

    def part(self, kind: str, choices: Choices) -> Part:
        """What a kind of parameter is, with the answers in `choices` to what was open."""
        # A tied weight is one table, whichever of its names it goes by (XLM-R: the head's).
        part = self.parts[self.embeddings if self.tied and kind == self.head else kind]
        if part.orientation is None or part.orientation not in choices:
            return part
        return replace(part, roles=(*part.roles[:-2], *_ORIENTATIONS[choices[part.orientation]]))


BY_HEADS = "by heads"
_LAYOUTS = ("one after the other", BY_HEADS)
_ORIENTATIONS: dict[str, tuple[Role, Role]] = {
    "out x in": ("write", "read"),
    "in x out": ("read", "write"),
    "out x out": ("write", "write"),
}


def find_anatomy(model_class: type[PreTrainedModel], config: PretrainedConfig) -> Anatomy:
    """Take a class apart: by shapes, then by watching a tiny model of it run.

    Raises:
        ValueError: If some parameter's axes cannot be found, or no tiny model of the class can be run.
    """
    try:
        return _taken_apart(model_class, config)
    except Exception as error:  # A modelling file may raise anything.
        raise ValueError(f"`{model_class.__name__}` cannot be taken apart: {error}") from error


def _taken_apart(model_class: type[PreTrainedModel], config: PretrainedConfig) -> Anatomy:
    kept = representative_layers(model_class, config)
    dimensions = find_dimensions(model_class, config, kept)
    layers = _layer_lists(model_class, config, kept)
    model = build_random(model_class, _probe(config, kept))
    modules = dict(model.named_modules())
    names = [
        name for name, module in modules.items() if name.rpartition(".")[2].isdecimal() and list(module.children())
    ]
    flow = watch(model, random_inputs(model.config.get_text_config().vocab_size), names)
    head = model.get_output_embeddings()
    embeddings = model.get_input_embeddings()
    heads_show = any(set(each.segments) == {"query"} for shape in dimensions.values() for each in shape)
    parts: dict[str, Part] = {}
    options: dict[str, tuple[str, ...]] = {}
    for name, parameter in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        kind = kind_of(name)
        if kind not in dimensions or kind in parts:
            continue
        owner = name.rpartition(".")[0]
        norm = flow.norms.get(kind_of(owner))
        roles: tuple[Role, ...] = _roles(modules[owner], parameter)
        part = Part(dimensions[kind], ("norm",) if norm and name.endswith(".weight") else roles, kind_of(owner), norm)
        told = _told_apart(part, modules[owner], kind, flow)
        part = part if heads_show and part.module in flow.reads_residual else told
        parts[kind] = _with_questions(part, modules[owner])
    for part in parts.values():
        options.update({question: _LAYOUTS for question in [part.layout] if question})
        options.update({question: tuple(_ORIENTATIONS) for question in [part.orientation] if question})
    tied = head is not None and embeddings is not None and head.weight is embeddings.weight
    owners = {module: f"{kind_of(name)}.weight" for name, module in modules.items()}
    return Anatomy(parts, layers, flow, tied, owners[embeddings], owners.get(head), options)


def _probe(config: PretrainedConfig, layers: list[int]) -> PretrainedConfig:
    return tiny_config(config, probe_sizes(read_sizes(config), 0, apart=False), layers)


def _layer_lists(model_class: type[PreTrainedModel], config: PretrainedConfig, kept: list[int]) -> tuple[str, ...]:
    counts = []
    for layers in (kept, [*kept, kept[-1]]):
        found = numbered(build_on_meta(model_class, _probe(config, layers)).state_dict())
        counts.append(({prefix: len(numbers) for prefix, numbers in found.items()}, len(layers)))
    (few, num_few), (many, num_many) = counts
    return tuple(
        prefix for prefix, count in many.items() if count == num_many and few.get(prefix) == num_few != num_many
    )


def _roles(module: nn.Module, parameter: torch.Tensor) -> tuple[Role, ...]:
    if isinstance(module, nn.Embedding):
        return ("rows", "write")
    if parameter.dim() == 2 and isinstance(module, Conv1D):
        return ("read", "write")
    if parameter.dim() == 2 and isinstance(module, nn.Linear):
        return ("write", "read")
    return tuple("write" for _ in parameter.shape)


def _told_apart(part: Part, module: nn.Module, kind: str, flow: Dataflow) -> Part:
    """Tell the heads from the residual stream where both are always of one size."""
    if not is_matrix(module) or "*" not in kind:
        return part
    reads = part.module in flow.reads_residual
    if not reads and len(set(module.get_parameter("weight").shape)) > 1:
        return part  # It leads to or from the feed-forward units, which no head does.
    inside = "write" if reads else "read"
    dimensions = list(part.dimensions)
    for index, (dimension, role) in enumerate(zip(part.dimensions, part.roles, strict=True)):
        if role == inside and set(dimension.segments) == {"hidden"}:
            dimensions[index] = Dimension(("query",) * len(dimension.segments))
    return replace(part, dimensions=tuple(dimensions))


def _with_questions(part: Part, module: nn.Module) -> Part:
    """Note what is still open about a parameter; parameters of one sort share a question."""
    fused = [dimension for dimension in part.dimensions if len(dimension.segments) > 1]
    layout = f"layout of {fused[0]}" if fused else None
    raw = part.norm is None and not is_matrix(module) and not isinstance(module, nn.Embedding)
    if raw and len(part.dimensions) > 1 and any(dimension.segments for dimension in part.dimensions[-2:]):
        return replace(part, layout=layout, orientation=f"matrices of {type(module).__name__}")
    return replace(part, layout=layout)
