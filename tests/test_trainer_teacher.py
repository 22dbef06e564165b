"""What `DWTTrainer` does with its teacher: frozen, run only where it weighs, let go, and stopped when it breaks."""

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import KINDS, build, examples, largest_difference, make_teacher, tokenizer, weights_of
from trainer_runs import make_trainer, training_logs
from transformers import PreTrainedModel, TrainerCallback

from hf_dwt import DWTTrainer, Teacher, load_teacher


class Recorder(TrainerCallback):
    """Notes what a function returns at the end of each optimiser step."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self.look, self.seen = look, []

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self.seen.append(self.look())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seen.append(self.look())


def steps_with_teacher(trainer: DWTTrainer) -> list[int]:
    """Train, and return the number of the optimiser step of each of the teacher's forward passes."""
    steps: list[int] = []
    assert trainer.teacher is not None
    hook = trainer.teacher.model.register_forward_hook(lambda *_: steps.append(trainer.state.global_step))
    start = TrainerCallback()
    # What came before the first step is the check of the teacher.
    start.on_step_begin = lambda args, state, control, **_: steps.clear() if not state.global_step else None
    trainer.add_callback(start)
    trainer.train()
    hook.remove()
    return steps


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_is_frozen_and_unchanged_after_training(kind: str, tmp_path: Path) -> None:
    model = without_training_mode = make_teacher(kind).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(tmp_path, kind, teacher=model, optim="adamw_torch", max_steps=3)
    states: list[tuple[bool, bool]] = []
    trainer.add_callback(Recorder(lambda: states.append((model.training, trainer.model.training))))
    trainer.train()
    assert states == [(False, True)] * 3
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in without_training_mode.state_dict().items())


