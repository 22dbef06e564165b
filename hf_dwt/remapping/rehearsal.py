"""The same growth on a tiny model of the same class: it settles what shapes leave open, and refuses what cannot be."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import islice, product
from math import gcd, lcm

from transformers import PretrainedConfig, PreTrainedModel

from hf_dwt.remapping.anatomy import Anatomy, Choices, Part, find_anatomy
from hf_dwt.remapping.blocks import Blocks
from hf_dwt.remapping.depth import Layer, layer_map, with_fitting_sources
from hf_dwt.remapping.growth import EMBEDDING_SCALE, HEAD_ENTRIES, RANDOM_ENTRIES, ROOT, Growth, fill
from hf_dwt.remapping.plan import GrowthPlan
from hf_dwt.remapping.sizes import (
    Sizes,
    field_of,
    fields_of,
    follow_layers,
    keep_norms,
    norm_constants,
    read_sizes,
    write_sizes,
)
from hf_dwt.remapping.tiny import (
    NUM_TOKENS,
    build_random,
    names_by_layer,
    random_inputs,
    representative_layers,
    tiny_config,
)
from hf_dwt.remapping.verify import Difference, compare, first_output
from hf_dwt.remapping.width import HEAD_ANSWERS, hidden_share

_HEAD_DIM = 16
_MOST_ANSWERS = 96


def settle(model_class: type[PreTrainedModel], plan: GrowthPlan) -> GrowthPlan:
    """Answer what shapes leave open about a plan, and refuse it if it promises an equality that it cannot keep.

    Raises:
        ValueError: If the class cannot be taken apart, or a tiny student is not equal to its teacher where this one
            should be; it names the fields that cannot grow.
    """
    anatomy = find_anatomy(model_class, plan.configs()[0])
    old, new = (read_sizes(config) for config in plan.configs())
    if old["layers"] != new["layers"] and not anatomy.layers:
        raise ValueError(
            f"`{field_of(plan.configs()[0], 'layers')}` cannot grow: the layers of `{model_class.__name__}` share "
            "their weights."
        )
    plan = _with_layers_that_fit(model_class, plan)
    preserving = plan.width_method in ("exact", "pad")
    settled, difference = rehearse(model_class, anatomy, plan if preserving else _doubled(plan))
    if not difference.exact and (preserving or anatomy.options):
        raise ValueError(_explanation(model_class, anatomy, plan, difference))
    return replace(plan, choices=settled.choices)


def _with_layers_that_fit(model_class: type[PreTrainedModel], plan: GrowthPlan) -> GrowthPlan:
    teacher, student = plan.configs()
    layers = _fitting_layers(model_class, teacher, plan.layers)
    follow_layers(teacher, student, [layer.source for layer in layers])
    return replace(plan, student_config=student.to_dict(), layers=layers)


def _fitting_layers(
    model_class: type[PreTrainedModel], teacher: PretrainedConfig, layers: tuple[Layer, ...]
) -> tuple[Layer, ...]:
    if not any(layer.identity for layer in layers):
        return layers
    deeper = deepcopy(teacher)
    write_sizes(deeper, {"layers": len(layers)})
    follow_layers(teacher, deeper, [layer.source for layer in layers])
    return with_fitting_sources(layers, names_by_layer(model_class, teacher), names_by_layer(model_class, deeper))


def rehearse(model_class: type[PreTrainedModel], anatomy: Anatomy, plan: GrowthPlan) -> tuple[GrowthPlan, Difference]:
    """Grow a tiny teacher as the plan says, with every answer to what is open, until one is exact.

    Returns:
        The plan with the best answers, and how far off the tiny student is with them.

    Raises:
        ValueError: If the tiny models cannot be built or run.
    """
    small, teacher, student = _tiny_pair(model_class, plan)
    inputs = random_inputs(NUM_TOKENS)
    best: tuple[Difference, Choices] | None = None
    weights = teacher.state_dict()
    for choices in _answers(anatomy, small):
        growth = Growth(replace(small, choices=choices), anatomy, weights.__getitem__)
        try:
            fill(student, growth)
            difference = compare(teacher, student, inputs, growth.expansions["hidden"])
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"No tiny `{model_class.__name__}` of the student's proportions runs: {error}") from error
        if best is None or difference.relative < best[0].relative:
            best = difference, choices
        if difference.exact:
            break
    assert best is not None
    return replace(plan, choices=best[1]), best[0]


def _doubled(plan: GrowthPlan) -> GrowthPlan:
    """A plan whose width grows by copies alone wherever this one's does: by it a layout shows, whatever the method."""
    teacher, student = plan.configs()
    old, new = read_sizes(teacher), read_sizes(student)
    twice = {axis: size * (2 if new[axis] > size else 1) for axis, size in old.values.items() if axis != "layers"}
    if old["heads"] * old["head_dim"] == old["hidden"] and not old.head_dim_is_free:
        twice["heads"] = old["heads"] * twice["hidden"] // old["hidden"]
        twice["key_value_heads"] = old["key_value_heads"] * twice["heads"] // old["heads"]
    config = deepcopy(teacher)
    write_sizes(config, twice)
    layers = layer_map("identity", old["layers"], old["layers"])
    return replace(plan, student_config=config.to_dict(), width_method="exact", layers=layers)


