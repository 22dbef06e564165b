"""Training arguments: those of `Trainer`, and what distillation from a weak teacher adds."""

import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from transformers import TrainingArguments

from hf_dwt.weighting import Policy, make_policy

TeacherPlacement: TypeAlias = Literal["replicated", "sharded", "offload"]


@dataclass
class DistillationArguments:
    """The choices of distillation from a weak teacher, apart from all that `Trainer` needs.

    Raises:
        ValueError: If a value is out of its range, or a setting is not used by the chosen policy.
    """

    weighting: str = field(
        default="inheritance",
        metadata={
            "help": "Name of the weighting policy of the soft loss: constant, linear, cosine, exponential, step, wsd, "
            "inheritance, handover, or one that was registered with `register_policy`."
        },
    )
    soft_loss_weight: float | None = field(
        default=None,
        metadata={"help": "Soft-loss weight to start from, >= 0; at 0 the teacher is not run. Default: the policy's."},
    )
    final_soft_loss_weight: float | None = field(
        default=None,
        metadata={"help": "Soft-loss weight that the policy ends at, >= 0. Default: the policy's own."},
    )
    hard_loss_weight: float = field(
        default=1.0, metadata={"help": "Weight of the hard loss, >= 0; 0 learns from the teacher alone."}
    )
    weighting_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Further settings of the policy, for example {'at': 0.3} for 'step'."}
    )
    weighting_steps: int | None = field(
        default=None,
        metadata={"help": "Optimiser steps over which the policy's progress runs from 0 to 1. Default: the whole run."},
    )
    temperature: float = field(
        default=1.0,
        metadata={"help": "Divides both models' logits in the soft loss, > 0; 1 leaves them as they are."},
    )
    scale_soft_loss_by_temperature: bool = field(
        default=True,
        metadata={"help": "Multiply the soft loss by temperature**2, so that its gradient keeps its size."},
    )
    teacher_dtype: Literal["float32", "bfloat16", "float16"] | None = field(
        default=None,
        metadata={
            "help": "Precision of the teacher's weights, below float32 also that it is run in. Default: as loaded."
        },
    )
    teacher_placement: TeacherPlacement = field(
        default="replicated",
        metadata={
            "help": "Where the teacher is kept: 'replicated', whole on every rank, also beside ZeRO-3 and FSDP2; "
            "'sharded', divided among the ranks as the student is, with ZeRO-3 and FSDP2 only; 'offload', in CPU "
            "memory, from which it is copied for each forward pass, and for each part that a large head is run in."
        },
    )
    allow_bad_teacher: bool = field(
        default=False,
        metadata={"help": "Train even if the teacher is no better than guessing by token frequency."},
    )
    map_added_tokens_to_unknown: bool = field(
        default=False,
        metadata={"help": "Show the teacher its unknown token where the student's tokenizer has added a token."},
    )

    def __post_init__(self) -> None:
        self.weighting_kwargs = _settings(self.weighting_kwargs)
        if self.hard_loss_weight is None:
            raise ValueError("`hard_loss_weight` must be a number, got None. Leave it out for the policy's own.")
        self.policy()
        if not (_is_number(self.temperature) and self.temperature > 0):
            raise ValueError(f"`temperature` must be a finite number above 0, got {self.temperature!r}.")
        steps = self.weighting_steps
        if steps is not None and not (_is_number(steps) and isinstance(steps, int) and steps >= 1):
            raise ValueError(f"`weighting_steps` must be a whole number, at least 1, got {steps!r}.")
        if self.teacher_dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"`teacher_dtype` must be 'float32', 'bfloat16' or 'float16', got {self.teacher_dtype!r}.")
        if self.teacher_placement not in get_args(TeacherPlacement):
            raise ValueError(
                f"`teacher_placement` must be 'replicated', 'sharded' or 'offload', got {self.teacher_placement!r}."
            )

    def policy(self) -> Policy:
        """Build the weighting policy that these arguments describe."""
        settings: dict[str, Any] = dict(self.weighting_kwargs or {})  # type: ignore[arg-type]
        own_fields = {"hard_loss_weight", "soft_loss_weight", "final_soft_loss_weight"} & settings.keys()
        if own_fields:
            raise ValueError(f"`weighting_kwargs` holds {sorted(own_fields)}, which are arguments of their own.")
        # A policy with fixed hard weights, such as 'inheritance', has no such field: only a changed value is refused.
        if self.hard_loss_weight != 1.0:
            settings["hard_loss_weight"] = self.hard_loss_weight
        return make_policy(
            self.weighting,
            soft_loss_weight=self.soft_loss_weight,
            final_soft_loss_weight=self.final_soft_loss_weight,
            **settings,
        )

    @property
    def soft_loss_scale(self) -> float:
        """Factor that keeps the soft loss' gradient independent of the temperature: its square, or 1."""
        return self.temperature**2 if self.scale_soft_loss_by_temperature else 1.0


@dataclass
class DWTTrainingArguments(DistillationArguments, TrainingArguments):  # type: ignore[misc]
    """`TrainingArguments` with the choices of distillation from a weak teacher.

    All fields of `transformers.TrainingArguments` keep their names, positions, defaults and meaning.

    Raises:
        ValueError: If a value is out of its range, or a setting is not used by the chosen policy.

    Example:
        >>> args = DWTTrainingArguments("student", use_cpu=True, weighting="constant", soft_loss_weight=2)
        >>> args.policy().soft_loss_weight
        2
    """

    def __post_init__(self) -> None:
        TrainingArguments.__post_init__(self)
        DistillationArguments.__post_init__(self)


def _settings(given: Any) -> dict[str, Any] | None:
    """Settings of a policy, from a mapping or, as on a command line, from JSON."""
    settings = given
    if isinstance(given, str):
        try:
            settings = json.loads(given)
        except ValueError as error:
            raise ValueError(f"`weighting_kwargs` must be a JSON object, got {given!r}: {error}.") from error
    if settings is not None and not isinstance(settings, dict):
        raise ValueError(f"`weighting_kwargs` must be names with values, such as {{'at': 0.3}}, got {given!r}.")
    return settings


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
