"""What goes on from a checkpoint by itself stays the same object in a trainer that restores callbacks."""

import time
from pathlib import Path

import pytest
from trainer_runs import make_trainer

from hf_dwt import DWTTrainer
from hf_dwt.self_restoring import Clock, SelfRestoring, set_aside


def self_restoring(trainer: DWTTrainer) -> list[SelfRestoring]:
    return [each for each in trainer.callback_handler.callbacks if isinstance(each, SelfRestoring)]


def test_callbacks_and_their_states_are_hidden_and_come_back(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    own = self_restoring(trainer)
    assert {trainer.course, trainer.tally} <= set(own)
    saved = {"Course": {"attributes": {}}, "WeightingHorizon": {"attributes": {}}, "Other": {"attributes": {}}}
    trainer.state.stateful_callbacks = dict(saved)
    with set_aside(trainer):
        assert not self_restoring(trainer)
        assert list(trainer.state.stateful_callbacks) == ["Other"]
    assert set(self_restoring(trainer)) == set(own)
    assert trainer.state.stateful_callbacks == saved


def test_a_run_that_restores_callbacks_goes_on_counting(tmp_path: Path) -> None:
    first = make_trainer(tmp_path, num_train_epochs=1, save_strategy="epoch")
    first.train()
    second = make_trainer(tmp_path, num_train_epochs=2, restore_callback_states_from_checkpoint=True, weighting_steps=9)
    own = self_restoring(second)
    second.train(resume_from_checkpoint=True)
    assert set(self_restoring(second)) == set(own)
    assert second.tally.tokens == 2 * first.tally.tokens
    assert second.course.record.num_taught_steps == second.state.max_steps


def test_the_clock_counts_on_and_leaves_out_what_shall_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock()
    clock.leave_out(5.0)
    assert clock.seconds == 0.0, "it did not run"
    clock.start(before=3.0)
    now[0] += 10.0
    clock.leave_out(2.0)
    assert clock.seconds == 11.0
    clock.stop()
    now[0] += 50.0
    assert clock.seconds == 11.0