def _explanation(model_class: type[PreTrainedModel], anatomy: Anatomy, plan: GrowthPlan, difference: Difference) -> str:
    """Say which sizes are to blame."""
    teacher, student = plan.configs()
    old, new = read_sizes(teacher), read_sizes(student)
    name = model_class.__name__
    width = field_of(teacher, "hidden")
    if anatomy.flow.post_norm and new["hidden"] % old["hidden"]:
        return (
            f"`{width}` of `{name}` can grow by whole factors only and stay exact, since it normalises after its "
            f"residual sums: {old['hidden']} to {2 * old['hidden']}, not to {new['hidden']}. "
            '`method="near"` grows it to any width, and reports how far off it is.'
        )
    groups = [("hidden", "embedding"), ("heads", "key_value_heads", "head_dim"), ("intermediate",), ("layers",)]
    if not old.head_dim_is_free:
        groups[:2] = [("hidden", "embedding", "heads", "key_value_heads")]
    blamed: list[str] = []
    for axes in groups:
        grown = {axis: new[axis] for axis in axes if axis in old and new[axis] != old[axis]}
        if grown and not _grows_alone(model_class, anatomy, plan, grown):
            blamed.extend(f"`{name}`" for axis in grown for name in fields_of(teacher, axis)[:1])
    which = " and ".join(blamed) or "these sizes together"
    heads = any(f"`{each}`" in which for each in fields_of(teacher, "heads"))
    reason = _reason(model_class, anatomy, plan, heads)
    return (
        f"Growing {which} of `{name}` is not exact: a tiny model of its class was off by {difference.relative:.1g} "
        f'standard deviations.{reason} Leave it as it is, or take a method that preserves nothing: `method="random"`.'
    )


def _reason(model_class: type[PreTrainedModel], anatomy: Anatomy, plan: GrowthPlan, heads_are_blamed: bool) -> str:
    """What may be why, the surest first; a sentence after a space, or nothing."""
    old, new = (read_sizes(config) for config in plan.configs())
    if tables := _computed_tables(model_class, plan):
        return f" `{tables[0]}` is computed from these sizes anew and does not grow as the weights do."
    if new["hidden"] % old["hidden"] and _whole_factors_are_exact(model_class, anatomy, plan):
        whole = f'whole factors are exact ({2 * old["hidden"]}), and `method="near"` grows it to any width.'
        if Blocks(anatomy, {}).embedding_norm:
            return f" The norm of its embeddings mixes units with each other: {whole}"
        if not norm_constants(plan.configs()[0]):
            return f" No field of its configuration holds what its norms add to a variance: {whole}"
    normed = {
        axis for part in anatomy.parts.values() if part.norm for each in part.dimensions for axis in each.segments
    }
    if heads_are_blamed and normed & {"query", "key_value"}:
        return " It normalises over all heads at once, which stay as they are only if all are copied equally often."
    if heads_are_blamed:
        return " Attention that depends on the number of heads, as ALiBi does, is one reason."
    return ""


