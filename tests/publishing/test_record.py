import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import arguments, make_student, tokenizer

from hf_dwt.arguments import DistillationArguments
from hf_dwt.publishing.record import (
    TeacherFacts,
    TrainingFacts,
    arguments_of,
    command_line,
    record_of,
    vocabulary_fingerprint,
    without_tokens,
    write,
)
from hf_dwt.teacher import Origin

TRAINING = TrainingFacts(3, 100, 1.5, None, 24, [], [])


def test_arguments_hold_no_token_and_are_json(tmp_path: Path) -> None:
    args = arguments(tmp_path, hub_token="hf_secret", temperature=2.0)
    told = arguments_of(args)
    assert told["temperature"] == 2.0
    assert "secret" not in json.dumps(told)
    assert not any(name.endswith("_token") for name in told)


def test_tokens_are_out_of_the_arguments_only_while_they_are_saved(tmp_path: Path) -> None:
    args = arguments(tmp_path, hub_token="hf_secret")
    with without_tokens(args):
        assert args.hub_token is None
        torch.save(args, tmp_path / "args.bin")
    assert args.hub_token == "hf_secret"
    assert b"hf_secret" not in (tmp_path / "args.bin").read_bytes()


def test_a_failure_to_save_brings_the_tokens_back(tmp_path: Path) -> None:
    args = arguments(tmp_path, hub_token="hf_secret")
    with pytest.raises(FileNotFoundError), without_tokens(args):
        (tmp_path / "nowhere" / "args.bin").write_bytes(b"")
    assert args.hub_token == "hf_secret"


def test_the_fingerprint_knows_every_token_and_its_place() -> None:
    words = tokenizer()
    first = vocabulary_fingerprint(words)
    assert first is not None
    assert first["size"] == len(words)
    assert vocabulary_fingerprint(words) == first
    changed = copy.deepcopy(words)
    changed.add_tokens("zebra")
    assert vocabulary_fingerprint(changed) != first
    assert vocabulary_fingerprint(None) is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["/usr/bin/hf-dwt", "train", "a b.yaml"], "hf-dwt train 'a b.yaml'"),
        (["/home/me/run.py", "--hub_token", "abc", "--seed", "1"], "python run.py --hub_token TOKEN --seed 1"),
        (["run.py", "--hub-token=abc", "hf_secret"], "python run.py --hub-token=TOKEN TOKEN"),
    ],
)
def test_the_command_is_shown_without_tokens(given: list[str], shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", given)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert command_line() == shown


@pytest.mark.parametrize("kernel", ["ipykernel_launcher.py", "colab_kernel_launcher.py"])
def test_a_notebook_has_no_command_that_repeats_it(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"/usr/lib/{kernel}", "-f", "/home/me/runtime/kernel-1f2e.json"])
    assert command_line() is None


def test_a_record_can_be_read_again(tmp_path: Path) -> None:
    record = record_of(
        make_student(),
        arguments(tmp_path, seed=7),
        kind="masked",
        choices=DistillationArguments(),
        teacher=None,
        training=TRAINING,
        processing_class=tokenizer(),
    )
    write(record, tmp_path)
    assert json.loads((tmp_path / "dwt_recipe.json").read_text()) == record
    assert (record["schema_version"], record["seeds"]["seed"], record["teacher"]) == (1, 7, None)
    assert record["baseline"] == []
    assert record["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("best_step", "of_step", "loss", "other"),
    [(None, 6, None, {"step": 4, "eval_loss": 3.0}), (2, 2, 2.0, None), (4, 4, 3.0, None)],
)
def test_results_are_those_of_the_weights_or_said_to_be_of_another_step(
    best_step: int | None, of_step: int, loss: float | None, other: dict[str, float] | None
) -> None:
    logs = [{"eval_loss": 2.0, "step": 2}, {"eval_loss": 3.0, "step": 4}, {"train_runtime": 1.0, "step": 6}]
    record = record_of(
        make_student(),
        arguments(Path("unused")),
        kind="masked",
        choices=DistillationArguments(),
        teacher=None,
        training=replace(TRAINING, steps=6, log_history=logs, best_step=best_step),
        processing_class=None,
    )
    assert record["training"]["weights_of_step"] == of_step
    assert record["results"] == (None if loss is None else {"eval_loss": loss})
    assert record["other_results"] == other


def test_weights_are_those_of_the_run_and_where_they_follow_the_gap_those_that_were_logged() -> None:
    logs = [{"soft_loss_weight": 4.0 - step, "step": step} for step in range(1, 5)] + [{"eval_loss": 1.0, "step": 4}]
    known = TrainingFacts(4, 100, 1.5, None, 24, [], logs)
    teacher = TeacherFacts(Origin("me/small"), "BertForMaskedLM", 99)

    def objective(training: TrainingFacts, **choices: Any) -> dict[str, Any]:
        record = record_of(
            make_student(),
            arguments(Path("unused")),
            kind="masked",
            choices=DistillationArguments(**choices),
            teacher=teacher,
            training=training,
            processing_class=None,
        )
        found: dict[str, Any] = record["objective"]
        return found

    followed = objective(known, weighting="handover", soft_loss_weight=4.0)
    assert followed["soft_loss_weight"] == [[0.25, 3.0], [0.5, 2.0], [0.75, 1.0], [1.0, 0.0]]
    assert followed["hard_loss_weight"] == [[share, 1.0] for share in (0.25, 0.5, 0.75, 1.0)]
    assert objective(TRAINING, weighting="handover", soft_loss_weight=4.0)["soft_loss_weight"] == [[0.0, 4.0]]
    assert objective(known, weighting="constant", soft_loss_weight=2.0)["soft_loss_weight"] == [
        [share, 2.0] for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    plain = {"weighting": "linear", "soft_loss_weight": 4.0, "final_soft_loss_weight": 1.0}
    early = TrainingFacts(10, 100, 1.5, None, 24, [], [], planned_steps=40)
    # The horizon is a quarter of the run: from there on the weight is the final one, and the card shall say so.
    assert objective(early, **plain, weighting_steps=10)["soft_loss_weight"] == [
        [0.0, 4.0],
        *([share, 1.0] for share in (0.25, 0.5, 0.75, 1.0)),
    ]
    assert objective(early, **plain)["soft_loss_weight"][2] == [0.5, 2.5]
    stopped = replace(early, log_history=[{"train_runtime": 1.0, "step": 10}])
    # A quarter of the way from 4 to 1, and no further.
    assert objective(stopped, **plain)["soft_loss_weight"][::2] == [[0.0, 4.0], [0.5, 3.625], [1.0, 3.25]]
