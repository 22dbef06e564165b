"""Ctrl-C in a real process: it ends with 130, and the command that it prints goes on."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from tiny_runs import WORDS, arguments, build, examples, tokenizer
from transformers import TrainerCallback

from hf_dwt import DWTTrainer
from hf_dwt.cli import assess, main
from hf_dwt.cli.interruption import carry_out_interruptibly

Ready = Callable[["subprocess.Popen[str]"], bool]


def after_losses(count: int) -> Ready:
    """Wait until so many losses were logged."""

    def wait(process: "subprocess.Popen[str]") -> bool:
        assert process.stdout is not None
        logged = (line for line in process.stdout if "'loss'" in line)
        return all(next(logged, None) for _ in range(count))

    return wait


def after_file(path: str) -> Ready:
    """Wait until there is something in a file."""

    def wait(process: "subprocess.Popen[str]") -> bool:
        while process.poll() is None:
            if Path(path).is_file() and Path(path).stat().st_size:
                return True
            time.sleep(0.01)
        return False

    return wait


def interrupted(words: list[str], ready: Ready) -> str:
    """Start a command, send it SIGINT when it is ready, and return what it says on stderr."""
    command = [sys.executable, "-u", "-m", "hf_dwt.cli", *words]
    # As many threads as here, where it is gone on: sums that are split otherwise round otherwise.
    settings = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert ready(process), process.communicate()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    return errors


def command_told(errors: str, to: str) -> list[str]:
    """The words of the command that goes on, as the last line tells it."""
    told = re.fullmatch(rf"hf-dwt: interrupted; to {to}: hf-dwt (.+)", errors.splitlines()[-1])
    assert told is not None, errors
    return shlex.split(told[1])


def test_training_ends_its_step_and_the_printed_command_ends_as_if_nothing_had_happened(recipe_folder: Path) -> None:
    words = ["train", "recipe.yaml", "--max-steps", "400", "--logging-steps", "1", "--output-dir", "a student"]
    errors = interrupted(words, after_losses(1))
    assert "ending this step and writing a checkpoint" in errors
    (checkpoint,) = Path("a student").glob("checkpoint-*")
    assert 0 < int(checkpoint.name.removeprefix("checkpoint-")) < 400
    assert not Path("a student/run.json").exists(), "it is not finished"
    assert command_told(errors, "go on") == [*words, "--resume"]
    assert main(command_told(errors, "go on")) == 0
    assert main([*words, "--output-dir", "whole"]) == 0
    resumed, whole = (load_file(Path(folder, "model.safetensors")) for folder in ("a student", "whole"))
    assert all(torch.equal(resumed[name], weights) for name, weights in whole.items())
    steps = [json.loads(Path(folder, "run.json").read_text())["steps"] for folder in ("a student", "whole")]
    assert steps == [400, 400]


def test_an_interrupted_twin_is_taken_up_and_the_student_is_not_trained_again(recipe_folder: Path) -> None:
    words = ["train", "recipe.yaml", "--baseline", "--max-steps", "300"]
    # The student logs its first loss and its last, then its twin begins.
    errors = interrupted([*words, "--logging-steps", "300", "--logging-first-step", "true"], after_losses(3))
    finished = Path("student/run.json").read_bytes()
    assert list(Path("student/alone-equal-steps").glob("checkpoint-*"))
    assert main(command_told(errors, "go on")) == 0
    assert Path("student/run.json").read_bytes() == finished
    twins = [json.loads(path.read_text())["name"] for path in sorted(Path("student").glob("alone-*/run.json"))]
    assert twins == ["alone, equal cost", "alone, equal steps"]


def test_a_demo_goes_on_with_the_steps_that_it_has_decided_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    for name, copies in (("train.txt", 200), ("held_out.txt", 40)):
        Path("demo", name).write_text("the cat sat on the mat and the dog ran over the hill\n" * copies)
    words = ["demo", "--causal", "--minutes", "0.05", "--student-size", "1x64", "--output", "demo"]
    errors = interrupted(words, after_losses(1))
    decided = json.loads(Path("demo/steps.json").read_text())
    assert decided.keys() == {"teacher"}
    assert command_told(errors, "go on") == [*words, "--resume"]
    assert main(command_told(errors, "go on")) == 0
    assert json.loads(Path("demo/steps.json").read_text())["teacher"] == decided["teacher"]
    assert json.loads(Path("demo/teacher/run.json").read_text())["steps"] == decided["teacher"]
    assert "Held-out results" in capsys.readouterr().out


def test_an_evaluation_goes_on_by_the_same_command(recipe_folder: Path) -> None:
    texts = [f"{WORDS[index % 2]} {index}" for index in range(200)]
    Dataset.from_dict({"text": texts, "label": [index % 2 for index in range(200)]}).to_csv("rows.csv")
    task = {"data": {"source": "rows.csv", "num_held_out": 20}, "text": ["text"], "metrics": ["accuracy"]}
    Path("own.yaml").write_text(yaml.safe_dump({"tasks": {"one": task}}))
    words = ["evaluate", "teacher", "--suite", "own.yaml", "--seeds", "30"]
    errors = interrupted(words, after_file("evaluation/cells.jsonl"))
    finished = Path("evaluation/cells.jsonl").read_text()
    assert 0 < finished.count("\n") < 30
    assert command_told(errors, "go on") == words
    assert main([*words[:-1], str(finished.count("\n") + 1)]) == 0
    assert Path("evaluation/cells.jsonl").read_text().startswith(finished)


def test_what_has_kept_nothing_begins_again(
    recipe_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(assess, "assess_teacher", stop)
    assert main(["assess", "recipe.yaml"]) == 130
    assert command_told(capsys.readouterr().err, "begin again") == ["assess", "recipe.yaml"]
    monkeypatch.setattr("hf_dwt.cli.train.read_inputs", stop)
    Path("student/checkpoint-2").mkdir(parents=True)  # half-written
    assert main(["train", "recipe.yaml"]) == 130
    assert command_told(capsys.readouterr().err, "begin again") == ["train", "recipe.yaml"]
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "recipe.yaml"]) == 130
    assert capsys.readouterr().err == "", "one process speaks for all"


class Presses(TrainerCallback):
    """Presses Ctrl-C so many times in the second step."""

    def __init__(self, times: int) -> None:
        self.times = times

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for _ in range(self.times if state.global_step == 1 else 0):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("times", "left"), [(0, []), (1, ["checkpoint-2"]), (2, [])])
def test_the_second_ctrl_c_ends_all_at_once_and_afterwards_it_means_what_it_did(
    times: int, left: list[str], tmp_path: Path
) -> None:
    settings = arguments(tmp_path, max_steps=4)
    trainer = DWTTrainer(
        build("masked"), settings, train_dataset=examples(), eval_dataset=examples(), processing_class=tokenizer()
    )
    trainer.add_callback(Presses(times))
    before = signal.getsignal(signal.SIGINT)
    if times:
        with pytest.raises(KeyboardInterrupt):
            carry_out_interruptibly(trainer, "alone")
    else:
        assert carry_out_interruptibly(trainer, "alone").steps == 4
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == left
    assert (tmp_path / "run.json").exists() == (times == 0)
    assert signal.getsignal(signal.SIGINT) is before
