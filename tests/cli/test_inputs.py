"""Text becomes training and held-out examples that share no row."""

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import WORDS, make_teacher, tokenizer

from hf_dwt.cli.inputs import Inputs, read_inputs
from hf_dwt.cli.recipe import make_recipe
from hf_dwt.data import CausalCollator, MaskingCollator
from hf_dwt.sections import RecipeError


@pytest.fixture
def text(tmp_path: Path) -> Path:
    # Each row is another sequence of words, so that rows can be told apart.
    rows = [" ".join([WORDS[i % 10], WORDS[i // 10 % 10], WORDS[i // 100], WORDS[3 * i % 10]]) for i in range(400)]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    return str(tmp_path / "teacher")


def read(text: Path, teacher: str | None = None, **data: Any) -> Inputs:
    own = {"objective": "causal", "tokenizer": {"kind": "bpe", "vocab_size": 300}}
    whose = {"teacher": {"name": teacher}} if teacher else own
    student = {"num_hidden_layers": 2} if teacher else {"model_type": "gpt2"}
    content = {"student": student, "data": {"source": str(text), **data}, **whose}
    return read_inputs(make_recipe(content), seed=0)


def rows_of(examples: Any) -> set[tuple[int, ...]]:
    return {tuple(row["input_ids"]) for row in examples}


def test_sentences_are_put_aside_and_not_trained_on(text: Path, teacher: str) -> None:
    inputs = read(text, teacher, form="sentences", length=16, num_evaluation_examples=40)
    assert len(inputs.evaluation) == 40
    assert len(inputs.train) == 360
    assert not rows_of(inputs.train) & rows_of(inputs.evaluation)
    assert inputs.teacher is not None
    assert inputs.kind == "masked"
    assert isinstance(inputs.collator, MaskingCollator)
    assert inputs.tokenizer.get_vocab() == tokenizer().get_vocab()


def test_held_out_text_may_be_a_file_of_its_own(text: Path, teacher: str, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("cat dog hill\n" * 5)
    inputs = read(text, teacher, form="sentences", length=16, evaluation_source=str(tmp_path / "other.txt"))
    assert (len(inputs.train), len(inputs.evaluation)) == (400, 5)


def test_split_name_and_revision_belong_to_the_source_alone(text: Path, teacher: str, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("cat dog hill\n" * 5)
    settings = {"split": "train[:50%]", "form": "sentences", "length": 16}
    inputs = read(text, teacher, evaluation_source=str(tmp_path / "other.txt"), **settings)
    assert (len(inputs.train), len(inputs.evaluation)) == (200, 5)
    own = {"source": str(tmp_path / "other.txt"), "split": "train[:2]"}
    assert len(read(text, teacher, evaluation_source=own, **settings).evaluation) == 2
    assert len(read(text, teacher, evaluation_source=[own, own], **settings).evaluation) == 4


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_that_is_not_there_is_named(streaming: bool, text: Path) -> None:
    source = text.with_suffix(".jsonl")
    source.write_text('{"line": "cat dog"}\n' * 9)
    with pytest.raises(RecipeError, match=r"`data\.text_column` is 'text', but .* no such column, only 'line'"):
        read(source, streaming=streaming)


def test_too_little_held_out_text_is_told_as_such(text: Path, teacher: str, tmp_path: Path) -> None:
    text.write_text("\n".join(["cat dog hill"] * 12))
    with pytest.raises(RecipeError, match=r"held-out text .* `data\.length`.* `data\.evaluation_source`"):
        read(text, teacher, length=16)
    text.write_text("cat dog hill")
    with pytest.raises(RecipeError, match=r"is one row: .* `data\.evaluation_source`"):
        read(text, teacher, length=16)


def test_several_sources_are_joined_and_thinned(text: Path, teacher: str) -> None:
    sources = [{"source": str(text)}, {"source": str(text)}]
    inputs = read(text, teacher, source=sources, take_every=4, form="sentences", length=16, num_evaluation_examples=20)
    assert len(inputs.train) + len(inputs.evaluation) == 200


def test_without_a_teacher_a_tokenizer_is_trained(text: Path) -> None:
    inputs = read(text, length=16, num_evaluation_examples=4)
    assert inputs.teacher is None
    assert isinstance(inputs.collator, CausalCollator)
    assert len(inputs.tokenizer) <= 300
    assert {len(row["input_ids"]) for row in inputs.train} == {16}


def test_a_stream_is_split_from_its_start(text: Path, teacher: str) -> None:
    inputs = read(text, teacher, streaming=True, form="sentences", length=16, num_evaluation_examples=10)
    evaluation, train = list(inputs.evaluation), list(inputs.train)
    assert (len(evaluation), len(train)) == (10, 390)


def test_without_teacher_and_tokenizer_it_is_said_what_is_missing(text: Path) -> None:
    recipe = make_recipe({"student": {"model_type": "gpt2"}, "data": {"source": str(text)}, "objective": "causal"})
    with pytest.raises(RecipeError, match="needs a `tokenizer`"):
        read_inputs(recipe, seed=0)
