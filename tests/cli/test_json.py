"""With `--json` stdout is JSON and nothing else: of the keys that `--help` names, and the values of the table."""

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset
from tiny_runs import WORDS

from hf_dwt import TeacherReport
from hf_dwt.cli import main
from hf_dwt.cli.parser import JSON_KEYS

Answered = Callable[..., tuple[Any, str]]


@pytest.fixture
def answered(recipe_folder: Path, capsys: pytest.CaptureFixture[str]) -> Answered:
    """Runs a command with `--json`; returns what stdout holds, and the text that went elsewhere."""

    def run(*words: str) -> tuple[Any, str]:
        assert main([*words, "--json"]) == 0
        output = capsys.readouterr()
        return json.loads(output.out, parse_constant=pytest.fail), " ".join(output.err.split())

    return run


def keys_told(command: str) -> list[set[str]]:
    """The keys of each way to run a command, as its help lists them."""
    return [set(re.findall(r"\w+", part.rpartition(" of a dry run ")[2])) for part in JSON_KEYS[command].split(";")]


def test_a_run_is_told_row_by_row(answered: Answered) -> None:
    content, text = answered("train", "recipe.yaml", "--baseline")
    assert set(content) == keys_told("train")[0]
    assert [row["name"] for row in content["runs"]] == ["with teacher", "alone, equal steps", "alone, equal cost"]
    for row in content["runs"]:
        cells = f"{row['name']} {row['steps']:,} {row['loss']:.4f} {row['accuracy']:.2%} {row['gap']:+.4f} "
        assert f"{cells}{row['seconds']:.0f} s {row['cost']:.2f} {row['teacher_share']:.0%}" in text
    assert f"teacher {content['teacher']['loss']:.4f} {content['teacher']['accuracy']:.2%}" in text
    assert all(line in text for line in content["summary"])
    assert content["output_dir"] == "student"


def test_what_is_not_there_or_not_known_is_null(answered: Answered) -> None:
    alone = ["--teacher", "null", "--tokenizer.name", "teacher", "--objective", "masked"]
    content, _ = answered("train", "recipe.yaml", *alone, "--student.model_type", "bert")
    assert content["teacher"] is None
    assert content["runs"][0]["gap"] is None
    assert content["summary"] == []


def test_a_dry_run_tells_the_values_of_its_table(answered: Answered) -> None:
    content, text = answered("train", "recipe.yaml", "--dry-run")
    assert set(content) == keys_told("train")[1]
    assert content["objective"] == "masked"
    assert content["max_steps"] == 4
    for part in (
        f"{content['student_parameters']:,} parameters",
        f"{content['teacher_parameters']:,} parameters",
        f"{content['teacher_share']:.0%} at 24 tokens",
        " -> ".join(f"{weight:g}" for weight in content["soft_loss_weight"]),
        f"{content['tokens_per_step']:,} at most",
    ):
        assert part in text
    content, text = answered("train", "recipe.yaml", "--dry-run", "--max-steps", "-1")
    assert content["max_steps"] is None
    assert "unknown until read" in text


def test_an_assessment_tells_the_figures_of_its_table(answered: Answered) -> None:
    content, text = answered("assess", "recipe.yaml", "--standalone-loss", "1.5")
    assert set(content) == {field.name for field in fields(TeacherReport)}
    for part in (
        f"{content['loss']:.4f} nats, perplexity {content['perplexity']:.2f}, accuracy {content['accuracy']:.2%}",
        f"{content['num_examples']:,}, {content['num_positions']:,} positions",
        f"{content['verdict']}: {content['evidence']}",
    ):
        assert part in text


def test_a_growth_tells_its_sizes_plan_and_report(answered: Answered) -> None:
    sizes = ["--hidden-size", "24", "--num-hidden-layers", "2"]
    planned, text = answered("grow", "teacher", *sizes, "--dry-run")
    assert set(planned) == keys_told("grow")[0]
    assert (planned["report"], planned["output"]) == (None, None)
    grown, text = answered("grow", "teacher", *sizes, "-o", "large")
    assert grown["sizes"] == planned["sizes"]
    rows = {row["field"]: (row["teacher"], row["student"]) for row in grown["sizes"]}
    assert rows["hidden_size"] == (12, 24)
    for row in grown["sizes"]:
        assert " ".join(f"{row['field']} {row['teacher']:,} {row['student']:,} {row['note']}".split()) in text
    saved = json.loads(Path("large/growth_plan.json").read_text())
    assert grown["plan"] == {**saved, "outcome": grown["plan"]["outcome"]}
    assert grown["report"]["exact"] is True
    assert f"{grown['report']['num_parameters']:,} parameters" in text


def test_an_evaluation_tells_what_its_file_holds(answered: Answered) -> None:
    texts = [f"{WORDS[index % 2]} {index}" for index in range(60)]
    Dataset.from_dict({"text": texts, "label": [index % 2 for index in range(60)]}).to_csv("rows.csv")
    data = {"source": "rows.csv", "num_held_out": 20}
    Path("own.yaml").write_text(
        yaml.safe_dump({"tasks": {"one": {"data": data, "text": ["text"], "metrics": ["accuracy"]}}})
    )
    content, text = answered("evaluate", "teacher", "--suite", "own.yaml", "--seeds", "2", "--method", "probe")
    assert content == json.loads(Path("evaluation/results.json").read_text())
    assert {"scores", "differences_from_first", "cells"} <= set(content)
    assert f"{100 * content['scores']['teacher']['one']['mean']:.1f}" in text


def test_numbers_that_json_does_not_have_are_null(
    recipe_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_dwt.cli._run", lambda *_: {"loss": float("nan"), "rows": [{"perplexity": float("inf")}]})
    assert main(["assess", "recipe.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"loss": None, "rows": [{"perplexity": None}]}
