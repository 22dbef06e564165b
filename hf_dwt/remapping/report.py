"""What became of a teacher's weights, and how near the student is to it."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedModel

from hf_dwt.language_models import language_model_kind
from hf_dwt.remapping.axes import kind_of
from hf_dwt.remapping.growth import Growth
from hf_dwt.remapping.plan import GrowthPlan
from hf_dwt.remapping.shares import Shares, average
from hf_dwt.remapping.verify import (
    Difference,
    compare,
    compare_with_cache,
    evaluating,
    training_loss,
    verification_inputs,
)
from hf_dwt.remapping.width import Expansion

# Beyond it no large activation explains a difference in float32, in standard deviations of the logits.
_MAY_BE_ROUNDING = 1e-2
_VERDICTS = {True: "equal to the teacher", False: "not equal to the teacher", None: "not compared"}


@dataclass(frozen=True)
class RemappingReport:
    """The outcome of a growth.

    Attributes:
        plan: What was done.
        difference: Between the student's outputs and the teacher's on random tokens; None if it was not measured.
        cached_difference: The same where both read in two parts, the first from the cache; None without a cache.
        in_double: The same as `difference` in float64, measured only where float32 could not decide.
        exact: Whether the student equals its teacher; None if it was not measured.
        num_parameters: Of the student.
        shares: Of all parameters.
        modules: Kind of parameter to its shares.
        training_losses: Teacher's and student's loss in training mode, dropout on, if asked for; not of bare encoders.
        bfloat16: Their difference in bfloat16, if asked for.
        warnings: What a user should know.

    Example:
        >>> from hf_dwt import from_weak_teacher
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> small = BertForMaskedLM(BertConfig(vocab_size=99, hidden_size=24, num_hidden_layers=1))
        >>> from_weak_teacher(small, vocab_size=128, output_report=True)[1].exact
        True
    """

    plan: GrowthPlan
    difference: Difference | None
    cached_difference: Difference | None
    in_double: Difference | None
    exact: bool | None
    num_parameters: int
    shares: Shares
    modules: Mapping[str, Shares]
    training_losses: tuple[float, float] | None = None
    bfloat16: Difference | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def outcome(self) -> str:
        """Whether the student equals its teacher, how near it is, and what was taken: in a line."""
        how_near = "" if self.difference is None else f" ({self.in_double or self.difference})"
        return f"{_VERDICTS[self.exact]}{how_near}; of its parameters {self.shares}"

    def __str__(self) -> str:
        lines = [f"{self.num_parameters:,} parameters: {self.shares}"]
        widest = max(len(kind) for kind in self.modules)
        lines += [f"  {kind:<{widest}}  {shares}" for kind, shares in self.modules.items()]
        lines.append(f"Student: {_VERDICTS[self.exact]}")
        for name, difference in (
            ("float32", self.difference),
            ("with the cache", self.cached_difference),
            ("float64", self.in_double),
            ("bfloat16", self.bfloat16),
        ):
            if difference is not None:
                lines.append(f"  {name}: {difference}")
        if self.training_losses is not None:
            lines.append("  loss in training mode: teacher {:.4f}, student {:.4f}".format(*self.training_losses))
        return "\n".join([*lines, *(f"Warning: {each}" for each in self.warnings)])


def report_on(
    plan: GrowthPlan,
    student: PreTrainedModel,
    growth: Growth | None = None,
    teacher: PreTrainedModel | None = None,
    *,
    full: bool = False,
) -> RemappingReport:
    """Report on a student.

    Args:
        plan: By which it was grown.
        student: In float32 where it is to be compared.
        growth: That filled it; None for a student that took nothing.
        teacher: To compare it with, if at all; on the CPU. It is left as it was, and where it was.
        full: Compare in training mode and in bfloat16 too.
    """
    sizes = {name: parameter.numel() for name, parameter in student.named_parameters()}
    shares = {name: growth.shares(name) if growth else Shares(0.0, 0.0, 1.0) for name in sizes}
    kinds: dict[str, list[str]] = {}
    for name in sizes:
        kinds.setdefault(kind_of(name), []).append(name)
    found = RemappingReport(
        plan=plan,
        difference=None,
        cached_difference=None,
        in_double=None,
        exact=None,
        num_parameters=sum(sizes.values()),
        shares=average((shares[name], sizes[name]) for name in sizes),
        modules={kind: average((shares[name], sizes[name]) for name in names) for kind, names in kinds.items()},
    )
    if teacher is None or growth is None:
        return found
    return _compared(found, _in_full(teacher), student, growth.expansions["hidden"], full)


def _compared(
    report: RemappingReport, teacher: PreTrainedModel, student: PreTrainedModel, hidden: Expansion, full: bool
) -> RemappingReport:
    inputs = verification_inputs(teacher.config, report.plan.seed)
    with evaluating(teacher), evaluating(student):
        plain = compare(teacher, student, inputs, hidden)
        cached = compare_with_cache(teacher, student, inputs["input_ids"])
        double = None
        if not plain.exact and plain.relative < _MAY_BE_ROUNDING:
            double = compare(deepcopy(teacher).double(), deepcopy(student).double(), inputs, hidden)
        exact = (double or plain).exact and (cached is None or cached.relative < _MAY_BE_ROUNDING)
        report = replace(report, difference=plain, cached_difference=cached, in_double=double, exact=exact)
        if full:
            half_teacher, half_student = (deepcopy(model).to(torch.bfloat16) for model in (teacher, student))
            report = replace(report, bfloat16=compare(half_teacher, half_student, inputs, hidden))
            if language_model_kind(teacher) is not None:
                losses = training_loss(teacher, inputs), training_loss(student, inputs)
                report = replace(report, training_losses=losses)
    return replace(report, warnings=tuple(_warnings(report)))


def _warnings(report: RemappingReport) -> Iterator[str]:
    if report.exact and report.in_double is not None:
        yield (
            f"In float32 the student is off by {report.difference}: this is rounding, in float64 it is equal. The "
            "teacher's activations are large."
        )
    if report.plan.width_method == "near" and not report.exact:
        yield f"The student is near its teacher, not its equal: {report.difference}."


def _in_full(model: PreTrainedModel) -> PreTrainedModel:
    """The model in full precision on the CPU, where the student is; left as it is if it is there.

    Else it is built anew: a cast also rounds what is computed once, as rotary angles, and a GPU may have no room.
    """
    dtype = torch.promote_types(model.dtype, torch.float32)
    if model.dtype == dtype and model.device.type == "cpu":
        return model
    full = type(model)._from_config(deepcopy(model.config), dtype=dtype)
    full.load_state_dict(model.state_dict())
    return full.eval()
