"""`from_weak_teacher`: the larger student made out of the smaller teacher."""

from dataclasses import replace
from inspect import signature
from math import inf
from typing import Any, Literal, TypeAlias, overload

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.utils import logging

from hf_dwt.parents import Parent, TeacherLike, open_parent
from hf_dwt.remapping.anatomy import find_anatomy
from hf_dwt.remapping.depth import Layer, layer_map
from hf_dwt.remapping.growth import Growth, fill
from hf_dwt.remapping.methods import RANDOM, width_and_depth
from hf_dwt.remapping.plan import GrowthPlan, remember_plan
from hf_dwt.remapping.rehearsal import settle
from hf_dwt.remapping.report import RemappingReport, report_on
from hf_dwt.remapping.sizes import (
    field_of,
    follow_layers,
    grown_config,
    keep_norms,
    read_sizes,
    stretch_layer_lists,
)
from hf_dwt.remapping.width import hidden_share
from hf_dwt.unsharded import unsharded

logger = logging.get_logger(__name__)

Wanted: TypeAlias = PretrainedConfig | GrowthPlan | None
Verify: TypeAlias = bool | Literal["full"]


@overload
def from_weak_teacher(
    teacher: TeacherLike,
    config: Wanted = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    method: str = "exact",
    depth_method: str | None = None,
    width_method: str | None = None,
    noise: float = 0.1,
    seed: int = 0,
    dtype: str | torch.dtype | None = None,
    verify: Verify = True,
    output_report: Literal[False] = False,
    **overrides: Any,
) -> PreTrainedModel: ...


@overload
def from_weak_teacher(
    teacher: TeacherLike,
    config: Wanted = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    method: str = "exact",
    depth_method: str | None = None,
    width_method: str | None = None,
    noise: float = 0.1,
    seed: int = 0,
    dtype: str | torch.dtype | None = None,
    verify: Verify = True,
    output_report: Literal[True],
    **overrides: Any,
) -> tuple[PreTrainedModel, RemappingReport]: ...


def from_weak_teacher(
    teacher: TeacherLike,
    config: Wanted = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    method: str = "exact",
    depth_method: str | None = None,
    width_method: str | None = None,
    noise: float = 0.1,
    seed: int = 0,
    dtype: str | torch.dtype | None = None,
    verify: Verify = True,
    output_report: bool = False,
    **overrides: Any,
) -> PreTrainedModel | tuple[PreTrainedModel, RemappingReport]:
    """Make a larger student out of a smaller model of the same class.

    Every process makes it whole, also under ZeRO-3 and FSDP, which divide it when training starts. Until then a machine
    holds in CPU memory one whole student (in float32 while it is verified) and one whole teacher for each of its ranks.

    Args:
        teacher: A `Teacher`, a model (a bare encoder too), a folder or a Hub id; only safetensors are read.
        config: The student's configuration; or a plan of an earlier growth, which is then replayed bit for bit.
        revision: Branch, tag or commit of a Hub id.
        token: Hub token.
        method: "exact" makes a student that predicts what its teacher predicts, and proves it. "random" takes the
            configuration only. "repeat_last", "stack", "interleave", "spread" name a way to deepen, "near", "fpi" and
            "aki" a way to widen, and stack. See `remapping.methods.METHODS`. By "aki" students ended best in the study,
            `benchmarks/results/study.md`.
        depth_method: Instead of the method's own way to deepen.
        width_method: Instead of the method's own way to widen.
        noise: What sets the copies of a unit apart, in standard deviations of each weight. It changes no output. At 0,
            copies stay alike for ever where there is no dropout.
        seed: Of everything random.
        dtype: Precision of the student. Default: the teacher's. Weights are grown in float32 and cast last.
        verify: Compare student and teacher on random tokens; "full" also in training mode and in bfloat16.
        output_report: Also return a `RemappingReport`.
        **overrides: Fields of the configuration, as `num_hidden_layers=12`. Sizes left out follow from those given.

    Returns:
        The student, in evaluation mode as `from_pretrained` returns it; with `output_report`, also the report.

    Raises:
        ValueError: If something would be smaller than in the teacher, a name is unknown, the class cannot be grown, or
            `method="exact"` and the student is not equal to its teacher. If anything is asked beside a plan.
        TypeError: If `teacher` is nothing that can be grown, or `seed` no integer.

    Reference:
        Lee et al., 2023, section 3.3, for `repeat_last`; the modules of `remapping` for the others.

    Example:
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> small = BertForMaskedLM(BertConfig(vocab_size=99, hidden_size=24, num_hidden_layers=2))
        >>> student, report = from_weak_teacher(small, hidden_size=48, num_hidden_layers=3, output_report=True)
        >>> student.config.num_attention_heads, report.exact
        (24, True)
    """
    wanted = _as_dtype(dtype)
    if verify not in (True, False, "full"):
        raise ValueError(f"`verify` must be True, False or 'full', got {verify!r}.")
    with unsharded():
        source = open_parent(teacher, revision, token)
        if isinstance(config, GrowthPlan):
            chosen = {"method": method, "depth_method": depth_method, "width_method": width_method}
            plan = _replayed(config, source, overrides, {**chosen, "noise": noise, "seed": seed})
        else:
            plan = _planned(source, config, overrides, method, width_method, depth_method, noise, seed)
        student, report = _carried_out(plan, source, wanted or source.dtype, verify)
    _say(report)
    return (student, report) if output_report else student


