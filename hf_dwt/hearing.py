"""How a student hears its teacher: asked live, as the student's own base, or from a cache."""

from os import PathLike
from typing import Any, TypeAlias

from accelerate import Accelerator
from transformers import PreTrainedModel

from hf_dwt.arguments import DistillationArguments
from hf_dwt.base_teaching import BASE, BaseTeaching
from hf_dwt.cache.reading import TeacherCache
from hf_dwt.cached_teaching import CachedTeaching
from hf_dwt.teacher import Teacher
from hf_dwt.teaching import Teaching

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
