"""A teacher that leaves when it has been overtaken: early, late, never; killed and resumed around that moment."""

import signal
import subprocess
import sys
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import killed_handover
import pytest
import torch
from killed_handover import RELEASED_BEFORE, make_trainer
from tiny_runs import build, collator, examples, largest_difference, make_teacher, tokenizer, weights_of
from trainer_runs import training_logs
from transformers import PreTrainedModel
from transformers.trainer_callback import TrainerState

from hf_dwt import DWTTrainer


def released(trainer: DWTTrainer) -> list[int]:
    return [int(logs["handover_step"]) for logs in trainer.state.log_history if "handover_step" in logs]


def gaps(trainer: DWTTrainer) -> list[float]:
    return [logs["probe_gap"] for logs in trainer.state.log_history if "probe_gap" in logs]


def trained(folder: Path, **settings: Any) -> DWTTrainer:
    trainer = make_trainer(folder, **settings)
    trainer.train()
    return trainer


def test_the_teacher_is_let_go_when_the_student_has_overtaken_and_its_memory_is_freed(tmp_path: Path) -> None:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    trainer = make_trainer(tmp_path / "run", teacher=tmp_path / "teacher", logging_steps=1)
    held = weakref.ref(trainer.teacher.model)
    trainer.train()
    assert released(trainer) == [RELEASED_BEFORE]
    assert trainer.teacher is None
    assert held() is None
    spoke = ["soft_loss" in logs for logs in training_logs(trainer)]
    assert spoke == [step < RELEASED_BEFORE for step in range(len(spoke))]
    softs = [logs["soft_loss_weight"] for logs in training_logs(trainer)]
    # A mean over positions is rounded.
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(softs))
    assert len(set(softs)) > 3
    assert max(gaps(trainer)[-2:]) <= 0.1 < max(gaps(trainer)[-3:-1])


