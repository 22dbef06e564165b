"""The sizes of a model, read from and written to any configuration, and those of a larger one."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from hf_dwt.names import nearest
from hf_dwt.remapping.depth import interleave

# What the classes of transformers call one and the same size. A configuration may hold several of them (BART: encoder
# and decoder): the first one present is read, all are written. `attribute_map` covers the names that it knows.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "d_model", "n_embd", "dim", "emb_dim"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"),
    "heads": (
        *("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
        *("decoder_attention_heads", "encoder_attention_heads"),
    ),
    "key_value_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim", "d_head", "kv_channels", "dim_head", "attention_head_size"),
    "intermediate": (
        *("intermediate_size", "ffn_dim", "n_inner", "hidden_dim", "d_inner", "ffn_hidden_size", "dim_ff", "dff"),
        *("feed_forward_size", "decoder_ffn_dim", "encoder_ffn_dim"),
    ),
    "expert": ("moe_intermediate_size", "expert_ffn_hidden_size"),
    "shared_expert": ("shared_expert_intermediate_size", "shared_intermediate_size"),
    "embedding": ("embedding_size", "embedding_dim", "word_embed_proj_dim"),
    "rotary": ("rotary_dim",),
    "vocabulary": ("vocab_size",),
    "positions": ("max_position_embeddings", "n_positions", "model_max_length", "max_seq_len"),
}

# No model goes without them; of other sizes, 0 leaves a part out.
_NEEDED_AXES = ("hidden", "layers", "heads", "key_value_heads", "intermediate", "vocabulary")
_NEEDED = tuple(name for axis in _NEEDED_AXES for name in FIELDS[axis])

# Fields that may differ between teacher and student although they are no sizes: they change neither what the weights
# mean nor what evaluation mode computes.
_FREE = ("drop", "initializer", "init_std", "use_cache", "dtype", "name_or_path", "architectures", "_version", "_token")
_FREE_EXACTLY = {"id2label", "label2id", "problem_type", "output_attentions", "output_hidden_states", "return_dict"}


@dataclass(frozen=True)
class Sizes:
    """Sizes by axis; an axis that the configuration has no field for is absent.

    Attributes:
        values: Axis (a key of `FIELDS`) to size.
        head_dim_is_free: Whether the configuration has a field of its own for the size of a head.
    """

    values: Mapping[str, int]
    head_dim_is_free: bool

    def __getitem__(self, axis: str) -> int:
        return self.values[axis]

    def __contains__(self, axis: str) -> bool:
        return axis in self.values

    def get(self, axis: str) -> int | None:
        """The size, None where the configuration has none."""
        return self.values.get(axis)


def fields_of(config: PretrainedConfig, axis: str) -> list[str]:
    """Names under which this configuration holds the size of an axis, in the order in which they are read."""
    present = config.to_dict()
    if axis == "head_dim" and "qk_rope_head_dim" in present:
        return []  # Latent attention: heads have parts of several sizes, which do not grow.
    return [name for name in FIELDS[axis] if name in present]


def field_of(config: PretrainedConfig, axis: str) -> str:
    """The name that users of this configuration know an axis by."""
    return next(iter(fields_of(config, axis)), FIELDS[axis][0])


def read_sizes(config: PretrainedConfig) -> Sizes:
    """Read the sizes of a configuration.

    Raises:
        ValueError: If it has no hidden size, layers or attention heads that can be found.
    """
    values: dict[str, int] = {}
    for axis in FIELDS:
        found = [getattr(config, name) for name in fields_of(config, axis)]
        whole = [value for value in found if isinstance(value, int) and not isinstance(value, bool) and value > 0]
        if whole:
            values[axis] = whole[0]
    for axis in ("hidden", "layers", "heads"):
        if axis not in values:
            raise ValueError(
                f"`{type(config).__name__}` has no {'attention ' if axis == 'heads' else ''}{axis} that can be found "
                f"(looked for {', '.join(FIELDS[axis][:4])} ...): such a model cannot be grown."
            )
    if "intermediate" not in values and fields_of(config, "intermediate"):
        values["intermediate"] = 4 * values["hidden"]  # what None stands for in GPT-2 and its kin
    free = "head_dim" in values
    values.setdefault("key_value_heads", values["heads"])
    if not free:
        values["head_dim"] = values["hidden"] // values["heads"]
    return Sizes(values, free)


def write_sizes(config: PretrainedConfig, values: Mapping[str, int]) -> None:
    """Set sizes under every name that the configuration has for them; axes without a field are passed over."""
    for axis, value in values.items():
        for name in fields_of(config, axis):
            setattr(config, name, value)


def refuse_empty(given: Mapping[str, Any], names: Sequence[str] = _NEEDED) -> None:
    """Refuse a size below 1.

    Args:
        given: Fields of a configuration.
        names: Those that are looked at. Default: what no model goes without.

    Raises:
        ValueError: Naming it.
    """
    for name in names:
        if isinstance(given.get(name), int) and given[name] < 1:
            raise ValueError(f"`{name}` is {given[name]}: a size is at least 1.")


def grown_config(
    teacher: PretrainedConfig, student: PretrainedConfig | None, overrides: Mapping[str, Any]
) -> tuple[PretrainedConfig, dict[str, int]]:
    """Work out the student's configuration from what the user gave.

    Sizes left out follow from those given: heads at constant size of a head, key-value heads at constant group,
    intermediate size at constant ratio.

    Args:
        teacher: The smaller configuration.
        student: The larger one, if it was given whole.
        overrides: Fields to change, in the names of the configuration.

    Returns:
        The student's configuration, and the sizes that were inferred, by field.

    Raises:
        ValueError: If a name is unknown, a size is smaller than the teacher's or does not fit, or a field differs that
            changes what the weights mean.
    """
    if student is not None and type(student) is not type(teacher):
        raise ValueError(
            f"`config` is a {type(student).__name__}, but the teacher has a {type(teacher).__name__}: a student that "
            "is grown keeps the architecture."
        )
    config = deepcopy(teacher if student is None else student)
    _apply(config, overrides)
    given = {axis for axis in FIELDS for name in _names(config, axis) if name in overrides}
    inferred: dict[str, int] = {}
    if student is None:
        inferred = _infer(config, read_sizes(teacher), given)
    _refuse_smaller(teacher, config)
    _refuse_different(teacher, config)
    return config, inferred


def _names(config: PretrainedConfig, axis: str) -> set[str]:
    known = set(FIELDS[axis])
    return known | {alias for alias, name in config.attribute_map.items() if name in known}


def _apply(config: PretrainedConfig, overrides: Mapping[str, Any]) -> None:
    known = {*config.to_dict(), *config.attribute_map}
    for name, value in overrides.items():
        if name not in known:
            meant = nearest(name, known)
            hint = "" if meant is None else f" Did you mean `{meant}`?"
            raise ValueError(f"`{name}` is no field of `{type(config).__name__}`.{hint}")
        setattr(config, name, value)
    for axis in FIELDS:
        changed = [name for name in _names(config, axis) if name in overrides]
        refuse_empty(overrides, changed)
        if len({overrides[name] for name in changed}) == 1:
            write_sizes(config, {axis: overrides[changed[0]]})


def _infer(config: PretrainedConfig, old: Sizes, given: set[str]) -> dict[str, int]:
    """Fill in the sizes that follow from those given, and return them by field."""
    now = dict(read_sizes(config).values)
    before = dict(now)
    coupled = old["heads"] * old["head_dim"] == old["hidden"]
    if "heads" in given and "hidden" not in given and coupled and "head_dim" not in given:
        keeps = old.head_dim_is_free and old["hidden"] % now["heads"] == 0
        now["hidden"] = old["hidden"] if keeps else now["heads"] * old["head_dim"]
    if now["hidden"] != old["hidden"] and "heads" not in given and "head_dim" not in given:
        now["heads"] = _scaled_heads(config, old, now["hidden"], coupled)
    if "key_value_heads" not in given and now["heads"] != old["heads"]:
        now["key_value_heads"] = _scaled_groups(config, old, now["heads"])
    for axis in ("intermediate", "expert", "shared_expert"):
        if axis in old and axis not in given:
            now[axis] = round(old[axis] * now["hidden"] / old["hidden"])
    if old.get("embedding") == old["hidden"] and "embedding" not in given:
        now["embedding"] = now["hidden"]
    if not old.head_dim_is_free:
        now["head_dim"] = now["hidden"] // now["heads"]
        if now["hidden"] % now["heads"]:
            raise ValueError(
                f"`{field_of(config, 'hidden')}`={now['hidden']} is no multiple of `{field_of(config, 'heads')}`="
                f"{now['heads']}."
            )
    changed = {axis: size for axis, size in now.items() if size != before.get(axis)}
    write_sizes(config, changed)
    return {name: size for axis, size in changed.items() for name in fields_of(config, axis)[:1]}


def _scaled_heads(config: PretrainedConfig, old: Sizes, hidden: int, coupled: bool) -> int:
    heads, rest = divmod(hidden, old["head_dim"]) if coupled else divmod(old["heads"] * hidden, old["hidden"])
    if not rest:
        return heads
    if old.head_dim_is_free:
        return old["heads"]
    raise ValueError(
        f"`{field_of(config, 'hidden')}`={hidden} is no multiple of the size of the teacher's heads, "
        f"{old['head_dim']}: give `{field_of(config, 'heads')}` too, or take another width."
    )


def _scaled_groups(config: PretrainedConfig, old: Sizes, heads: int) -> int:
    groups, rest = divmod(heads * old["key_value_heads"], old["heads"])
    if old["key_value_heads"] == 1:
        return 1
    if not rest:
        return groups
    if heads % old["key_value_heads"] == 0:
        return old["key_value_heads"]
    raise ValueError(
        f"{heads} heads cannot share key-value heads as the teacher's {old['heads']} share {old['key_value_heads']}: "
        f"give `{field_of(config, 'key_value_heads')}` too."
    )


def _refuse_smaller(teacher: PretrainedConfig, student: PretrainedConfig) -> None:
    old, new = read_sizes(teacher), read_sizes(student)
    for axis, size in old.values.items():
        if (now := new.get(axis)) is None or now < size:
            raise ValueError(
                f"`{field_of(teacher, axis)}` is {now}, less than the teacher's {size}: a student can only grow."
            )
    if new["heads"] % new["key_value_heads"]:
        raise ValueError(
            f"`{field_of(student, 'heads')}`={new['heads']} is no multiple of "
            f"`{field_of(student, 'key_value_heads')}`={new['key_value_heads']}."
        )


def _refuse_different(teacher: PretrainedConfig, student: PretrainedConfig) -> None:
    old, new = teacher.to_dict(), student.to_dict()
    sizes = {name for names in FIELDS.values() for name in names}
    for name in sorted({*old, *new}):
        free = name in sizes or name in _FREE_EXACTLY or any(part in name for part in _FREE)
        if free or old.get(name) == new.get(name) or per_layer(teacher, name):
            continue
        raise ValueError(
            f"`{name}` is {new.get(name)!r}, the teacher has {old.get(name)!r}: growing keeps everything but sizes, "
            "since the weights would mean something else."
        )


def per_layer(config: PretrainedConfig, name: str) -> bool:
    """Whether a field is a list with one entry for every layer.

    The class's own default tells whether the length is that of the layers or a coincidence, as of a time step's two
    limits; names and token ids, which have no default, are never of the layers.
    """
    if not _is_as_long_as_layers(config, name) or name == "architectures" or "_token" in name:
        return False
    usual = type(config)()
    return not isinstance(getattr(usual, name, None), list) or _is_as_long_as_layers(usual, name)


def _is_as_long_as_layers(config: PretrainedConfig, name: str) -> bool:
    value = getattr(config, name, None)
    return isinstance(value, list) and len(value) == read_sizes(config)["layers"]


def numbers_layers(config: PretrainedConfig, name: str) -> bool:
    """Whether such a list holds the numbers of all layers, as the class's own default does, not what each layer is."""
    usual = getattr(type(config)(), name, None)
    return isinstance(usual, list) and usual == list(range(len(usual)))


