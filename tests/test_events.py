"""The callbacks by which `DWTTrainer` takes part in a run."""

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import arguments, examples, labelled_examples, make_student
from torch import nn
from trainer_runs import make_trainer
from transformers import DefaultFlowCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_dwt import DWTTrainer
from hf_dwt.course import Course
from hf_dwt.data import MaskingCollator
from hf_dwt.events import TrainerEvents, WeightingHorizon
from hf_dwt.identity import KeepsTeacher


class Diary:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def before_training(self) -> None:
        self.entries.append("training")

    def before_epoch(self, epoch: int) -> None:
        self.entries.append(f"epoch {epoch}")

    def before_step(self) -> None:
        self.entries.append("step")

    def refuse_broken_teacher(self) -> None:
        self.entries.append("end")


def epochs_told(*states: float | None) -> list[str]:
    """What a run whose epochs begin at these values of `state.epoch` tells."""
    diary = Diary()
    events = TrainerEvents(diary)
    events.on_train_begin(None, TrainerState(), TrainerControl())
    for epoch in states:
        events.on_epoch_begin(None, TrainerState(epoch=epoch), TrainerControl())
    return diary.entries[1:]


# What the trainer is told


def test_events_are_passed_on_in_their_order() -> None:
    diary = Diary()
    events, rest = TrainerEvents(diary), (None, TrainerState(epoch=0), TrainerControl())
    for event in ("train_begin", "epoch_begin", "step_begin", "substep_end", "step_end", "epoch_end", "train_end"):
        getattr(events, f"on_{event}")(*rest, model=None)
    assert diary.entries == ["training", "epoch 0", "step", "end"]


def test_epochs_are_counted_from_0() -> None:
    assert epochs_told(0, 1.0, 2.0) == ["epoch 0", "epoch 1", "epoch 2"]
    assert epochs_told(None, 1.0) == ["epoch 0", "epoch 1"]


@pytest.mark.parametrize(("resumed_at", "first"), [(0.25, 0), (1.0, 1), (1.5, 1), (1.999, 1), (2.0, 2)])
def test_a_resumed_run_counts_on_from_the_epoch_that_it_was_in(resumed_at: float, first: int) -> None:
    assert epochs_told(resumed_at, first + 1.0) == [f"epoch {first}", f"epoch {first + 1}"]


def test_passes_that_end_short_of_a_whole_epoch_are_counted_too() -> None:
    assert epochs_told(0, 0.5, 1.17) == ["epoch 0", "epoch 1", "epoch 2"]


def test_another_run_counts_anew() -> None:
    diary = Diary()
    events = TrainerEvents(diary)
    for _ in range(2):
        events.on_train_begin(None, TrainerState(), TrainerControl())
        for epoch in (0, 1.0):
            events.on_epoch_begin(None, TrainerState(epoch=epoch), TrainerControl())
    assert diary.entries == ["training", "epoch 0", "epoch 1"] * 2


