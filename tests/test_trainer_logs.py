"""What `DWTTrainer` logs of training, and that collecting it costs no synchronisation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import KINDS, collator, examples, make_student, make_teacher
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from trainer_runs import make_trainer, plain_losses, training_logs

from hf_dwt.fused_losses import Losses
from hf_dwt.training_log import TrainingLog

STOCK_KEYS = {"loss", "grad_norm", "learning_rate", "epoch", "step"}
OUR_KEYS = {"hard_loss", "soft_loss_weight"}
TEACHER_KEYS = {"soft_loss", "teacher_hard_loss", "train_gap"}


def test_logs_have_the_keys_of_what_was_computed(tmp_path: Path) -> None:
    settings = {"weighting": "step", "final_soft_loss_weight": 0.0, "logging_steps": 1, "max_steps": 2}
    trainer = make_trainer(tmp_path, **settings)
    trainer.train()
    with_teacher, without = training_logs(trainer)
    assert with_teacher.keys() == STOCK_KEYS | OUR_KEYS | TEACHER_KEYS
    assert without.keys() == STOCK_KEYS | OUR_KEYS
    assert [with_teacher["soft_loss_weight"], without["soft_loss_weight"]] == [4.0, 0.0]


def logged_and_expected(folder: Path, kind: str, **settings: Any) -> tuple[dict[str, float], list[dict[str, float]]]:
    """What is logged of 3 steps at learning rate 0, and the sums of each step computed by hand."""
    fixed = {"learning_rate": 0.0, "train_sampling_strategy": "sequential", "temperature": 2.0, "logging_steps": 3}
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 3}
    trainer = make_trainer(folder, kind, **fixed, **sizes, **settings)
    trainer.train()
    steps = []
    for start in (0, 8, 16):
        batch = collator(kind)([examples()[index] for index in range(start, start + 8)])
        student, teacher = make_student(kind).eval(), make_teacher(kind).eval()
        hard, soft = plain_losses(student, teacher, batch, kind, temperature=2.0)
        teacher_hard, _ = plain_losses(teacher, teacher, batch, kind, temperature=2.0)
        sums = {
            "hard_loss": hard,
            "soft_loss": soft,
            "teacher_hard_loss": teacher_hard,
            "train_gap": hard - teacher_hard,
        }
        steps.append({"count": len(hard)} | {name: each.sum().item() for name, each in sums.items()})
    return training_logs(trainer)[0], steps


@pytest.mark.parametrize("kind", KINDS)
def test_logged_values_are_means_over_the_positions_since_the_last_log(kind: str, tmp_path: Path) -> None:
    logged, steps = logged_and_expected(tmp_path, kind, soft_loss_weight=4.0, final_soft_loss_weight=1.0)
    count = sum(step["count"] for step in steps)
    for name in ("hard_loss", "soft_loss", "teacher_hard_loss", "train_gap"):
        assert logged[name] == pytest.approx(sum(step[name] for step in steps) / count, abs=1e-5)
    weights = [4.0, 3.0, 2.0]
    weight = sum(each * step["count"] for each, step in zip(weights, steps, strict=True)) / count
    assert logged["soft_loss_weight"] == pytest.approx(weight, abs=1e-6)
    blend = sum(step["hard_loss"] + each * 4 * step["soft_loss"] for each, step in zip(weights, steps, strict=True))
    assert logged["loss"] == pytest.approx(blend / count, abs=1e-5)


def test_a_log_starts_anew_after_the_last_one(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, weighting="linear", max_steps=4, logging_steps=2)
    trainer.train()
    first, second = training_logs(trainer)
    assert 3.25 < first["soft_loss_weight"] < 4.0
    assert 1.75 < second["soft_loss_weight"] < 2.5


def test_for_constant_weights_the_loss_is_the_weighted_sum_of_the_logged_losses(tmp_path: Path) -> None:
    weights = {"weighting": "constant", "soft_loss_weight": 3.0, "hard_loss_weight": 0.5}
    trainer = make_trainer(tmp_path, **weights, logging_steps=3)
    trainer.train()
    logs = training_logs(trainer)[0]
    assert logs["loss"] == pytest.approx(0.5 * logs["hard_loss"] + 3.0 * logs["soft_loss"], abs=1e-6)


def test_tensorboard_gets_the_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = make_trainer(
        tmp_path, report_to="tensorboard", logging_steps=1, max_steps=2, eval_strategy="steps", eval_dataset=examples()
    )
    trainer.train()
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    for name in ("hard_loss", "soft_loss", "soft_loss_weight", "teacher_hard_loss", "train_gap"):
        written = [event.value for event in board.Scalars(f"train/{name}")]
        assert written == pytest.approx([logs[name] for logs in training_logs(trainer)])
    assert len(board.Scalars("eval/agreement")) == 2


class Synchronisations(TorchDispatchMode):
    """Counts the values that are read from a device."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def num_synchronisations(folder: Path, max_steps: int, monkeypatch: pytest.MonkeyPatch) -> int:
    trainer = make_trainer(folder, max_steps=max_steps, logging_steps=100)
    with Synchronisations() as counter, monkeypatch.context() as patch:
        tolist = Tensor.tolist

        def counted(tensor: Tensor) -> Any:
            counter.num += 1
            return tolist(tensor)

        patch.setattr(Tensor, "tolist", counted)
        trainer.train()
    return counter.num


def test_collecting_what_is_logged_waits_for_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def growth() -> int:
        return num_synchronisations(tmp_path, 5, monkeypatch) - num_synchronisations(tmp_path, 2, monkeypatch)

    with_logs = growth()
    collect = TrainingLog.add
    monkeypatch.setattr(TrainingLog, "add", lambda *_: None)
    monkeypatch.setattr(TrainingLog, "add_teacher", lambda *_: None)
    assert growth() == with_logs

    def eager(self: TrainingLog, losses: Losses, *rest: Any) -> None:
        losses.hard.sum().item()
        collect(self, losses, *rest)

    monkeypatch.setattr(TrainingLog, "add", eager)
    assert growth() == with_logs + 3
