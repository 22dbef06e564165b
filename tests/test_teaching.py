"""The teacher is asked, let go and taken back."""

import copy
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from tiny_runs import build, collator, examples, make_student, make_teacher, tokenizer
from torch.utils._python_dispatch import TorchDispatchMode

from hf_dwt.arguments import DistillationArguments
from hf_dwt.positions import masked_positions
from hf_dwt.teacher import Teacher
from hf_dwt.teaching import Teaching

ACCELERATOR = Accelerator(cpu=True)


def teaching(source: object, student: object = None, **choices: object) -> Teaching:
    return Teaching(source, DistillationArguments(**choices), student or make_student(), tokenizer(), ACCELERATOR)


def test_it_answers_with_the_logits_of_the_shared_tokens_and_without_gradient() -> None:
    wide = build("masked", hidden_size=12, num_layers=1)
    wide.resize_token_embeddings(len(tokenizer()) + 3)
    batch = collator("masked")(list(examples())[:4])
    positions = masked_positions(batch["labels"])
    logits = teaching(wide).head_at(batch, positions).logits(slice(None))
    assert logits.shape == (len(positions), len(tokenizer()))
    assert not logits.requires_grad


def test_a_folder_is_read_again_when_it_is_taken_back(tmp_path: Path) -> None:
    make_teacher().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    lesson = teaching(str(tmp_path))
    first = lesson.teacher
    lesson.let_go(step=3)
    assert lesson.teacher is None
    assert lesson.origin.name == str(tmp_path)
    again = lesson.take_back()
    assert again is lesson.teacher is not first
    assert again is lesson.take_back()


def test_a_teacher_of_the_users_is_left_as_it_is() -> None:
    own = Teacher(make_teacher())
    lesson = teaching(own)
    lesson.let_go(step=1)
    assert own.model is not None
    assert lesson.take_back() is own


def test_teacher_and_student_are_checked_before_anything_else() -> None:
    with pytest.raises(ValueError, match="a masked language model, `model` a causal one"):
        teaching(make_teacher(), student=make_student("causal"))
    with pytest.raises(ValueError, match="needs a teacher with an unknown token"):
        teaching(make_teacher(), map_added_tokens_to_unknown=True)


def test_tokens_that_the_student_has_added_are_told_unless_they_are_mapped(caplog: pytest.LogCaptureFixture) -> None:
    more = copy.deepcopy(tokenizer())
    more.add_tokens(["moon", "star"])
    student = make_student()
    student.resize_token_embeddings(len(more))

    def taught(added: bool = True, **choices: object) -> Teaching:
        known = Teacher(make_teacher(), tokenizer())
        return Teaching(known, DistillationArguments(**choices), student, more if added else tokenizer(), ACCELERATOR)

    told = "The student's tokenizer has 2 tokens that the teacher (a model passed in memory) lacks"
    taught(map_added_tokens_to_unknown=True)
    taught(added=False)
    assert told not in caplog.text
    taught()
    assert told in caplog.text


def test_a_copy_of_the_teacher_is_told_by_the_first_batch_that_asks_for_something(
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch = collator("masked")(list(examples()))
    nothing = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    for student, is_equal in ((make_student(), False), (make_teacher(), True)):
        lesson = teaching(make_teacher(), student=student)
        lesson.introduce([nothing, batch], lambda inputs: masked_positions(inputs["labels"]), student)
        assert ("starts as its teacher's equal" in caplog.text) is is_equal


class Waits(TorchDispatchMode):
    """Counts the times that a value is read, for which a GPU would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("added_rows", "reads"), [(0, 0), (3, 1)])
def test_tokens_that_the_teacher_lacks_are_looked_for_only_where_there_can_be_any(added_rows: int, reads: int) -> None:
    student = make_student()
    student.resize_token_embeddings(len(tokenizer()) + added_rows)
    lesson = teaching(make_teacher(), student=student)
    batch = collator("masked")(list(examples())[:4])
    positions = masked_positions(batch["labels"])
    counts = []
    for looks in (lesson._student_may_add_tokens, False):
        lesson._student_may_add_tokens = looks
        with Waits() as waits:
            lesson.head_at(batch, positions).logits(slice(None))
        counts.append(waits.count)
    assert counts[0] - counts[1] == reads
