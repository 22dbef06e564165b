"""The teacher of a trainer: taken, asked about batches, and let go when the policy has no more use for it."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_dwt.arguments import DistillationArguments
from hf_dwt.compatibility import check_pair, judge, require_unknown_token, warn_of_equals
from hf_dwt.positions import Positions, without_labels
from hf_dwt.preflight import first_impression
from hf_dwt.remapping.plan import plan_of
from hf_dwt.teacher import Origin, Teacher, as_teacher
from hf_dwt.vocabulary import num_shared_tokens

logger = logging.get_logger(__name__)


class Teaching:
    """Holds the teacher while it is needed.

    Args:
        source: What the user passed as `teacher`, not None.
        choices: Precision of the teacher, and what to do about tokens that it lacks.
        student: Unwrapped.
        processing_class: The student's tokenizer, if it is known.
        device: Where the batches are.

    Raises:
        TypeError: If the source is no teacher.
        ValueError: If teacher and student do not fit together.
    """

    def __init__(
        self,
        source: Teacher | PreTrainedModel | str | PathLike[str],
        choices: DistillationArguments,
        student: PreTrainedModel,
        processing_class: Any | None,
        device: torch.device,
    ) -> None:
        self._source, self._choices, self._device = source, choices, device
        self.teacher: Teacher | None = as_teacher(source, choices.teacher_dtype)
        check_pair(self.teacher, student)
        if choices.map_added_tokens_to_unknown:
            require_unknown_token(self.teacher)
        num_student_tokens = student.config.get_text_config().vocab_size
        self._num_shared_tokens = num_shared_tokens(
            self.teacher.processing_class, processing_class, self.teacher.vocab_size, num_student_tokens
        )
        self._student_may_add_tokens = num_student_tokens > self._num_shared_tokens
        self.origin: Origin = self.teacher.origin
        self.teacher.model.to(device)

    def take_back(self) -> Teacher:
        """Return the teacher, which is loaded and placed again if it had been let go."""
        if self.teacher is None:
            self.teacher = as_teacher(self._source, self._choices.teacher_dtype)
            self.teacher.model.to(self._device)
        return self.teacher

    def introduce(
        self,
        batches: Sequence[Mapping[str, Any]],
        positions_of: Callable[[Mapping[str, Any]], Positions],
        logits_of: Callable[[Mapping[str, Any], Positions], Tensor],
        student: PreTrainedModel | None,
    ) -> None:
        """Judge the teacher before it speaks, and see whether a student at its start has anything to learn from it.

        Args:
            batches: As `preflight.first_batches` returns them, on the teacher's device; none if the data cannot be
                looked at without taking examples away.
            positions_of: Finds the positions of a batch.
            logits_of: Asks the teacher.
            student: None if it has been trained already.

        Raises:
            ValueError: If the teacher is no better than guessing.
        """
        teacher = self.take_back()
        if not batches:
            logger.warning(
                "The data come from a loader of your own, or can be read once only: the teacher is not checked."
            )
            return
        impression = first_impression(batches, positions_of, logits_of)
        judge(teacher, impression, allow_bad_teacher=self._choices.allow_bad_teacher)
        if plan_of(student) is not None:
            assert student is not None
            positions = positions_of(batches[0])
            warn_of_equals(student, without_labels(batches[0]), positions, logits_of(batches[0], positions))

    def let_go(self, step: int) -> None:
        """Free the teacher's memory on the accelerator, and altogether where nobody else holds it."""
        if self.teacher is not None:
            logger.info(f"From step {step} on the teacher ({self.origin}) is not asked.")
            self.teacher.model.to("cpu")
            self.teacher = None

    def logits_at(self, inputs: Mapping[str, Any], positions: Positions) -> Tensor:
        """Ask the teacher: logits of the shared tokens, shape (positions, shared tokens), without gradient."""
        assert self.teacher is not None
        return self.teacher.logits_at(
            without_labels(inputs),
            positions,
            self._num_shared_tokens,
            map_added_tokens_to_unknown=self._choices.map_added_tokens_to_unknown,
            student_may_add_tokens=self._student_may_add_tokens,
        )
