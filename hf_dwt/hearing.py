"""How a student hears its teacher, asked live, as its own base, or from a cache; and the losses against it."""

from os import PathLike
from typing import Any, TypeAlias

from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from hf_dwt.arguments import DistillationArguments
from hf_dwt.base_teaching import BASE, BaseTeaching
from hf_dwt.cache.reading import TeacherCache
from hf_dwt.cached_teaching import CachedTeaching
from hf_dwt.fused_losses import Losses, fused_losses
from hf_dwt.heads import Head
from hf_dwt.teacher import Teacher
from hf_dwt.teaching import Teaching
from hf_dwt.topk_losses import Excerpt, excerpt_losses

TeacherSource: TypeAlias = Teacher | TeacherCache | PreTrainedModel | str | PathLike[str]


def make_teaching(
    source: TeacherSource,
    choices: DistillationArguments,
    student: PreTrainedModel,
    processing_class: Any | None,
    accelerator: Accelerator,
) -> Teaching | CachedTeaching:
    """Take a teacher, or what is cached of one; arguments and errors are those of the two classes."""
    if isinstance(source, TeacherCache):
        return CachedTeaching(source, choices, student, processing_class, accelerator)
    # A path is a folder, whatever it is called.
    if isinstance(source, str) and source == BASE:
        return BaseTeaching(student, choices, processing_class, accelerator)
    return Teaching(source, choices, student, processing_class, accelerator)


def losses_against(
    teacher: Head | Excerpt | None, student_logits: Tensor, labels: Tensor, rows: slice, **settings: Any
) -> tuple[Losses, Tensor | None]:
    """All losses of some positions, and where the teacher knows the label; None without a teacher.

    Args:
        teacher: Asked just now, heard from a cache, or not asked.
        student_logits: Shape (rows, vocabulary).
        labels: Shape (rows,).
        rows: Which of the teacher's positions these are.
        settings: Those of `fused_losses`.
    """
    if isinstance(teacher, Excerpt):
        losses = excerpt_losses(student_logits, teacher[rows], labels, settings["label_smoothing"])
        return losses, labels < teacher.num_shared_tokens
    teacher_logits = None if teacher is None else teacher.logits(rows)
    losses = fused_losses(student_logits, teacher_logits, labels, **settings)
    return losses, None if teacher_logits is None else labels < teacher_logits.shape[-1]
