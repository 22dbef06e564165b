"""The tokens that teacher and student share: what both may be compared on."""

from collections.abc import Mapping
from typing import Any

_SPECIAL_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def num_shared_tokens(
    teacher_processing_class: Any | None,
    student_processing_class: Any | None,
    teacher_vocab_size: int,
    student_vocab_size: int,
) -> int:
    """Count the real tokens that both models predict: ids 0 up to, not including, this number.

    Rows beyond a tokenizer's last token are padding, on either side. The student's tokenizer may have added tokens
    after the teacher's. Without tokenizers only the sizes can be compared.

    Args:
        teacher_processing_class: The teacher's tokenizer, if it is known.
        student_processing_class: The student's tokenizer, if it is known.
        teacher_vocab_size: Width of the teacher's logits.
        student_vocab_size: Width of the student's logits.

    Raises:
        ValueError: If the tokenizers give a token different ids, or their special tokens differ.
    """
    shared = min(teacher_vocab_size, student_vocab_size)
    known = [each for each in (teacher_processing_class, student_processing_class) if each is not None]
    if len(known) == 2:
        _check_same_tokens(known[0].get_vocab(), known[1].get_vocab())
        _check_same_special_tokens(*known)
    return min([shared, *map(num_tokens, known)])


def num_tokens(processing_class: Any) -> int:
    """Count a tokenizer's ids, those included that no token has: one more than the last token's id."""
    return 1 + max(processing_class.get_vocab().values(), default=-1)


def _check_same_tokens(teacher: Mapping[str, int], student: Mapping[str, int]) -> None:
    students = {index: token for token, index in student.items()}
    differing = sorted((index, token) for token, index in teacher.items() if students.get(index) != token)
    if differing:
        index, token = differing[0]
        raise ValueError(
            f"`teacher` and `model` must share one vocabulary: they differ at {len(differing)} tokens, first id "
            f"{index} ({token!r} vs {students.get(index)!r}). Build the student with the teacher's tokenizer; it may "
            "add tokens after the teacher's, nothing else."
        )


def _check_same_special_tokens(teacher: Any, student: Any) -> None:
    for name in _SPECIAL_TOKENS:
        ids = [getattr(tokenizer, f"{name}_token_id") for tokenizer in (teacher, student)]
        if None not in ids and ids[0] != ids[1]:
            raise ValueError(
                f"`teacher` and `model` must share their special tokens: `{name}_token_id` is {ids[0]} vs {ids[1]}. "
                "Build the student with the teacher's tokenizer."
            )