def test_what_the_teacher_and_the_probes_cost_is_logged(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    (costs,) = [logs for logs in trainer.state.log_history if "handover_step" in logs]
    record = trainer.course.record
    assert record.num_taught_steps == RELEASED_BEFORE
    assert costs["handover_teacher_seconds"] > 0
    left = trainer.state.max_steps - RELEASED_BEFORE
    ratio = costs["handover_saved_seconds"] / costs["handover_teacher_seconds"]
    assert ratio == pytest.approx(left / RELEASED_BEFORE)
    assert costs["handover_probe_seconds"] == pytest.approx(record.probe_seconds)


def weakened(noise: float) -> PreTrainedModel:
    """The teacher with noise in its matrices: the more, the earlier it is overtaken."""
    teacher, generator = make_teacher(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for matrix in (each for each in teacher.parameters() if each.dim() > 1):
            matrix.add_(noise * matrix.std() * torch.randn(matrix.shape, generator=generator))
    return teacher


@pytest.mark.parametrize(
    ("noise", "settings", "released_before"),
    [
        (0.7, {"learning_rate": 2e-2, "max_steps": 40}, 10),  # early
        (0.5, {"learning_rate": 1e-2}, 18),  # late: of 20
        (0.0, {"learning_rate": 1e-4}, None),  # never
        (None, {}, 0),  # a teacher that is the student's equal at the start
    ],
    ids=["early", "late", "never", "equal at the start"],
)
def test_the_moment_of_release_follows_the_gap_and_memory_goes_with_it(
    noise: float | None, settings: dict[str, Any], released_before: int | None, tmp_path: Path
) -> None:
    teacher = build("masked") if noise is None else weakened(noise)
    teacher.save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    own = {"weighting_kwargs": {"gap_every": 2}, "allow_bad_teacher": True, "model": build("masked")}
    trainer = make_trainer(tmp_path / "run", teacher=tmp_path / "teacher", **own, **settings)
    held = [weakref.ref(each) for each in (trainer.teacher.model, *trainer.teacher.model.parameters())]
    trainer.train()
    assert released(trainer) == ([] if released_before is None else [released_before])
    num_steps = trainer.state.max_steps
    asked = num_steps if released_before is None else released_before
    assert ["soft_loss" in logs for logs in training_logs(trainer)] == [step < asked for step in range(num_steps)]
    assert trainer.course.record.num_taught_steps == asked
    if released_before is None:
        assert trainer.teacher is not None
        assert min(gaps(trainer)) > 0.02
        return
    assert max(gaps(trainer)[-2:]) <= 0.02, "both of the last probes: the student has overtaken"
    assert all(max(pair) > 0.02 for pair in pairwise(gaps(trainer)[:-1]))
    assert trainer.teacher is None
    assert not [each for each in held if each() is not None], "not one of its tensors is left"


def test_a_student_that_never_overtakes_keeps_its_teacher(tmp_path: Path) -> None:
    trainer = trained(tmp_path, learning_rate=1e-4)
    assert trainer.teacher is not None
    assert released(trainer) == []
    assert trainer.course.record.num_taught_steps == trainer.state.max_steps
    assert len(gaps(trainer)) == trainer.state.max_steps // 2


def test_a_teacher_equal_to_the_student_at_the_start_is_let_go_before_the_first_step(tmp_path: Path) -> None:
    teacher = build("masked")
    trainer = trained(tmp_path / "taught", teacher=teacher, model=build("masked"), allow_bad_teacher=True)
    assert released(trainer) == [0]
    assert gaps(trainer) == [pytest.approx(0.0, abs=1e-6)]
    alone = trained(tmp_path / "alone", teacher=None, model=build("masked"), weighting="linear", weighting_kwargs=None)
    assert largest_difference(weights_of(trainer.model), weights_of(alone.model)) == 0


def test_probes_do_not_touch_the_run(tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-3, "max_steps": 5}
    often = trained(tmp_path / "often", weighting="follows", weighting_kwargs={"gap_every": 1}, **settings)
    never = trained(tmp_path / "never", weighting="constant", weighting_kwargs=None, **settings)
    assert len(gaps(often)) == 5
    assert largest_difference(weights_of(often.model), weights_of(never.model)) == 0


def test_the_probe_is_scored_without_dropout(tmp_path: Path) -> None:
    trainer = trained(tmp_path, learning_rate=0.0, max_steps=6, weighting="follows", weighting_kwargs={"gap_every": 2})
    assert len(set(gaps(trainer))) == 1
    losses = {logs["hard_loss"] for logs in training_logs(trainer)}
    assert len(losses) == len(training_logs(trainer))


def test_held_out_data_are_preferred_to_repeated_ones(tmp_path: Path) -> None:
    own = trained(tmp_path / "own", max_steps=2)
    held_out = trained(tmp_path / "held", max_steps=2, eval_dataset=examples(8))
    assert gaps(own)[0] != gaps(held_out)[0]


def test_a_stream_that_is_read_once_is_refused_without_held_out_data(tmp_path: Path) -> None:
    class ReadsOnce(torch.utils.data.IterableDataset):
        def __init__(self) -> None:
            self.rows = iter(list(examples()) * 50)

        def __iter__(self) -> Any:
            return self.rows

    settings = {"train_dataset": ReadsOnce(), "max_steps": 2, "data_collator": collator("masked")}
    with pytest.raises(ValueError, match="pass an `eval_dataset`"):
        trained(tmp_path, **settings)
    trainer = trained(tmp_path, **{**settings, "train_dataset": ReadsOnce()}, eval_dataset=examples(8))
    assert gaps(trainer)


# Killed and resumed


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory) -> DWTTrainer:
    return trained(tmp_path_factory.mktemp("never_killed"))


@pytest.mark.slow
@pytest.mark.parametrize("after", [RELEASED_BEFORE - 1, RELEASED_BEFORE, RELEASED_BEFORE + 1])
def test_a_run_that_is_killed_around_the_release_resumes_to_the_very_weights(
    after: int, never_killed: DWTTrainer, tmp_path: Path
) -> None:
    command = [sys.executable, killed_handover.__file__, str(tmp_path), str(after)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = TrainerState.load_from_json(str(tmp_path / f"checkpoint-{after}" / "trainer_state.json"))
    assert saved.stateful_callbacks["Course"]["attributes"]["num_taught_steps"] == min(after, RELEASED_BEFORE)
    resumed = make_trainer(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert largest_difference(weights_of(resumed.model), weights_of(never_killed.model)) == 0
    assert gaps(resumed) == gaps(never_killed)
    assert released(resumed) == released(never_killed) == [RELEASED_BEFORE]
    assert resumed.teacher is None


def test_without_the_record_a_resumed_run_has_forgotten_which_steps_were_taught(tmp_path: Path) -> None:
    make_trainer(tmp_path, save_steps=RELEASED_BEFORE + 1).train()
    checkpoint = tmp_path / f"checkpoint-{RELEASED_BEFORE + 1}"
    path = checkpoint / "trainer_state.json"
    state = TrainerState.load_from_json(str(path))
    del state.stateful_callbacks["Course"]
    state.save_to_json(str(path))
    resumed = make_trainer(tmp_path)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.course.record.num_taught_steps != RELEASED_BEFORE
