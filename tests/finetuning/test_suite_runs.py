"""Cells: run, kept, resumed, compared."""

import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModel, AutoTokenizer, Trainer

from hf_dwt import evaluate_suite
from hf_dwt.finetuning import runs
from hf_dwt.finetuning.full import tokenise
from hf_dwt.finetuning.models import load_classifier, open_candidate
from hf_dwt.finetuning.report import SuiteReport
from hf_dwt.finetuning.rows import read_rows
from hf_dwt.finetuning.suites import load_suite

# peft asks models by a name that transformers has given up.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.* is deprecated:FutureWarning")


def scores(report: SuiteReport) -> list[tuple[str, str, int, dict[str, float]]]:
    return [(cell.model, cell.task, cell.seed, cell.metrics) for cell in report.cells]


@pytest.mark.parametrize("method", ["full", "lora", "probe"])
@pytest.mark.parametrize("model", ["bert", "gpt2"])
def test_every_method_learns_what_is_easy_and_repeats_itself(
    method: str, model: str, task_file: Callable[..., str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, suite = (
        request.getfixturevalue(model),
        task_file(training={"learning_rate": 0.005, "epochs": 6, "batch_size": 8}),
    )
    first = evaluate_suite(folder, suite, seeds=[3], method=method, output_dir=tmp_path / "first")
    second = evaluate_suite(folder, suite, seeds=[3], method=method, output_dir=tmp_path / "second")
    assert not first.failed
    assert scores(first) == scores(second)
    if method != "lora":  # a head on eight directions of a random model is slow to learn
        assert first.cells[0].score > 0.8, "guessing is 0.5"


def test_finished_cells_are_not_repeated_and_an_interrupted_run_goes_on(
    bert: str, task_file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, done = task_file(), []

    def interrupted(*arguments: object) -> dict[str, np.ndarray]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments[3])
        return runs.fine_tune(*arguments)

    monkeypatch.setattr(runs, "_METHODS", {"full": interrupted})
    with pytest.raises(KeyboardInterrupt):
        evaluate_suite(bert, suite, seeds=3, output_dir=tmp_path / "out")
    assert done == [0, 1]
    with (tmp_path / "out" / "cells.jsonl").open("a") as file:
        file.write('{"model": "cut of')  # as a kill in the middle of a line leaves it
    seeds: list[int] = []
    monkeypatch.setattr(
        runs, "_METHODS", {"full": lambda *all_of: (seeds.append(all_of[3]), runs.fine_tune(*all_of))[1]}
    )
    resumed = evaluate_suite(bert, suite, seeds=3, output_dir=tmp_path / "out")
    assert seeds == [2]
    assert evaluate_suite(bert, suite, seeds=3, output_dir=tmp_path / "out").to_dict() == resumed.to_dict()
    assert seeds == [2]
    whole = evaluate_suite(bert, suite, seeds=3, output_dir=tmp_path / "whole")
    assert scores(whole) == scores(resumed)


def test_another_task_of_the_same_name_and_a_changed_model_are_run_anew(
    bert: str, task_file: Callable[..., str], tmp_path: Path
) -> None:
    options = {"seeds": 1, "method": "probe", "output_dir": tmp_path / "out"}
    first = evaluate_suite(bert, task_file(), **options)
    longer = evaluate_suite(bert, task_file(metrics=["accuracy", "f1"]), **options)
    assert first.cells[0].key != longer.cells[0].key
    changed = AutoModel.from_pretrained(bert)
    changed.embeddings.word_embeddings.weight.data.mul_(2)
    changed.save_pretrained(bert)
    assert evaluate_suite(bert, task_file(), **options).cells[0].key != first.cells[0].key


def test_a_cell_that_fails_is_reported_and_does_not_end_the_rest(
    bert: str, task_file: Callable[..., str], tmp_path: Path
) -> None:
    suite = Path(task_file())
    text = suite.read_text()
    broken = text.replace("words:", "broken:").replace("- text", "- sentence").removeprefix("tasks:\n")
    suite.write_text(text + broken)
    report = evaluate_suite(bert, suite, seeds=2, method="probe", output_dir=tmp_path / "out")
    assert [(cell.task, cell.seed) for cell in report.failed] == [("broken", 0), ("broken", 1)]
    assert "there is no column 'sentence', only 'text', 'label'" in str(report)
    assert report.summary(bert, "words") is not None
    assert report.summary(bert, "average") is None, "half of the tasks is no average"
    kept = (tmp_path / "out" / "cells.jsonl").read_text().splitlines()
    assert [json.loads(line)["task"] for line in kept] == ["words", "words"]


def test_a_cell_that_has_nothing_to_score_does_not_end_the_rest(
    bert: str, task_file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "score_predictions", lambda *_: {})
    report = evaluate_suite(bert, task_file(), seeds=2, method="probe", output_dir=tmp_path / "out")
    assert [cell.score for cell in report.failed] == [None, None]


@pytest.mark.parametrize("line", ['{"model": "me"}', "[1, 2]", "3"])
def test_a_file_of_other_lines_is_refused_before_any_work(
    line: str, bert: str, task_file: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "cells.jsonl").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"Line 1 of .*cells\.jsonl is no finished cell: .* name another folder"):
        evaluate_suite(bert, task_file(), seeds=1, method="probe", output_dir=tmp_path)


def test_glue_runs_end_to_end_with_both_dev_sets_of_mnli_and_a_regression(bert: str, glue: str, tmp_path: Path) -> None:
    report = evaluate_suite(bert, "glue", seeds=1, data=glue, output_dir=tmp_path / "out", method="probe")
    assert not report.failed
    cells = {cell.task: cell for cell in report.cells}
    assert len(cells) == 8
    mnli = cells["mnli"]
    assert mnli.metrics == {"validation_matched/accuracy": 1.0, "validation_mismatched/accuracy": 0.0}
    assert mnli.score == 0.5
    assert cells["stsb"].metrics.keys() == {"pearson", "spearman"}
    assert cells["stsb"].score > 0.9
    assert report.averaged == list(cells)
    assert report.summary(bert, "average").mean == pytest.approx(np.mean([cell.score for cell in cells.values()]))


@pytest.mark.parametrize("task", ["stsb", "mrpc", "mnli"])
def test_glue_is_fine_tuned_too(task: str, bert: str, glue: str, tmp_path: Path) -> None:
    report = evaluate_suite(bert, "glue", tasks=[task], seeds=1, data=glue, output_dir=tmp_path / "out")
    assert not report.failed


def test_seeds_change_the_head_and_the_order_and_nothing_else(
    bert: str, task_file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = open_candidate(bert, with_head=True)
    first, same, other = (load_classifier(candidate, ("a", "b"), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert {name for name in first if not torch.equal(first[name], other[name])} == {
        "classifier.weight",
        "bert.pooler.dense.weight",  # a masked LM has none
    }
    orders, draws = [], []
    step = Trainer.training_step

    def noted(self: Trainer, model: object, inputs: dict[str, torch.Tensor], *others: object) -> torch.Tensor:
        orders.append(inputs["input_ids"].sum(-1).tolist())
        draws.append(torch.random.get_rng_state().clone())
        return step(self, model, inputs, *others)

    monkeypatch.setattr(Trainer, "training_step", noted)
    evaluate_suite(bert, task_file(), seeds=2, output_dir=tmp_path / "out")
    half = len(orders) // 2
    assert orders[:half] != orders[half:]
    assert torch.equal(draws[0], draws[half]), "dropout is the same"


def test_adapters_are_kept_and_can_be_loaded_again(bert: str, task_file: Callable[..., str], tmp_path: Path) -> None:
    suite = task_file()
    report = evaluate_suite(bert, suite, seeds=[1], method="lora", output_dir=tmp_path / "out")
    (folder,) = (tmp_path / "out" / "adapters").iterdir()
    model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    task = load_suite(suite).tasks[0]
    held_out = read_rows(task).evaluation["held_out"]
    batch = AutoTokenizer.from_pretrained(bert)(list(held_out["text"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        right = model(**batch).logits.argmax(-1).numpy() == np.array(held_out["label"])
    assert right.mean() == pytest.approx(report.cells[0].score)


def test_texts_are_read_once_for_all_seeds(
    bert: str, task_file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_dwt.finetuning import probe

    loads = []
    load = probe.load_encoder
    monkeypatch.setattr(probe, "load_encoder", lambda candidate: (loads.append(candidate.name), load(candidate))[1])
    report = evaluate_suite(bert, task_file(), seeds=3, method="probe", output_dir=tmp_path / "out")
    assert loads == [bert]
    assert report.summary(bert, "words").interval is None
    assert "A probe draws nothing at random" in str(report)


def test_features_do_not_depend_on_the_rows_beside(gpt2: str, bert: str, tmp_path: Path, glue: str) -> None:
    from hf_dwt.finetuning.probe import features

    rows = read_rows(load_suite("glue", ["mrpc"], glue).tasks[0]).train
    for name in (bert, gpt2):
        candidate = open_candidate(name, with_head=False)
        (together,) = features(candidate, [rows], 128, tmp_path / "all")
        alone = [features(candidate, [rows.select([index])], 128, tmp_path / "one")[0][0] for index in range(5)]
        np.testing.assert_allclose(together[:5], alone, atol=1e-5)


def test_rows_are_cut_where_the_model_ends(gpt2: str, task_file: Callable[..., str]) -> None:
    rows = read_rows(
        load_suite(task_file({"text": [f"cat {index} " * 99 for index in range(60)], "label": [0, 1] * 30})).tasks[0]
    )
    tokens = tokenise(rows.train, open_candidate(gpt2, with_head=True), 128)
    assert {len(ids) for ids in tokens["input_ids"]} == {64}


def test_differences_are_from_the_first_model(
    bert: str, gpt2: str, task_file: Callable[..., str], tmp_path: Path
) -> None:
    report = evaluate_suite([bert, gpt2], task_file(), seeds=2, output_dir=tmp_path / "out")
    expected = np.mean([report.scores(gpt2, "words")[seed] - report.scores(bert, "words")[seed] for seed in (0, 1)])
    assert report.difference(gpt2, "words").mean == pytest.approx(expected)
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["differences_from_first"][gpt2]["words"]["mean"] == pytest.approx(expected)
    assert f"Differences from {bert}, paired by seed" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "prompt"}, "`method` must be one of full, lora, probe, got 'prompt'"),
        ({"seeds": 0}, "There is nothing to do"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options: dict[str, object], message: str, bert: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_suite(bert, "demo", **options)


def test_a_missing_library_is_told_before_any_training(monkeypatch, tmp_path):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(runs, "version", version)
    monkeypatch.setattr(runs, "open_candidate", None)
    with pytest.raises(ImportError, match=r"Suites need torch, which is not installed: pip install 'hf_dwt\[eval\]'"):
        evaluate_suite("./model", "demo", output_dir=tmp_path)