def _computed_tables(model_class: type[PreTrainedModel], plan: GrowthPlan) -> list[str]:
    """Buffers that are not saved but made from the configuration, as sinusoids of positions, and of another size."""
    _, *pair = _tiny_pair(model_class, plan)
    shapes = []
    for model in pair:
        saved = set(model.state_dict())
        shapes.append({name: buffer.shape for name, buffer in model.named_buffers() if name not in saved})
    theirs, ours = shapes
    return [name for name, shape in theirs.items() if ours.get(name) != shape]


def _whole_factors_are_exact(model_class: type[PreTrainedModel], anatomy: Anatomy, plan: GrowthPlan) -> bool:
    try:
        return rehearse(model_class, anatomy, _doubled(plan))[1].exact
    except ValueError:
        return False


def _grows_alone(model_class: type[PreTrainedModel], anatomy: Anatomy, plan: GrowthPlan, grown: dict[str, int]) -> bool:
    teacher, _ = plan.configs()
    config = deepcopy(teacher)
    write_sizes(config, grown)
    old = read_sizes(teacher)
    layers = layer_map(plan.depth_method, old["layers"], grown.get("layers", old["layers"]))
    if read_sizes(config)["head_dim"] < old["head_dim"]:
        return True
    try:
        alone = replace(plan, student_config=config.to_dict(), layers=layers)
        return rehearse(model_class, anatomy, alone)[1].exact
    except ValueError:
        return True  # These sizes do not go without the others: they are not to blame alone.


def _tiny_pair(
    model_class: type[PreTrainedModel], plan: GrowthPlan
) -> tuple[GrowthPlan, PreTrainedModel, PreTrainedModel]:
    """Tiny teacher and student, with as few heads as the proportions allow, or as many as the real ones have."""
    errors: list[Exception] = []
    for fewest_heads in (True, False):
        try:
            small = _tiny_plan(model_class, plan, fewest_heads)
            teacher, student = (build_random(model_class, config) for config in small.configs())
            first_output(teacher, random_inputs(NUM_TOKENS))
            return small, teacher, student
        except Exception as error:  # A modelling file may raise anything.
            errors.append(error)
    raise ValueError(f"No tiny `{model_class.__name__}` of these proportions can be run: {errors[0]}") from errors[0]


def _answers(anatomy: Anatomy, plan: GrowthPlan) -> Iterator[Choices]:
    """Combinations of answers to all that is open about this growth, the likeliest first."""
    old, new = (read_sizes(config) for config in plan.configs())
    questions: dict[str, tuple[str | None, ...]] = dict(anatomy.options)
    if old["hidden"] != new["hidden"]:
        questions[EMBEDDING_SCALE] = (None, ROOT)
    if old["head_dim"] != new["head_dim"]:
        whole = new["head_dim"] % old["head_dim"] == 0
        questions[HEAD_ENTRIES] = HEAD_ANSWERS if whole else HEAD_ANSWERS[1:2]
        writers = (part.module for part in anatomy.parts.values() if _writes_heads(part))
        questions[RANDOM_ENTRIES] = (*dict.fromkeys(writers), None)
    # The last question varies fastest: the likeliest answers of the others are tried with all of its own first.
    for answers in islice(product(*questions.values()), _MOST_ANSWERS):
        yield {question: answer for question, answer in zip(questions, answers, strict=True) if answer is not None}


def _writes_heads(part: Part) -> bool:
    pairs = zip(part.roles, part.dimensions, strict=True)
    return len(part.roles) == 2 and any(
        role == "write" and dimension.segments in (("query",), ("key_value",)) for role, dimension in pairs
    )


