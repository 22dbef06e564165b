"""Suites are read and checked; those that come with the package say what they should."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hf_dwt.finetuning.suites import load_suite, suite_names
from hf_dwt.sections import RecipeError


def test_every_suite_of_the_package_can_be_read() -> None:
    assert suite_names() == ["demo", "glue", "molecules"]
    assert all(len(load_suite(name).tasks) >= 3 for name in suite_names())


def test_glue_scores_what_glue_scores() -> None:
    tasks = {task.name: task for task in load_suite("glue").tasks}
    assert list(tasks) == ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte"]
    assert {name: task.metrics for name, task in tasks.items() if task.metrics != ["accuracy"]} == {
        "cola": ["matthews_correlation"],
        "mrpc": ["accuracy", "f1"],
        "qqp": ["accuracy", "f1"],
        "stsb": ["pearson", "spearman"],
    }
    assert tasks["mnli"].data.evaluation == ["validation_matched", "validation_mismatched"]
    assert [name for name, task in tasks.items() if task.kind == "regression"] == ["stsb"]


def test_an_optional_task_runs_where_it_is_named() -> None:
    (task,) = load_suite("glue", ["wnli"]).tasks
    assert task.optional


def test_another_copy_takes_the_place_of_every_source_but_not_of_packaged_sets() -> None:
    assert {task.data.source for task in load_suite("glue", data="./copy").tasks} == {"./copy"}
    assert {task.data.source for task in load_suite("demo", data="./copy").tasks} == {None}


def test_what_a_suite_says_for_all_a_task_may_say_otherwise(tmp_path: Path) -> None:
    task = "{data: {packaged: polarity}, text: [text], metrics: [accuracy]"
    text = (
        f"training: {{epochs: 4, learning_rate: 5e-4}}\ntasks:\n  a: {task}}}\n  b: {task}, training: {{epochs: 1}}}}"
    )
    (tmp_path / "own.yaml").write_text(text)
    first, second = load_suite(tmp_path / "own.yaml").tasks
    assert (first.training.epochs, second.training.epochs) == (4, 1)
    assert second.training.learning_rate == 5e-4
    assert first.fingerprint() != second.fingerprint()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"metrics": ["bleu"]}, "has no key `bleu`"),
        ({"metrics": []}, "`tasks.words.metrics` is empty"),
        ({"data": {"packaged": "polarity", "evaluation": []}}, "`tasks.words.data.evaluation` is empty"),
        ({"data": {"packaged": "polarity", "num_held_out": 0}}, "`tasks.words.data.num_held_out` is 0: .* at least 1"),
        ({"training": {"batch_size": 0}}, "`tasks.words.training.batch_size` is 0: it should be at least 1"),
        ({"metrics": "accuracy"}, "`tasks.words.metrics` should be a list of text, got 'accuracy'"),
        ({"metrics": [["accuracy"]]}, "`tasks.words.metrics` should be a list of text"),
        (
            {"metrics": ["accuracy", "pearson"]},
            "has 'pearson', which is for regression: for classification there are accuracy, f1, matthews_correlation",
        ),
        ({"kind": "regression"}, "has 'accuracy', which is for classification: for regression there are pearson"),
        ({"text": "text"}, "`tasks.words.text` should be a list of text, got 'text'"),
        ({"text": ["a", "b", "c"]}, "should be a list of one column or two"),
        ({"label": "text"}, "`tasks.words.label` is 'text', which is a column of `text` as well"),
        ({"lable": "y"}, "has no key `lable`. Did you mean `label`?"),
        ({"name": "other"}, "has no key `name`"),
        ({"kind": "ranking"}, "should be 'classification' or 'regression', got 'ranking'"),
        ({"data": {}}, "should have one of `source` and `packaged`"),
        ({"data": {"source": "x", "packaged": "y"}}, "should have one of `source` and `packaged`"),
        ({"data": None}, "`tasks.words.data` should be a mapping, got None"),
        ({"data": {"source": "x", "evaluation": "test"}}, "should be a list of text or empty, got 'test'"),
        ({"training": None}, "`tasks.words.training` should be a mapping, got None"),
        ({"training": {"epochs": "many"}}, "`tasks.words.training.epochs` should be a number, got 'many'"),
    ],
)
def test_what_is_wrong_in_a_task_is_named(task: dict[str, object], message: str, task_file: Callable[..., str]) -> None:
    with pytest.raises(RecipeError, match=message):
        load_suite(task_file(**task))


def test_a_suite_without_a_mapping_of_tasks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("tasks: [one, two]")
    with pytest.raises(RecipeError, match=r"`suite\.tasks` should be a mapping, got \['one', 'two'\]"):
        load_suite(tmp_path / "own.yaml")
    (tmp_path / "own.yaml").write_text("a long text\n" * 50)
    with pytest.raises(RecipeError, match=r"own\.yaml' is no suite: it should be a mapping with `tasks`\.$"):
        load_suite(tmp_path / "own.yaml")


def test_a_suite_or_a_task_that_is_not_there_is_named() -> None:
    with pytest.raises(RecipeError, match="one of demo, glue, molecules"):
        load_suite("superglue")
    with pytest.raises(RecipeError, match=r"no task 'sst'\. Did you mean `sst2`"):
        load_suite("glue", ["sst"])
