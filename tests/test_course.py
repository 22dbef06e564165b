"""The policy is asked once a step, is shown the gap when it follows that, and nothing of it is lost on the way."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import arguments
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_dwt import Signals, Weights, register_policy, weighting
from hf_dwt.arguments import DistillationArguments
from hf_dwt.course import Course, Record, gap_interval, planned_weights
from hf_dwt.probe import Score
from hf_dwt.weighting import make_policy


class FakeProbe:
    """Answers with losses that are known beforehand."""

    num_examples = 256

    def __init__(self, *losses: float) -> None:
        self.losses = list(losses)

    def score(self, head_of: Any) -> Score:
        return Score(self.losses.pop(0), seconds=2.0, seconds_per_example=0.5)


def begun(args: TrainingArguments, **choices: Any) -> tuple[Course, TrainerState]:
    choices = {"weighting": "handover", "weighting_kwargs": {"gap_every": 2}, **choices}
    course, state = Course(DistillationArguments(**choices)), TrainerState(max_steps=100)
    course.on_train_begin(args, state, TrainerControl())
    return course, state


def look(course: Course, *losses: float) -> dict[str, float]:
    return course.look(FakeProbe(*losses), None, None)


@pytest.mark.parametrize(("horizon", "steps"), [(100, 50), (5000, 50), (20_000, 200)])
def test_by_default_the_gap_is_probed_at_every_percent_of_the_run_but_not_oftener_than_every_50_steps(
    horizon: int, steps: int
) -> None:
    assert gap_interval(make_policy("handover"), horizon) == steps
    assert gap_interval(make_policy("handover", gap_every=7), horizon) == 7
    assert gap_interval(make_policy("linear"), horizon) is None
    assert gap_interval(lambda signals: Weights(1.0, 1.0), horizon) is None


def test_the_teacher_is_scored_once_and_the_gap_is_the_larger_of_the_last_two(tmp_path: Path) -> None:
    course, state = begun(arguments(tmp_path))
    assert look(course, 3.0, 4.02)["probe_gap"] == pytest.approx(1.02)
    for loss, gap, soft in ((3.52, 1.02, 1.0), (3.12, 0.52, 0.5), (3.4, 0.4, 0.38), (3.01, 0.4, 0.38)):
        state.global_step += 2
        look(course, loss)
        assert max(course.record.gaps) == pytest.approx(gap)
        assert course.begin_step(state).soft == pytest.approx(soft)
    assert course.record.teacher_loss == 3.0
    assert course.record.reference_gap == pytest.approx(1.02)
    assert (course.record.num_probes, course.record.probe_seconds) == (5, 12.0)


def test_probes_are_due_before_the_teacher_speaks_first_and_then_every_so_many_steps(tmp_path: Path) -> None:
    course, state = begun(arguments(tmp_path), weighting_kwargs={"gap_every": 3})
    due = []
    for step in range(7):
        state.global_step = step
        if course.probe_is_due(state):
            due.append(step)
            look(course, *([1.0] if course.record.num_probes else [0.5, 1.0]))
    assert due == [0, 3, 6]


def test_the_warm_up_of_the_learning_rate_is_waited_for(tmp_path: Path) -> None:
    course, state = begun(arguments(tmp_path, warmup_steps=4))
    look(course, 1.0, 2.0)
    look(course, 1.0)
    look(course, 1.0)
    softs = []
    for step in range(6):
        state.global_step = step
        softs.append(course.begin_step(state).soft)
    assert softs == [1, 1, 1, 1, 0, 0]


def test_a_course_goes_on_from_what_a_checkpoint_holds(tmp_path: Path) -> None:
    course, state = begun(arguments(tmp_path))
    look(course, 1 / 3, 2.0)
    look(course, 1.1)
    course.begin_step(state)
    saved = json.loads(json.dumps({"Course": course.state()}))
    resumed = Course(DistillationArguments(weighting="handover", weighting_kwargs={"gap_every": 2}))
    resumed.on_train_begin(arguments(tmp_path), TrainerState(global_step=1, stateful_callbacks=saved), TrainerControl())
    assert resumed.record == course.record
    resumed.on_train_begin(arguments(tmp_path), TrainerState(global_step=0, stateful_callbacks=saved), TrainerControl())
    assert resumed.record == Record()


def test_the_policy_answers_once_a_step_however_often_the_weights_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weighting, "_policies", dict(weighting._policies))

    @register_policy("halving")
    @dataclass(frozen=True)
    class Halving:
        soft_loss_weight: float = 8.0

        def __call__(self, signals: Signals) -> Weights:
            before = signals.previous_soft_loss_weight
            return Weights(1.0, self.soft_loss_weight if before is None else before / 2)

    course, state = begun(arguments(tmp_path), weighting="halving", weighting_kwargs=None)
    assert course.weights(state).soft == 8
    for step, soft in enumerate((8, 4, 2)):
        state.global_step = step
        assert course.begin_step(state).soft == course.weights(state).soft == course.weights(state).soft == soft
    assert course.record.num_taught_steps == 3


def test_costs_are_those_of_the_teachers_pass_over_the_probe(tmp_path: Path) -> None:
    args = arguments(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    course, state = begun(args)
    look(course, 1.0, 2.0)
    for step in range(10):
        state.global_step = step
        course.begin_step(state)
    state.global_step = 10
    assert course.handover_costs(state, args) == {
        "handover_step": 10,
        "handover_teacher_seconds": 8 * 0.5 * 10,
        "handover_saved_seconds": 8 * 0.5 * 90,
        "handover_probe_seconds": 4.0,
    }


def test_what_is_planned_is_what_the_run_will_ask_for() -> None:
    weights = {"soft_loss_weight": 4.0, "final_soft_loss_weight": 1.0}
    choices = DistillationArguments(weighting="step", **weights, weighting_kwargs={"at": 0.5}, weighting_steps=20)
    shares = (0.0, 0.25, 0.5, 1.0)
    assert [each.soft for each in planned_weights(choices, 40, shares)] == [4.0, 1.0, 1.0, 1.0]
    assert [each.soft for each in planned_weights(choices, None, shares)] == [4.0, 4.0, 1.0, 1.0]
    with pytest.MonkeyPatch.context() as patch:
        seen: list[Signals] = []
        patch.setattr(DistillationArguments, "policy", lambda _: lambda signals: seen.append(signals))
        planned_weights(choices, 40, (0.25, 1.0))
    assert [(each.step, each.progress) for each in seen] == [(10, 0.5), (40, 1.0)]
