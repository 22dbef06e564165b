"""Rows are split without leaks; labels become numbers, or are refused."""

from collections.abc import Callable

import pytest

from hf_dwt.finetuning.rows import read_rows
from hf_dwt.finetuning.suites import load_suite


def read(path: str) -> object:
    return read_rows(load_suite(path).tasks[0])


def test_of_equal_texts_one_is_kept_before_rows_are_put_aside(task_file: Callable[..., str]) -> None:
    columns = {
        "text": [f"text {index % 50}" for index in range(200)],
        "label": [index % 50 % 2 for index in range(200)],
    }
    rows = read(task_file(columns))
    train, held_out = rows.train["text"], rows.evaluation["held_out"]["text"]
    assert (len(train), len(held_out)) == (20, 30)
    assert len({*train, *held_out}) == 50


def test_the_same_rows_are_put_aside_every_time(task_file: Callable[..., str]) -> None:
    path = task_file()
    first, second = read(path), read(path)
    assert first.evaluation["held_out"].to_dict() == second.evaluation["held_out"].to_dict()


def test_words_and_numbers_with_gaps_become_classes(task_file: Callable[..., str]) -> None:
    texts = [f"text {index}" for index in range(60)]
    words = read(task_file({"text": texts, "label": ["dog", "cat"] * 30}))
    assert words.labels == ("cat", "dog")
    given = {f"text {index}": 1 - index % 2 for index in range(60)}
    assert words.train["label"][:] == [given[text] for text in words.train["text"]]
    assert read(task_file({"text": texts, "label": [2, 7] * 30})).labels == ("2", "7")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"text": ["sentence"]}, "Task `words`: there is no column 'sentence', only 'text', 'label'"),
        ({"label": "stars"}, "there is no column 'stars'"),
    ],
)
def test_columns_that_are_missing_are_named(
    task: dict[str, object], message: str, task_file: Callable[..., str]
) -> None:
    with pytest.raises(ValueError, match=message):
        read(task_file(**task))


def test_labels_that_say_nothing_are_refused(task_file: Callable[..., str]) -> None:
    texts = [f"text {index}" for index in range(60)]
    with pytest.raises(ValueError, match="has one class only, '1'"):
        read(task_file({"text": texts, "label": [1] * 60}))
    with pytest.raises(ValueError, match=r"is a regression, but a label is '[ab]': set `label` to a column of numbers"):
        read(task_file({"text": texts, "label": ["a", "b"] * 30}, kind="regression", metrics=["pearson"]))
    with pytest.raises(ValueError, match="a label is None, which is no class; known: a, b"):
        read(task_file({"text": texts, "label": ["a", "b", None] * 20}))


def test_more_classes_than_a_metric_knows_are_refused(task_file: Callable[..., str]) -> None:
    columns = {"text": [f"text {index}" for index in range(60)], "label": ["a", "b", "c"] * 20}
    with pytest.raises(ValueError, match="Task `words` has 3 classes, but the metric 'f1' is for two"):
        read(task_file(columns, metrics=["f1"]))
    assert len(read(task_file(columns, metrics=["matthews_correlation"])).labels) == 3


def test_too_few_rows_to_put_some_aside_are_refused(task_file: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="has 20 different rows, and 30 should be held out"):
        read(task_file({"text": [f"text {index}" for index in range(20)], "label": [0, 1] * 10}))


def test_glue_is_read_by_its_own_splits(glue: str) -> None:
    tasks = {task.name: task for task in load_suite("glue", data=glue).tasks}
    mnli, stsb = read_rows(tasks["mnli"]), read_rows(tasks["stsb"])
    assert mnli.labels == ("entailment", "neutral", "contradiction")
    matched, mismatched = mnli.evaluation["validation_matched"], mnli.evaluation["validation_mismatched"]
    assert matched["text"][:] == mismatched["text"][:]
    assert matched["label"][:] != mismatched["label"][:]
    assert stsb.labels is None
    assert all(isinstance(label, float) for label in stsb.train["label"])