def _tiny_plan(model_class: type[PreTrainedModel], plan: GrowthPlan, fewest_heads: bool) -> GrowthPlan:
    teacher, student = plan.configs()
    old, new = read_sizes(teacher), read_sizes(student)
    kept = representative_layers(model_class, teacher)
    deeper = 2 if old["layers"] != new["layers"] and plan.depth_method == "identity" else 0
    small, large = _tiny_sizes(old, new, fewest_heads)
    tiny_teacher = tiny_config(teacher, small, kept)
    grown = _fitting_layers(model_class, tiny_teacher, layer_map(plan.depth_method, len(kept), len(kept) + deeper))
    tiny_student = tiny_config(teacher, large, [kept[each.source] for each in grown])
    keep_norms(tiny_teacher, tiny_student, hidden_share(plan.width_method, small["hidden"], large["hidden"]))
    return replace(plan, teacher_config=tiny_teacher.to_dict(), student_config=tiny_student.to_dict(), layers=grown)


def _tiny_sizes(old: Sizes, new: Sizes, fewest_heads: bool) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes of the same proportions, as small as they can be."""
    part = gcd(*(sizes[axis] for sizes in (old, new) for axis in ("heads", "key_value_heads")))
    if not fewest_heads:
        part = 1
    elif old["heads"] == part and part % 2 == 0:
        part //= 2  # One head would hide how several lie in memory.
    small = {axis: old[axis] // part for axis in ("heads", "key_value_heads")}
    large = {axis: new[axis] // part for axis in ("heads", "key_value_heads")}
    small["head_dim"], large["head_dim"] = _HEAD_DIM, _in_proportion(_HEAD_DIM, old["head_dim"], new["head_dim"], 2)
    small["hidden"], large["hidden"] = _tiny_hidden(old, new, small, large)
    for axis in ("intermediate", "expert", "shared_expert", "embedding"):
        if axis in old:
            share = old[axis] / old["hidden"]
            small[axis] = 16 * max(1, round(small["hidden"] * share / 16))
            if axis == "embedding" and old[axis] < old["hidden"]:
                small[axis] = min(
                    small[axis], small["hidden"] // 2
                )  # Of one size, nothing would project one to the other.
            large[axis] = _in_proportion(small[axis], old[axis], new[axis], 16)
    if old.get("embedding") == old["hidden"] and new["embedding"] == new["hidden"]:
        large["embedding"] = large["hidden"]
    if "rotary" in old:
        small["rotary"] = large["rotary"] = max(2, 2 * round(_HEAD_DIM * old["rotary"] / old["head_dim"] / 2))
    for axis, size in (("vocabulary", NUM_TOKENS), ("positions", 48)):
        if axis in old:
            small[axis], large[axis] = size, size + 3 * (new[axis] > old[axis])
    return small, large


def _tiny_hidden(old: Sizes, new: Sizes, small: dict[str, int], large: dict[str, int]) -> tuple[int, int]:
    coupled = [sizes["heads"] * sizes["head_dim"] == sizes["hidden"] for sizes in (old, new)]
    if all(coupled):
        return small["heads"] * small["head_dim"], large["heads"] * large["head_dim"]
    unit = 2 * lcm(small["heads"], large["heads"])
    hidden = unit * -(-small["heads"] * small["head_dim"] // unit)
    if not old.head_dim_is_free or coupled[0]:
        hidden = lcm(unit, small["heads"] * small["head_dim"])
    return hidden, _in_proportion(hidden, old["hidden"], new["hidden"], unit)


def _in_proportion(size: int, old: int, new: int, unit: int) -> int:
    """A size that grows as another one does: not at all, by the same whole factor, or by no whole factor."""
    if new % old == 0:
        return size * (new // old)
    grown = unit * -(-size * new // (old * unit))
    return grown if grown % size else grown + unit
