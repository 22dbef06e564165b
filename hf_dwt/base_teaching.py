"""The student's own base as its teacher: the same weights, with the adapter off while it is asked."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_dwt.adapters import adapter_off, base_parameters, is_adapted, num_base_parameters, trained_of_base
from hf_dwt.arguments import DistillationArguments
from hf_dwt.heads import Head
from hf_dwt.placement import Place, is_zero3
from hf_dwt.positions import Positions
from hf_dwt.teacher import Origin, Teacher
from hf_dwt.teaching import Teaching

logger = logging.get_logger(__name__)

# What a user passes as `teacher`.
BASE = "base"


@dataclass(frozen=True)
class BaseTeacher(Teacher):
    """A teacher that is the base of an adapted student, and stays a part of it.

    Nothing is frozen, moved or copied. While it is asked, the adapter is off and the model in evaluation mode; then
    the student is as it was.

    Raises:
        ValueError: If the model has no adapter, or weights of the base are trained.
    """

    shares_student: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_fixed_base(self.model)

    def head_at(
        self,
        inputs: Mapping[str, Any],
        positions: Positions,
        num_shared_tokens: int,
        parts: Sequence[slice] = (slice(None),),
        **settings: Any,
    ) -> Head:
        """Its head at the positions; arguments are those of `Teacher.head_at`."""
        with adapter_off(self.model):
            head = super().head_at(inputs, positions, num_shared_tokens, parts, **settings)

        def logits_of(states: Tensor) -> Tensor:
            # Each part is run later, in the midst of the student's turn.
            with adapter_off(self.model):
                return head.logits_of(states)

        return replace(head, logits_of=logits_of) if len(head.parts) > 1 else head


class BaseTeaching(Teaching):
    """Lets a student hear its own base; arguments are those of `Teaching`.

    Attributes:
        student: Which is adapted; may be replaced, as each trial of a search does.

    Raises:
        ValueError: If the student has no adapter, weights of its base are trained, or the teacher shall have a
            precision or a place of its own.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        choices: DistillationArguments,
        processing_class: Any | None,
        accelerator: Accelerator,
    ) -> None:
        if choices.teacher_dtype is not None:
            raise ValueError(
                f'`teacher="{BASE}"` has the precision of the student, whose weights it shares: leave `teacher_dtype` '
                f"out, got {choices.teacher_dtype!r}."
            )
        if choices.teacher_placement != "replicated":
            raise ValueError(
                f'`teacher="{BASE}"` is where the student is, whose weights it shares: leave `teacher_placement` out, '
                f"got {choices.teacher_placement!r}."
            )
        self.student, self._processing_class = student, processing_class
        super().__init__(student, choices, student, processing_class, accelerator)
        self.facts = replace(self.facts, num_parameters=num_base_parameters(student), is_students_base=True)

    def introduce(
        self,
        batches: Sequence[Mapping[str, Any]],
        positions_of: Callable[[Mapping[str, Any]], Positions],
        student: PreTrainedModel | None,
    ) -> None:
        """Judge the base of the student that is trained now; that a new adapter says what its base says is no news."""
        self.teacher = None
        super().introduce(batches, positions_of, None)

    def let_go(self, step: int) -> None:
        """Ask no more; the base stays where it is."""
        if self.teacher is not None:
            logger.info(f"From step {step} on the base is not asked.")
            self.teacher = self._place = None

    def _taken(self, revision: str | None = None) -> Teacher:
        require_fixed_base(self.student)
        core: Any = self.student.get_base_model()
        commit = vars(core.config).get("_commit_hash")
        origin = Origin(core.name_or_path or None, commit, commit)
        return BaseTeacher(self.student, self._processing_class, origin)

    def _placed(self, teacher: Teacher) -> Place:
        is_sharded = is_zero3(self._accelerator) or self._accelerator.distributed_type == DistributedType.FSDP
        return Place(teacher.model, is_sharded, nullcontext, lambda: None)

    def _weights_of(self, teacher: Teacher) -> list[tuple[str, nn.Parameter]]:
        return base_parameters(teacher.model)


def require_fixed_base(student: nn.Module) -> None:
    """Check that a student's base can be asked, and stays as it is.

    Raises:
        ValueError: If the model has no adapter, or weights of the base are trained.
    """
    if not is_adapted(student):
        raise ValueError(
            f'`teacher="{BASE}"` is the student\'s own base with its adapter off, but `model` has no adapter of peft: '
            f"pass `peft_config`, or a `PeftModel`. A folder of that name is given as './{BASE}'."
        )
    trained = trained_of_base(student)
    if trained:
        raise ValueError(
            f'`teacher="{BASE}"` needs a base that stays as it is, but {len(trained)} of its weights are trained '
            f'beside the adapter: {", ".join(trained[:3])}. Train the adapter alone (with `bias="none"`, for instance).'
        )
