"""A run that was interrupted and resumed ends with the very weights of one that was not."""

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import killed_run
import pytest
from tiny_runs import (
    arguments,
    build,
    collator,
    examples,
    largest_difference,
    make_student,
    make_teacher,
    tokenizer,
    weights_of,
)
from torch import Tensor
from transformers import Trainer, TrainerCallback

from hf_dwt import DWTTrainer
from hf_dwt.checkpoints import is_whole, last_whole_checkpoint

POLICIES: dict[str, dict[str, Any]] = {
    "constant": {},
    "linear": {},
    "cosine": {},
    "exponential": {},
    "step": {"final_soft_loss_weight": 0.0, "weighting_kwargs": {"at": 0.7}},
    "wsd": {"weighting_kwargs": {"warmup": 0.4, "decay": 0.3}},
    "inheritance": {"weighting_kwargs": {"end": 0.8}},
    "handover": {"weighting_kwargs": {"gap_every": 1}},
}
# Three epochs of three steps.
NUM_STEPS = 9


class Interrupted(Exception):
    """Stands for Ctrl-C, a preempted machine or a crash."""


class Interrupts(TrainerCallback):
    """Ends a run in the middle of a step's successor."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step > self.after:
            raise Interrupted


def make_trainer(folder: Path, architecture: str = "masked", dropout: bool = True, **settings: Any) -> DWTTrainer:
    """A trainer of three epochs with AdamW, a schedule and clipping; what is no argument goes to it."""
    ours = {name: settings.pop(name) for name in {"teacher", "callbacks", "eval_dataset"} & settings.keys()}
    if "teacher" not in ours:
        ours["teacher"] = make_teacher(architecture)
    plain = {"optim": "adamw_torch", "learning_rate": 1e-2, "lr_scheduler_type": "linear", "max_grad_norm": 1.0}
    args = arguments(folder, **{"num_train_epochs": 3, **plain, **settings})
    student = (build if dropout else make_student)(architecture)
    return DWTTrainer(student, args, train_dataset=examples(), processing_class=tokenizer(), **ours)


def interrupt(folder: Path, after: int, architecture: str = "masked", **settings: Any) -> Path:
    """Leave a checkpoint of a step, from a run that is lost one step later."""
    saves = {"save_strategy": "steps", "save_steps": after, "callbacks": [Interrupts(after)]}
    with pytest.raises(Interrupted):
        make_trainer(folder, architecture, **saves, **settings).train()
    return folder / f"checkpoint-{after}"


def resumed_weights(folder: Path, checkpoint: bool | Path = True, **settings: Any) -> dict[str, Tensor]:
    trainer = make_trainer(folder, **settings)
    trainer.train(resume_from_checkpoint=checkpoint if checkpoint is True else str(checkpoint))
    assert trainer.state.global_step == NUM_STEPS
    return weights_of(trainer.model)


@cache
def _uninterrupted_weights(folder: Path, architecture: str, weighting: str) -> dict[str, Tensor]:
    trainer = make_trainer(folder, architecture, weighting=weighting, **POLICIES[weighting])
    trainer.train()
    return weights_of(trainer.model)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Tensor]]:
    """Weights of a run without interruption: of (architecture, weighting)."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return lambda architecture="masked", weighting="linear": _uninterrupted_weights(folder, architecture, weighting)


# Killed


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    trainer = killed_run.make_trainer(tmp_path_factory.mktemp("never_killed"))
    trainer.train()
    return weights_of(trainer.model)


