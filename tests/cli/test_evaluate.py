"""`hf-dwt evaluate`, from the command to tables and files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from PIL import Image
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hf_dwt.cli import main


@pytest.fixture
def setting(
    tmp_path: Path,
    make_bert: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A model, and a suite of two tasks on words that are easy to tell apart."""
    monkeypatch.chdir(tmp_path)
    make_bert().save_pretrained("student")
    tokenizer.save_pretrained("student")
    texts = [f"the {'cat' if index % 2 else 'rain'} {index}" for index in range(60)]
    Dataset.from_dict({"text": texts, "label": [index % 2 for index in range(60)]}).to_csv("rows.csv")
    data = {"source": "rows.csv", "num_held_out": 20}
    tasks = {name: {"data": data, "text": ["text"], "metrics": ["accuracy"]} for name in ("one", "two")}
    Path("own.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    return tmp_path


def test_a_suite_ends_with_a_table_json_markdown_and_a_plot(setting: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "student", "--suite", "own.yaml", "--seeds", "2", "--method", "probe"]) == 0
    output = capsys.readouterr().out
    assert "average" in output
    assert "results.png are in evaluation." in output
    results = json.loads((setting / "evaluation" / "results.json").read_text())
    assert results["average_over"] == ["one", "two"]
    assert len(results["cells"]) == 4
    with Image.open(setting / "evaluation" / "results.png") as image:
        assert image.size[0] > 300


def test_where_some_cells_fail_the_status_and_a_line_say_so(setting: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = yaml.safe_load(Path("own.yaml").read_text())
    suite["tasks"]["two"]["text"] = ["sentence"]
    Path("own.yaml").write_text(yaml.safe_dump(suite))
    assert main(["evaluate", "student", "--suite", "own.yaml", "--seeds", "2", "--method", "probe"]) == 1
    assert "2 of 4 cells have failed" in capsys.readouterr().out
    assert main(["evaluate", "student", "--suite", "own.yaml", "--seeds", "2", "--method", "probe", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["cells"]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["student", "--suite", "supergl"], "There is no suite 'supergl'"),
        (["student", "--suite", "own.yaml", "--tasks", "three"], "The suite has no task 'three'"),
        (["missing/model"], "missing/model"),
        (["student", "--seeds", "0"], "There is nothing to do"),
    ],
)
def test_what_cannot_be_scored_is_told_in_one_line(
    options: list[str], message: str, setting: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