def plan_growth(
    teacher: TeacherLike,
    config: PretrainedConfig | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    method: str = "exact",
    depth_method: str | None = None,
    width_method: str | None = None,
    noise: float = 0.1,
    seed: int = 0,
    **overrides: Any,
) -> GrowthPlan:
    """Plan what `from_weak_teacher` would do, from the configuration alone: no weights are read.

    Raises:
        ValueError: As `from_weak_teacher` does, but for the proof on the weights themselves.

    Example:
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> small = BertForMaskedLM(BertConfig(vocab_size=99, hidden_size=24, num_hidden_layers=2))
        >>> [layer.source for layer in plan_growth(small, num_hidden_layers=4).layers]
        [0, 0, 1, 1]
    """
    with unsharded():
        source = open_parent(teacher, revision, token)
        return _planned(source, config, overrides, method, width_method, depth_method, noise, seed)


def _planned(
    source: Parent,
    config: PretrainedConfig | None,
    overrides: dict[str, Any],
    method: str,
    width_method: str | None,
    depth_method: str | None,
    noise: float,
    seed: int,
) -> GrowthPlan:
    if not 0 <= noise < inf:
        raise ValueError(f"`noise` must be at least 0 and finite, got {noise}.")
    if not isinstance(seed, int):
        raise TypeError(f"`seed` must be an integer, got {seed!r}.")
    student, inferred = grown_config(source.config, config, overrides)
    student.dtype = source.config.dtype
    old, new = read_sizes(source.config), read_sizes(student)
    if method == RANDOM:
        if width_method or depth_method:
            raise ValueError('`method="random"` copies nothing: it goes with no `width_method` or `depth_method`.')
        width, depth = RANDOM, RANDOM
        layers: tuple[Layer, ...] = ()
        stretch_layer_lists(source.config, student)
    else:
        width, depth = width_and_depth(method, width_method, depth_method)
        layers = layer_map(depth, old["layers"], new["layers"])
        follow_layers(source.config, student, [layer.source for layer in layers])
        keep_norms(source.config, student, hidden_share(width, old["hidden"], new["hidden"]))
    plan = GrowthPlan(
        architecture=source.model_class.__name__,
        teacher=str(source.origin),
        teacher_config=source.config.to_dict(),
        student_config=student.to_dict(),
        width_method=width,
        depth_method=depth,
        layers=layers,
        choices={},
        noise=noise,
        seed=seed,
        inferred=inferred,
    )
    return plan if method == RANDOM else settle(source.model_class, plan)


def _replayed(plan: GrowthPlan, source: Parent, overrides: dict[str, Any], chosen: dict[str, Any]) -> GrowthPlan:
    usual = signature(from_weak_teacher).parameters
    others = sorted([*overrides, *(name for name, value in chosen.items() if value != usual[name].default)])
    if others:
        raise ValueError(f"A plan is replayed as it is: leave out {', '.join(others)}.")
    if plan.architecture != source.model_class.__name__:
        raise ValueError(f"The plan grows a {plan.architecture}, the teacher is a {source.model_class.__name__}.")
    old, given = read_sizes(plan.configs()[0]), read_sizes(source.config)
    for axis, size in old.values.items():
        if given.get(axis) != size:
            raise ValueError(
                f"The plan grows a teacher whose `{field_of(source.config, axis)}` is {size}; this one has "
                f"{given.get(axis)}."
            )
    return replace(plan, num_trained_steps=0)


def _carried_out(
    plan: GrowthPlan, source: Parent, dtype: torch.dtype, verify: Verify
) -> tuple[PreTrainedModel, RemappingReport]:
    _, config = plan.configs()
    if plan.width_method == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            student = source.model_class._from_config(config, dtype=dtype)
        report = report_on(plan, student)
        remember_plan(student, replace(plan, outcome=report.outcome))
        return student.eval(), report
    anatomy = find_anatomy(source.model_class, source.config)
    teacher = source.load() if verify else None
    read = source.read() if teacher is None else None
    if read is None:
        teacher = teacher or source.load()
        read = teacher.state_dict().__getitem__
    growth = Growth(plan, anatomy, read)
    with no_init_weights():
        student = source.model_class._from_config(config, dtype=torch.float32 if verify else dtype)
    student.tie_weights()
    fill(student, growth)
    student.eval()
    if student.can_generate():
        student.generation_config = source.generation(teacher)
    report = report_on(plan, student, growth, teacher if verify else None, full=verify == "full")
    if report.exact is False and (plan.width_method, plan.depth_method) == ("exact", "identity"):
        raise ValueError(
            f"The student does not predict what its teacher ({plan.teacher}) predicts: {report.difference}. "
            '`method="near"` and the other methods do not ask for it.'
        )
    remember_plan(student, replace(plan, outcome=report.outcome))
    student.config.dtype = dtype
    return student.to(dtype), report


def _say(report: RemappingReport) -> None:
    inferred = report.plan.inferred
    if inferred:
        sizes = ", ".join(f"{name}={size}" for name, size in inferred.items())
        logger.warning(f"Sizes of the student that were not given: {sizes}.")
    for warning in report.warnings:
        logger.warning(warning)


def _as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None:
        return None
    found = vars(torch).get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"`dtype` is {dtype!r}, which is no floating-point type of torch.")
    return found