def of_layers(config: PretrainedConfig, name: str, layers: Sequence[int]) -> list[Any]:
    """The list that says of a stack of these layers what a list with one entry for every layer says of them."""
    if numbers_layers(config, name):
        return list(range(len(layers)))
    return [getattr(config, name)[layer] for layer in layers]


def follow_layers(teacher: PretrainedConfig, student: PretrainedConfig, sources: Sequence[int]) -> None:
    """Give every layer of the student what the teacher's lists say of the layer that it comes from."""
    for name in teacher.to_dict():
        if per_layer(teacher, name):
            setattr(student, name, of_layers(teacher, name, sources))


def stretch_layer_lists(teacher: PretrainedConfig, student: PretrainedConfig) -> None:
    """Let the teacher's lists with one entry for every layer follow a stack whose weights are new.

    Its entries are repeated in their order, as `interleave` does. Lists that were given for the student stay.

    Args:
        teacher: Whose lists they are.
        student: Is changed.
    """
    sources = interleave(read_sizes(teacher)["layers"], read_sizes(student)["layers"])
    for name in teacher.to_dict():
        if per_layer(teacher, name) and getattr(student, name) == getattr(teacher, name):
            setattr(student, name, of_layers(teacher, name, sources))


def keep_norms(teacher: PretrainedConfig, student: PretrainedConfig, share: float) -> None:
    """Shrink what normalisations add to a mean of squares as that mean shrinks.

    Args:
        teacher: Whose norms are kept.
        student: Is changed.
        share: Share of the hidden units that are not 0.
    """
    for name, value in norm_constants(teacher).items():
        setattr(student, name, value * share)


def norm_constants(config: PretrainedConfig) -> dict[str, float]:
    """What normalisations add to a mean of squares, by field."""
    fields = config.to_dict().items()
    return {name: value for name, value in fields if name.endswith(("eps", "epsilon")) and isinstance(value, float)}