@pytest.mark.slow
@pytest.mark.parametrize("moment", killed_run.LEFT)
def test_a_run_that_is_killed_at_any_moment_resumes_to_the_very_weights_of_one_that_was_not(
    moment: str, never_killed: dict[str, Tensor], tmp_path: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, killed_run.__file__, str(tmp_path), moment],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last_whole, broken = killed_run.LEFT[moment]
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / last_whole)
    if broken is not None:
        told = r"is half-written: .* is missing or cut off|has no optimizer\.pt"
        with pytest.raises(ValueError, match=rf"'.*{broken}' ({told})"):
            killed_run.make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / broken))

    resumed = killed_run.make_trainer(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == killed_run.NUM_STEPS
    assert largest_difference(weights_of(resumed.model), never_killed) == 0
    assert largest_difference(weights_of(resumed.model), weights_of(build("masked"))) > 0.01
    left = sorted(tmp_path.glob("checkpoint-*"))
    assert [checkpoint.name for checkpoint in left] == ["checkpoint-8", "checkpoint-9"]
    assert all(map(is_whole, left))


# Interrupted


@pytest.mark.parametrize("weighting", POLICIES)
def test_every_policy_resumes_in_the_middle_of_the_second_epoch(
    weighting: str, uninterrupted: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    settings = {"weighting": weighting, **POLICIES[weighting]}
    interrupt(tmp_path, 5, **settings)
    resumed = resumed_weights(tmp_path, **settings)
    assert largest_difference(resumed, uninterrupted("masked", weighting)) == 0


@pytest.mark.parametrize("after", [2, 3, 6], ids=["first epoch", "its end", "end of the second"])
def test_a_run_resumes_wherever_in_an_epoch_it_was(
    after: int, uninterrupted: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    checkpoint = interrupt(tmp_path, after)
    assert largest_difference(resumed_weights(tmp_path, checkpoint), uninterrupted()) == 0


def test_a_causal_student_resumes(uninterrupted: Callable[..., dict[str, Tensor]], tmp_path: Path) -> None:
    interrupt(tmp_path, 5, "causal")
    assert largest_difference(resumed_weights(tmp_path, architecture="causal"), uninterrupted("causal")) == 0


def test_a_student_without_teacher_resumes(tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "whole", teacher=None)
    whole.train()
    interrupt(tmp_path, 5, teacher=None)
    assert largest_difference(resumed_weights(tmp_path, teacher=None), weights_of(whole.model)) == 0


def test_grouped_lengths_resume_in_their_order(tmp_path: Path) -> None:
    grouped = {"train_sampling_strategy": "group_by_length"}
    trainer = make_trainer(tmp_path / "whole", **grouped)
    trainer.train()
    interrupt(tmp_path / "cut", after=5, **grouped)
    assert largest_difference(weights_of(trainer.model), resumed_weights(tmp_path / "cut", **grouped)) == 0


def test_a_run_resumes_after_two_interruptions(uninterrupted: Callable[..., dict[str, Tensor]], tmp_path: Path) -> None:
    interrupt(tmp_path, 2)
    again = make_trainer(tmp_path, save_strategy="steps", save_steps=7, callbacks=[Interrupts(7)])
    with pytest.raises(Interrupted):
        again.train(resume_from_checkpoint=True)
    assert largest_difference(resumed_weights(tmp_path), uninterrupted()) == 0


def test_one_trainer_can_be_interrupted_and_resumed(
    uninterrupted: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    interrupts = Interrupts(5)
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=5, callbacks=[interrupts])
    with pytest.raises(Interrupted):
        trainer.train()
    interrupts.after = NUM_STEPS
    trainer.train(resume_from_checkpoint=True)
    assert largest_difference(weights_of(trainer.model), uninterrupted()) == 0


def test_accumulated_steps_resume(tmp_path: Path) -> None:
    sizes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    whole = make_trainer(tmp_path / "whole", **sizes)
    whole.train()
    interrupt(tmp_path, 5, **sizes)
    assert largest_difference(resumed_weights(tmp_path, **sizes), weights_of(whole.model)) == 0


@pytest.mark.parametrize("what", ["epoch", "generators"])
def test_without_the_masks_of_the_epoch_or_the_generators_the_weights_would_differ(
    what: str, uninterrupted: Callable[..., dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = interrupt(tmp_path, 5)
    if what == "epoch":
        set_epoch = DWTTrainer.before_epoch
        monkeypatch.setattr(DWTTrainer, "before_epoch", lambda trainer, epoch: set_epoch(trainer, max(epoch - 1, 0)))
    else:
        (checkpoint / "rng_state.pth").unlink()
    assert largest_difference(resumed_weights(tmp_path), uninterrupted()) > 1e-4


# The horizon of the policy


def test_a_changed_horizon_is_refused_on_resuming(tmp_path: Path) -> None:
    interrupt(tmp_path, 2)
    longer = make_trainer(tmp_path, num_train_epochs=4)
    message = (
        r"The checkpoint's soft-loss weight runs over 9 steps, this run has 12\. Set `weighting_steps=9` to keep its "
        r"course, or `weighting_steps=12` to change it\."
    )
    with pytest.raises(ValueError, match=message):
        longer.train(resume_from_checkpoint=True)
    assert longer.state.global_step == 2


def test_a_run_with_a_constant_weight_may_be_extended(tmp_path: Path) -> None:
    constant = {"weighting": "constant", "lr_scheduler_type": "constant"}
    longer = make_trainer(tmp_path / "longer", num_train_epochs=4, **constant)
    longer.train()
    interrupt(tmp_path / "cut", 2, **constant)
    extended = make_trainer(tmp_path / "cut", num_train_epochs=4, **constant)
    extended.train(resume_from_checkpoint=True)
    assert extended.state.global_step == 12
    assert largest_difference(weights_of(extended.model), weights_of(longer.model)) == 0


@pytest.mark.parametrize("steps", [9, 12])
def test_a_horizon_that_is_asked_for_may_change_on_resuming(steps: int, tmp_path: Path) -> None:
    # How often to log is read from the checkpoint.
    interrupt(tmp_path, 2, logging_steps=1)
    longer = make_trainer(tmp_path, num_train_epochs=4, weighting_steps=steps)
    longer.train(resume_from_checkpoint=True)
    weights = [logs["soft_loss_weight"] for logs in longer.state.log_history if logs["step"] > 2 and "loss" in logs]
    assert weights == pytest.approx([4.0 - 3.0 * min(step / steps, 1.0) for step in range(2, 12)])


def test_the_horizon_of_a_new_run_is_its_own(tmp_path: Path) -> None:
    interrupt(tmp_path, 2)
    make_trainer(tmp_path, num_train_epochs=1).train()


def test_callback_states_may_be_restored(uninterrupted: Callable[..., dict[str, Tensor]], tmp_path: Path) -> None:
    interrupt(tmp_path, 5)
    restoring = {"restore_callback_states_from_checkpoint": True}
    assert largest_difference(resumed_weights(tmp_path, **restoring), uninterrupted()) == 0
    with pytest.raises(ValueError, match="runs over 9 steps, this run has 12"):
        make_trainer(tmp_path, num_train_epochs=4, **restoring).train(resume_from_checkpoint=True)


# A checkpoint of the stock trainer


def stock_trainer(folder: Path, **settings: Any) -> Trainer:
    """A trainer of one epoch, since it draws no new masks in the next."""
    return Trainer(
        # Without dropout: ours draws less of it, in a last layer that drops the tokens that nobody asks about.
        make_student(),
        arguments(folder, num_train_epochs=1, **settings),
        collator("masked"),
        train_dataset=examples(),
        processing_class=tokenizer(),
    )


@pytest.mark.parametrize("teacher", ["own", None], ids=["taught", "alone"])
def test_a_checkpoint_of_the_stock_trainer_can_be_resumed_from(teacher: str | None, tmp_path: Path) -> None:
    stock = stock_trainer(tmp_path, save_strategy="steps", save_steps=2)
    stock.train()
    ours = DWTTrainer(
        make_student(),
        arguments(tmp_path, num_train_epochs=1, save_strategy="steps", save_steps=1),
        train_dataset=examples(),
        processing_class=tokenizer(),
        teacher=None if teacher is None else make_teacher(),
    )
    ours.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert ours.state.global_step == 3
    difference = largest_difference(weights_of(ours.model), weights_of(stock.model))
    assert difference < 1e-6 if teacher is None else difference > 1e-4


# Workers


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 3], ids=["in the first epoch", "at its end"])
def test_persistent_workers_resume_also_with_dropout_and_evaluations(after: int, tmp_path: Path) -> None:
    settings = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    settings |= {"eval_strategy": "steps", "eval_steps": 2, "eval_dataset": examples(4)}
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    interrupt(tmp_path, after, **settings)
    assert largest_difference(resumed_weights(tmp_path, **settings), weights_of(whole.model)) == 0
