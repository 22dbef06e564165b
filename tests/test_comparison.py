"""What the comparison says follows from the runs, whichever way they went."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import arguments, collator, examples, make_student, make_teacher, tokenizer
from transformers import DataCollatorForLanguageModeling

from hf_dwt import DWTTrainer, Teacher, cache_teacher
from hf_dwt.comparison import (
    Run,
    Stopwatch,
    can_resume,
    carry_out,
    equal_cost_steps,
    held_out_by,
    operations,
    read_run,
    summary,
    teacher_operations,
)
from hf_dwt.costs import StepCost


def run(name: str = "run", steps: int = 10, loss: float = 1.0, accuracy: float = 0.5, taught: int = 0) -> Run:
    return Run(name, steps, loss, accuracy, 1.0, taught, ())


def test_equal_cost_counts_the_steps_that_asked_the_teacher() -> None:
    cost = StepCost(student_forward=10, teacher_forward=15)
    assert operations(run(steps=10, taught=4), cost) == 10 * 30 + 4 * 15
    assert equal_cost_steps(run(steps=10, taught=4), cost) == 12
    assert equal_cost_steps(run(steps=10, taught=0), cost) == 10


def test_a_cached_teacher_costs_its_cache_and_nothing_in_the_steps() -> None:
    # 24 examples, 2 epochs of masks, 8 examples a step: the teacher was run over 6 steps' worth of examples.
    cost = StepCost(student_forward=10, teacher_forward=15)
    told = replace(run(steps=10, taught=10), cache_passes=6.0)
    assert operations(told, cost) == 10 * 30 + 6 * 15
    assert teacher_operations(told, cost) == 6 * 15
    assert equal_cost_steps(told, cost) == 13


def test_probes_cost_a_pass_of_the_student_each_and_one_of_the_teacher() -> None:
    # The probe is half as large as a step's batch; the student is scored on it 4 times, the teacher once.
    cost = StepCost(student_forward=10, teacher_forward=16)
    probed = replace(run(steps=10, taught=4), num_probes=4, probe_size=0.5)
    assert operations(probed, cost) == 10 * 30 + 4 * 16 + 4 * 5 + 8
    assert teacher_operations(probed, cost) == 4 * 16 + 8
    assert equal_cost_steps(probed, cost) == 13  # 392 / 30


def test_a_run_tells_what_its_cache_and_its_probes_took(tmp_path: Path) -> None:
    cache = cache_teacher(Teacher(make_teacher(), tokenizer()), examples(), tmp_path / "cache", epochs=3)
    told = carry_out(trainer_in(tmp_path / "told", teacher=cache, weighting="constant"), "told")
    # 24 examples x 3 epochs, in steps of 8 x 2.
    two = {"gradient_accumulation_steps": 2}
    larger = carry_out(trainer_in(tmp_path / "two", teacher=cache, weighting="constant", **two), "told")
    assert (told.cache_passes, larger.cache_passes, told.num_probes) == (9.0, 4.5, 0)
    assert read_run(tmp_path / "told") == told
    following = {"weighting": "handover", "weighting_kwargs": {"gap_every": 2, "margin": 0.0}, "learning_rate": 1e-4}
    probed = carry_out(trainer_in(tmp_path / "probed", **following), "probed")
    assert (probed.cache_passes, probed.num_probes, probed.probe_size) == (None, 2, 3.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, []),
        ({"eval_dataset": examples(8)}, ["the examples"]),
        ({"collator": collator("masked", mask_probability=0.5)}, ["mask_probability 0.15 against 0.5"]),
        ({"seed": 7}, ["mask_seed 42 against 7"]),
    ],
)
def test_two_losses_are_known_to_be_of_the_same_examples_and_masks_or_not(
    change: dict[str, Any], named: list[str], tmp_path: Path
) -> None:
    settings = {"per_device_train_batch_size": 8 if change else 3, **change}
    one, other = (held_out_by(trainer_in(tmp_path, **each)) for each in ({}, settings))
    assert one.differences(other) == named


def test_masks_that_belong_to_batches_are_not_known(tmp_path: Path) -> None:
    own = DataCollatorForLanguageModeling(tokenizer())
    assert held_out_by(trainer_in(tmp_path, collator=own)) is None
    assert held_out_by(trainer_in(tmp_path, eval_dataset=None)) is None


def test_a_teacher_that_did_not_help_is_called_so() -> None:
    lines = summary(run(loss=1.0), run(loss=1.5, accuracy=0.4), run(loss=0.9, steps=13))
    assert lines[0].startswith("At equal steps (10): the teacher helped: held-out loss -0.5000 nats, accuracy +10.00")
    assert lines[1].startswith("At equal cost (13 steps alone): the teacher did not help: held-out loss +0.1000")


def trainer_in(folder: Path, **settings: Any) -> DWTTrainer:
    steps = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, **settings}
    own = {"teacher": make_teacher(), "eval_dataset": examples(), "collator": None}
    own |= {name: steps.pop(name) for name in own.keys() & steps.keys()}
    if own["eval_dataset"] is None:
        steps["eval_strategy"] = "no"
    return DWTTrainer(
        make_student(),
        arguments(folder, **steps),
        own["collator"],
        train_dataset=examples(),
        eval_dataset=own["eval_dataset"],
        processing_class=tokenizer(),
        teacher=own["teacher"],
    )


def test_a_run_leaves_its_result_and_is_not_repeated(tmp_path: Path) -> None:
    done = carry_out(trainer_in(tmp_path), "with teacher")
    assert (done.steps, done.taught_steps) == (4, 4)
    assert [point.step for point in done.curve] == [2, 4]
    assert done.curve[-1].loss == pytest.approx(done.loss)
    assert 0 < done.curve[0].seconds <= done.curve[1].seconds
    assert (tmp_path / "model.safetensors").is_file()
    assert read_run(tmp_path) == done
    untouched = trainer_in(tmp_path)
    assert carry_out(untouched, "with teacher", resume=True) == done
    assert untouched.state.global_step == 0


def test_the_watch_goes_on_where_the_checkpoint_was_written(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    carry_out(trainer_in(tmp_path, **settings), "first")
    trainer, watch = trainer_in(tmp_path, **settings), Stopwatch()
    trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [point.step for point in watch.points] == [2, 4]
    assert watch.points[0].seconds < watch.points[1].seconds


def test_resuming_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No valid checkpoint"):
        carry_out(trainer_in(tmp_path), "with teacher", resume=True)


def test_a_finished_run_that_is_asked_for_more_steps_goes_on(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2, "weighting_steps": 8}
    carry_out(trainer_in(tmp_path, **settings), "with teacher")
    longer = trainer_in(tmp_path, **{**settings, "max_steps": 6})
    assert carry_out(longer, "with teacher", resume=True).steps == 6
    assert read_run(tmp_path).steps == 6


def test_a_finished_run_that_is_asked_for_more_epochs_goes_on(tmp_path: Path) -> None:
    settings = {"save_strategy": "epoch", "max_steps": -1, "weighting_steps": 8}
    first = carry_out(trainer_in(tmp_path, **settings, num_train_epochs=1), "with teacher")
    assert first.steps == 3
    again = trainer_in(tmp_path, **settings, num_train_epochs=1)
    assert carry_out(again, "with teacher", resume=True) == first
    assert again.state.global_step == 0
    assert carry_out(trainer_in(tmp_path, **settings, num_train_epochs=2), "with teacher", resume=True).steps == 6


def test_a_result_that_does_not_tell_its_epochs_is_taken_as_it_is(tmp_path: Path) -> None:
    done = carry_out(trainer_in(tmp_path), "with teacher")
    result = json.loads((tmp_path / "run.json").read_text())
    del result["num_train_epochs"]
    (tmp_path / "run.json").write_text(json.dumps(result))
    assert carry_out(trainer_in(tmp_path, max_steps=-1, num_train_epochs=3), "with teacher", resume=True) == done


def test_a_result_or_a_whole_checkpoint_can_be_taken_up(tmp_path: Path) -> None:
    assert not can_resume(tmp_path)
    (tmp_path / "checkpoint-2").mkdir()
    assert not can_resume(tmp_path), "it is half-written"
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text("{}")
    assert can_resume(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-2")
    (tmp_path / "run.json").write_text("{}")
    assert can_resume(tmp_path)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"weighting": "constant"}, 4),
        ({"weighting": "inheritance", "weighting_kwargs": {"end": 0.5}}, 2),
        ({"weighting": "inheritance", "weighting_kwargs": {"end": 0.5}, "weighting_steps": 2}, 1),
        ({"weighting": "handover", "weighting_kwargs": {"gap_every": 1, "margin": 9.0}}, 0),
    ],
)
def test_taught_steps_are_those_in_which_the_teacher_was_asked(
    settings: dict[str, object], expected: int, tmp_path: Path
) -> None:
    assert carry_out(trainer_in(tmp_path, **settings), "run").taught_steps == expected


def test_a_run_that_restores_callbacks_goes_on_with_its_curve(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2, "weighting_steps": 4}
    first, before = trainer_in(tmp_path, **saving), Stopwatch()
    first.add_callback(before)
    first.train()
    restoring = {**saving, "max_steps": 4, "restore_callback_states_from_checkpoint": True}
    second, watch = trainer_in(tmp_path, **restoring), Stopwatch()
    second.add_callback(watch)
    second.train(resume_from_checkpoint=True)
    assert [point.step for point in watch.points] == [2, 4]
    assert watch.points[0] == before.points[0]