def test_the_optimiser_holds_the_parameters_of_the_student_alone(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.train()
    optimised = {id(each) for group in trainer.optimizer.param_groups for each in group["params"]}
    assert optimised == {id(each) for each in trainer.model.parameters()}


def test_checkpoints_hold_the_weights_of_the_student_alone(tmp_path: Path) -> None:
    make_trainer(tmp_path / "taught", max_steps=1, save_strategy="steps", save_steps=1).train()
    make_trainer(tmp_path / "alone", teacher=None, max_steps=1, save_strategy="steps", save_steps=1).train()
    taught, alone = (tmp_path / name / "checkpoint-1" for name in ("taught", "alone"))
    assert {path.name for path in taught.iterdir()} == {path.name for path in alone.iterdir()}
    shapes = [
        {name: value.shape for name, value in load_file(run / "model.safetensors").items()} for run in (taught, alone)
    ]
    assert shapes[0] == shapes[1]


def test_dropout_of_the_student_stays_on_and_that_of_the_teacher_off(tmp_path: Path) -> None:
    # At learning rate 0 the same example gives another loss only if something is random.
    same = datasets.Dataset.from_dict({"input_ids": [examples()[2]["input_ids"]] * 24})
    settings = {"max_steps": 3, "learning_rate": 0.0, "logging_steps": 1, "allow_bad_teacher": True}
    trainer = make_trainer(
        tmp_path, model=build("masked"), teacher=build("masked", 12, 1), train_dataset=same, **settings
    )
    trainer.train()
    logs = training_logs(trainer)
    assert len({each["hard_loss"] for each in logs}) == 3
    assert logs[0]["teacher_hard_loss"] == pytest.approx(logs[2]["teacher_hard_loss"], abs=1e-6)


def test_a_teacher_of_weight_0_is_never_run(tmp_path: Path) -> None:
    calls: list[Any] = []
    teacher = make_teacher()
    teacher.register_forward_hook(lambda *_: calls.append(1))
    trainer = make_trainer(tmp_path, teacher=teacher, weighting="constant", soft_loss_weight=0.0, max_steps=3)
    trainer.train()
    assert trainer.teacher is None
    assert not calls


def test_the_teacher_is_run_in_the_steps_with_a_weight_only(tmp_path: Path) -> None:
    settings = {"weighting": "step", "final_soft_loss_weight": 0.0, "weighting_kwargs": {"at": 0.5}}
    trainer = make_trainer(
        tmp_path, **settings, gradient_accumulation_steps=2, per_device_train_batch_size=4, max_steps=6
    )
    assert steps_with_teacher(trainer) == [0, 0, 1, 1, 2, 2]
    assert trainer.teacher is None


def test_a_weight_that_rises_from_0_leaves_out_the_first_step_and_keeps_the_teacher(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, weighting="wsd", weighting_kwargs={"warmup": 0.5, "decay": 0.25}, max_steps=4)
    assert steps_with_teacher(trainer) == [1, 2, 3]
    assert trainer.teacher is not None


def test_the_memory_of_a_teacher_that_is_let_go_is_freed_and_it_is_read_again_for_another_run(tmp_path: Path) -> None:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    settings = {"weighting": "step", "final_soft_loss_weight": 0.0, "weighting_kwargs": {"at": 0.5}}
    trainer = make_trainer(tmp_path, teacher=tmp_path / "teacher", max_steps=4, logging_steps=1, **settings)
    held = weakref.ref(trainer.teacher.model)
    trainer.train()
    assert held() is None
    trainer.train()
    assert ["soft_loss" in logs for logs in training_logs(trainer)] == [True, True, False, False]


def test_teachers_may_be_a_teacher_a_model_or_a_folder(tmp_path: Path) -> None:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    folder = str(tmp_path / "teacher")
    weights = []
    for teacher in (folder, Path(folder), load_teacher(folder), make_teacher(), Teacher(make_teacher(), tokenizer())):
        trainer = make_trainer(tmp_path / "run", teacher=teacher, max_steps=1)
        trainer.train()
        assert isinstance(trainer.teacher, Teacher)
        weights.append(weights_of(trainer.model))
    assert all(largest_difference(weights[0], each) == 0 for each in weights)


def test_a_teacher_larger_than_the_student_is_told_and_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_trainer(tmp_path, teacher=build("masked", hidden_size=32))
    assert "has more parameters than the student" in caplog.text
    caplog.clear()
    make_trainer(tmp_path)
    assert "more parameters" not in caplog.text


# A teacher that breaks


class Breaks(TrainerCallback):
    """Puts a value that is not finite into the teacher's last layer before a step."""

    def __init__(self, teacher: PreTrainedModel, value: float, step: int = 2) -> None:
        self.teacher, self.value, self.step = teacher, value, step

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == self.step:
            self.teacher.cls.predictions.bias[0] = self.value


BROKEN = r"The teacher \(a model passed in memory\) gave logits that are not finite"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("logging", ["steps", "no"])
def test_a_teacher_that_breaks_stops_training_before_the_next_checkpoint(
    value: float, logging: str, tmp_path: Path
) -> None:
    teacher = make_teacher()
    settings = {"save_strategy": "steps", "save_steps": 2, "logging_strategy": logging, "logging_steps": 50}
    trainer = make_trainer(tmp_path, teacher=teacher, callbacks=[Breaks(teacher, value)], max_steps=6, **settings)
    with pytest.raises(FloatingPointError, match=BROKEN):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_teacher_that_breaks_stops_training_at_the_next_log(tmp_path: Path) -> None:
    teacher = make_teacher()
    trainer = make_trainer(tmp_path, teacher=teacher, callbacks=[Breaks(teacher, math.nan)], logging_steps=1)
    with pytest.raises(FloatingPointError, match=BROKEN):
        trainer.train()
    assert trainer.state.global_step == 3


def test_a_teacher_that_breaks_is_told_at_the_end_of_a_run_that_neither_logs_nor_saves(tmp_path: Path) -> None:
    teacher = make_teacher()
    trainer = make_trainer(tmp_path, teacher=teacher, callbacks=[Breaks(teacher, math.nan)], logging_strategy="no")
    with pytest.raises(FloatingPointError, match=BROKEN):
        trainer.train()


def test_a_teacher_that_breaks_just_before_it_is_let_go_is_told(tmp_path: Path) -> None:
    teacher = make_teacher()
    settings = {"weighting": "step", "final_soft_loss_weight": 0.0, "logging_strategy": "no", "max_steps": 6}
    trainer = make_trainer(tmp_path, teacher=teacher, callbacks=[Breaks(teacher, math.nan)], **settings)
    with pytest.raises(FloatingPointError, match=BROKEN):
        trainer.train()
    assert trainer.state.global_step == 3
