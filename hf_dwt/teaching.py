"""The teacher of a trainer: taken, asked about batches, and let go when the policy has no more use for it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from os import PathLike
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging

from hf_dwt.arguments import DistillationArguments
from hf_dwt.compatibility import check_pair, judge, require_unknown_token, warn_of_added_tokens, warn_of_equals
from hf_dwt.heads import Head, parts_of
from hf_dwt.identity import TeacherIdentity, fingerprint_of
from hf_dwt.placement import Place, make_whole, place, require_placement, whole
from hf_dwt.positions import Positions, without_labels
from hf_dwt.preflight import first_impression
from hf_dwt.probe import Probe
from hf_dwt.publishing.record import TeacherFacts
from hf_dwt.teacher import Origin, Teacher, as_teacher
from hf_dwt.topk_losses import Excerpt
from hf_dwt.unsharded import num_entries
from hf_dwt.vocabulary import num_shared_tokens, num_tokens

logger = logging.get_logger(__name__)

# Positions that are enough to see whether two models say the same.
_FEW = 100


class Teaching:
    """Holds the teacher while it is needed.

    Args:
        source: What the user passed as `teacher`, not None.
        choices: Precision of the teacher, where to keep it, and what to do about tokens that it lacks.
        student: Unwrapped.
        processing_class: The student's tokenizer, if it is known.
        accelerator: Says where the batches are, and in what precision models are run.

    Raises:
        TypeError: If the source is no teacher.
        ValueError: If teacher and student do not fit together, or this run cannot keep the teacher where it shall be.
    """

    def __init__(
        self,
        source: Teacher | PreTrainedModel | str | PathLike[str],
        choices: DistillationArguments,
        student: PreTrainedModel,
        processing_class: Any | None,
        accelerator: Accelerator,
    ) -> None:
        self._source, self._choices, self._accelerator = source, choices, accelerator
        require_placement(choices.teacher_placement, accelerator)
        self.teacher: Teacher | None = self._taken()
        check_pair(self.teacher, student)
        if choices.map_added_tokens_to_unknown:
            require_unknown_token(self.teacher)
        num_student_tokens = student.config.get_text_config().vocab_size
        self._num_shared_tokens = num_shared_tokens(
            self.teacher.processing_class, processing_class, self.teacher.vocab_size, num_student_tokens
        )
        if processing_class is not None and not choices.map_added_tokens_to_unknown:
            warn_of_added_tokens(self.teacher, num_tokens(processing_class) - self._num_shared_tokens)
        self._student_may_add_tokens = num_student_tokens > self._num_shared_tokens
        self.origin: Origin = self.teacher.origin
        model: PreTrainedModel = unwrap_peft_model(self.teacher.model)
        self.facts = TeacherFacts(self.origin, type(model).__name__, num_entries(model.parameters()), model.config)
        self._place: Place | None = self._placed(self.teacher)
        fingerprint = fingerprint_of((name, whole(each)) for name, each in self._weights_of(self.teacher))
        self.identity = TeacherIdentity(self.origin.name, self.origin.commit, fingerprint)

    def new_probe(
        self, batches: Iterable[Mapping[str, Any]] | None, positions_of: Callable[[Mapping[str, Any]], Positions]
    ) -> Probe:
        """Make a probe of the tokens that both models know, see there."""
        return Probe(batches, positions_of, self._num_shared_tokens, self._accelerator)

    def take_back(self) -> Teacher:
        """Return the teacher, which is loaded and placed again if it had been let go."""
        if self.teacher is None:
            # The very one that was there before: a branch may have moved.
            self.teacher = self._taken(self.origin.commit)
            self._place = self._placed(self.teacher)
        return self.teacher

    def _taken(self, revision: str | None = None) -> Teacher:
        choices = self._choices
        held = self._source.model if isinstance(self._source, Teacher) else self._source
        if isinstance(held, nn.Module) and (choices.teacher_dtype or choices.teacher_placement != "sharded"):
            # Before it is cast, which would pass by what is divided.
            make_whole(held)
        return as_teacher(self._source, choices.teacher_dtype, revision=revision)

    def _placed(self, teacher: Teacher) -> Place:
        return place(teacher.model, self._choices.teacher_placement, self._accelerator)

    def _weights_of(self, teacher: Teacher) -> Iterable[tuple[str, nn.Parameter]]:
        named: Iterable[tuple[str, nn.Parameter]] = teacher.model.named_parameters()
        return named

    def introduce(
        self,
        batches: Sequence[Mapping[str, Any]],
        positions_of: Callable[[Mapping[str, Any]], Positions],
        student: PreTrainedModel | None,
    ) -> None:
        """Judge the teacher before it speaks, and see whether a student at its start has anything to learn from it.

        Args:
            batches: As `preflight.first_batches` returns them, on the teacher's device; none if the data cannot be
                looked at without taking examples away.
            positions_of: Finds the positions of a batch.
            student: None if it is not compared with the teacher, as one that has been trained already.

        Raises:
            ValueError: If the teacher is no better than guessing.
        """
        teacher = self.take_back()
        if not batches:
            logger.warning(
                "The data come from a loader of your own, or can be read once only: the teacher is not checked."
            )
            return
        impression = first_impression(batches, positions_of, self.head_at)
        judge(teacher, impression, allow_bad_teacher=self._choices.allow_bad_teacher)
        if student is not None:
            batch = next(each for each in batches if len(positions_of(each)))
            positions = positions_of(batch)[:_FEW]
            own = self.head_at(batch, positions).logits(slice(None))
            warn_of_equals(student, without_labels(batch), positions, own)

    def collator(self, collator: Callable[[list[Any]], dict[str, Any]], dataset: Any) -> Callable[..., dict[str, Any]]:
        """What makes the training batches: as it is, since the teacher is asked about them when they come."""
        return collator

    def epoch_of_masks(self, epoch: int) -> int:
        """Which epoch's masks an epoch of training takes: its own."""
        return epoch

    def take_excerpt(self, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Any], Excerpt | None]:
        """Part a batch into what models read and what the teacher said already: nothing."""
        return inputs, None

    def refuse_as_broken(self, num_positions: int) -> None:
        """Refuse to go on with a teacher that was broken at some positions.

        Raises:
            FloatingPointError: Always.
        """
        raise FloatingPointError(
            f"The teacher ({self.origin}) gave logits that are not finite, at {num_positions} positions since "
            "training began. The student has learnt from them: go back to its last checkpoint."
        )

    def let_go(self, step: int) -> None:
        """Free the teacher's memory on the accelerator, and altogether where nobody else holds it."""
        if self.teacher is not None:
            logger.info(f"From step {step} on the teacher ({self.origin}) is not asked.")
            assert self._place is not None
            self._place.release()
            self.teacher = self._place = None

    def head_at(self, inputs: Mapping[str, Any], positions: Positions) -> Head:
        """Ask the teacher: its head, with logits of the shared tokens of shape (rows, shared tokens), without gradient.

        Args:
            inputs: Of the student; labels are left out.
            positions: Where to predict.
        """
        assert self.teacher is not None
        assert self._place is not None
        there = self._place
        with there.at_hand(), self._precision():
            head = self.teacher.head_at(
                without_labels(inputs),
                positions,
                self._num_shared_tokens,
                [slice(None)] if there.is_sharded else parts_of(positions, self.teacher.vocab_size),
                run=there.run,
                map_added_tokens_to_unknown=self._choices.map_added_tokens_to_unknown,
                student_may_add_tokens=self._student_may_add_tokens,
            )

        def logits_of(states: Tensor) -> Tensor:
            with there.at_hand(), self._precision():
                return head.logits_of(states)

        return replace(head, logits_of=logits_of)

    def _precision(self) -> AbstractContextManager[None]:
        """Run a teacher of float32 as the student is run, and one of lower precision as it is, without any casts."""
        assert self.teacher is not None
        if self.teacher.model.dtype == torch.float32:
            context: AbstractContextManager[None] = self._accelerator.autocast()
            return context
        return torch.autocast(self._accelerator.device.type, enabled=False)