class EndsEpochs(TrainerCallback):
    """Ends each epoch after its second step."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_epoch_stop = state.global_step % 2 == 0


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"num_train_epochs": 3}, [0, 1, 2]),
        ({"train_dataset": "stream", "max_steps": 7}, [0, 1, 2]),
        ({"num_train_epochs": 3, "callbacks": [EndsEpochs()]}, [0, 1, 2]),
        ({"max_steps": 3}, [0]),
    ],
    ids=["epochs", "stream", "cut epochs", "one epoch"],
)
def test_masks_are_drawn_for_each_pass_over_the_data(
    settings: dict[str, Any], epochs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "train_dataset" in settings:
        settings = {**settings, "train_dataset": examples().to_iterable_dataset()}
    trainer = make_trainer(tmp_path, **settings)
    drawn: list[int] = []
    monkeypatch.setattr(MaskingCollator, "set_epoch", lambda _, epoch: drawn.append(epoch))
    trainer.train()
    assert drawn == epochs


# Which callbacks there are


def callbacks_of(trainer: DWTTrainer) -> list[type[TrainerCallback]]:
    return [type(each) for each in trainer.callback_handler.callbacks]


def test_ours_come_after_those_of_trainer_and_of_the_user_and_the_horizon_before_the_check_of_the_teacher(
    tmp_path: Path,
) -> None:
    callbacks = callbacks_of(make_trainer(tmp_path, callbacks=[EndsEpochs()]))
    assert callbacks[0] is DefaultFlowCallback
    assert callbacks[-4:] == [WeightingHorizon, KeepsTeacher, Course, TrainerEvents]
    assert EndsEpochs in callbacks[:-4]


def test_without_teacher_there_is_no_horizon(tmp_path: Path) -> None:
    callbacks = callbacks_of(make_trainer(tmp_path, teacher=None))
    assert TrainerEvents in callbacks
    assert not {WeightingHorizon, Course} & set(callbacks)


def test_a_model_that_is_no_language_model_has_the_callbacks_of_trainer_alone(tmp_path: Path) -> None:
    trainer = DWTTrainer(nn.Linear(2, 2), arguments(tmp_path), train_dataset=[{}], data_collator=lambda rows: {})
    assert not {TrainerEvents, WeightingHorizon} & set(callbacks_of(trainer))


def test_a_loss_of_ones_own_has_the_callbacks_of_trainer_alone(tmp_path: Path) -> None:
    trainer = DWTTrainer(
        make_student(), arguments(tmp_path), train_dataset=labelled_examples("masked"), compute_loss_func=max
    )
    assert not {TrainerEvents, WeightingHorizon} & set(callbacks_of(trainer))


def test_a_trainer_and_its_models_are_freed_as_soon_as_nobody_holds_them(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.train()
    held = weakref.ref(trainer), weakref.ref(trainer.model), weakref.ref(trainer.teacher.model)
    gc.disable()
    try:
        del trainer
        assert [each() for each in held] == [None, None, None]
    finally:
        gc.enable()


# The horizon of the weighting


def begin(args: TrainingArguments, state: TrainerState) -> WeightingHorizon:
    horizon = WeightingHorizon()
    horizon.on_train_begin(args, state, TrainerControl(), model=None)
    return horizon


def saved_state(steps: int, **fields: Any) -> TrainerState:
    """The state in a checkpoint of a run with this horizon."""
    state = {"args": {}, "attributes": {"steps": steps}}
    return TrainerState(stateful_callbacks={"WeightingHorizon": state}, **fields)


def test_the_horizon_is_the_length_of_the_run_unless_another_is_asked_for(tmp_path: Path) -> None:
    assert begin(arguments(tmp_path), TrainerState(max_steps=12)).steps == 12
    assert begin(arguments(tmp_path, weighting_steps=5), TrainerState(max_steps=12)).steps == 5
    assert begin(TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(max_steps=12)).steps == 12


def test_the_horizon_stands_in_the_state_and_survives_saving(tmp_path: Path) -> None:
    state = TrainerState(max_steps=12)
    horizon = begin(arguments(tmp_path), state)
    saved = json.loads(json.dumps(state.stateful_callbacks["WeightingHorizon"]))
    assert saved == horizon.state()
    assert WeightingHorizon.from_state(saved).steps == 12


def test_checkpoints_hold_the_horizon(tmp_path: Path) -> None:
    make_trainer(tmp_path, weighting_steps=9, max_steps=2, save_strategy="steps", save_steps=2).train()
    state = TrainerState.load_from_json(str(tmp_path / "checkpoint-2" / "trainer_state.json"))
    assert state.stateful_callbacks["WeightingHorizon"]["attributes"] == {"steps": 9}


def test_a_resumed_run_of_another_length_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    text = (
        r"runs over 12 steps, this run has 20\. Set `weighting_steps=12` to keep .*, or `weighting_steps=20` to change"
    )
    with pytest.raises(ValueError, match=text):
        begin(arguments(tmp_path), saved_state(12, global_step=6, max_steps=20))


def test_a_constant_policy_does_not_mind_another_length(tmp_path: Path) -> None:
    state = saved_state(12, global_step=6, max_steps=20)
    assert begin(arguments(tmp_path, weighting="constant"), state).steps == 20


@pytest.mark.parametrize("steps", [12, 20])
def test_a_resumed_run_of_another_length_goes_on_with_the_horizon_that_is_asked_for(steps: int, tmp_path: Path) -> None:
    state = saved_state(12, global_step=6, max_steps=20)
    assert begin(arguments(tmp_path, weighting_steps=steps), state).steps == steps
    assert state.stateful_callbacks["WeightingHorizon"]["attributes"] == {"steps": steps}


@pytest.mark.parametrize(
    "state",
    [
        saved_state(12, global_step=6, max_steps=12),
        saved_state(12, global_step=0, max_steps=20),
        TrainerState(global_step=6, max_steps=20),
    ],
    ids=["same length", "not resumed", "saved without a teacher"],
)
def test_a_run_that_changes_no_horizon_is_not_refused(state: TrainerState, tmp_path: Path) -> None:
    assert begin(arguments(tmp_path), state).steps == state.max_steps
