"""Runs with and without the teacher differ in the teacher alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import WORDS, largest_difference, make_teacher, tokenizer, weights_of

from hf_dwt import DWTTrainer, DWTTrainingArguments
from hf_dwt.cli.inputs import Inputs, read_inputs
from hf_dwt.cli.recipe import CacheSection, Recipe, make_recipe
from hf_dwt.cli.runs import (
    arguments_for,
    make_trainer,
    mean_length,
    require_way_to_begin,
    run_student,
    score_teacher,
    step_cost,
)
from hf_dwt.cli.tables import comparison_rows, comparison_table, teacher_row
from hf_dwt.comparison import Run
from hf_dwt.costs import StepCost
from hf_dwt.sections import RecipeError


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Recipe, Inputs]:
    make_teacher().save_pretrained(tmp_path / "teacher")
    tokenizer().save_pretrained(tmp_path / "teacher")
    rows = [" ".join((WORDS * 2)[start : start + 3 + start % 7]) for start in range(10)]
    (tmp_path / "text.txt").write_text("\n".join(rows * 8))
    arguments = {"output_dir": str(tmp_path / "student"), "use_cpu": True, "max_steps": 4, "disable_tqdm": True}
    recipe = make_recipe(
        {
            "teacher": {"name": str(tmp_path / "teacher")},
            "student": {"num_hidden_layers": 2, "hidden_size": 24},
            "data": {"source": str(tmp_path / "text.txt"), "form": "sentences", "length": 16},
            "arguments": {**arguments, "weighting": "constant", "soft_loss_weight": 2.0, "save_steps": 2},
        }
    )
    return recipe, read_inputs(recipe, seed=0)


def arguments_of(**arguments: Any) -> DWTTrainingArguments:
    content = {"student": {"model_type": "bert"}, "data": {"source": "a.txt"}}
    return arguments_for(make_recipe({**content, "arguments": {"use_cpu": True, **arguments}}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"per_device_train_batch_size": 0}, "`arguments.per_device_train_batch_size` is 0: it should be at least 1"),
        ({"per_device_eval_batch_size": -8}, "`arguments.per_device_eval_batch_size` is -8"),
        ({"gradient_accumulation_steps": -2}, "`arguments.gradient_accumulation_steps` is -2"),
        ({"max_steps": 0}, "`arguments.max_steps` is 0: it should be at least 1, or -1"),
        ({"num_train_epochs": 0}, "`arguments.num_train_epochs` is 0: it should be finite and above 0"),
        ({"num_train_epochs": float("nan"), "max_steps": -1}, "`arguments.num_train_epochs` is nan"),
        ({"num_train_epochs": float("inf")}, "`arguments.num_train_epochs` is inf"),
        ({"lr_scheduler_kwargs": {"cycles": 1}}, "'linear' does not take: .* unexpected keyword argument 'cycles'"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "is None, which the schedule 'cosine_with_min_lr' does not take"),
        ({"learning_rate": -1.0}, "Invalid learning rate: -1.0"),
    ],
)
def test_arguments_by_which_nothing_can_be_trained_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments_of(**arguments)


def test_what_transformers_has_a_meaning_for_is_left_to_it() -> None:
    assert arguments_of(max_steps=-1, num_train_epochs=0.5).num_train_epochs == 0.5
    assert arguments_of(max_steps=3, num_train_epochs=0).max_steps == 3
    on_plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"min_lr": [0.0, 1e-5]}}
    assert arguments_of(**on_plateau).lr_scheduler_kwargs == {"min_lr": [0.0, 1e-5]}


def batches_of(trainer: DWTTrainer) -> list[dict[str, Any]]:
    trainer.before_epoch(1)
    return [{name: tensor.clone() for name, tensor in batch.items()} for batch in trainer.get_train_dataloader()]


def test_the_twin_starts_from_the_same_weights_and_sees_the_same_batches(prepared: tuple[Recipe, Inputs]) -> None:
    taught = make_trainer(*prepared, with_teacher=True)
    taught_weights, taught_batches = weights_of(taught.model), batches_of(taught)
    alone = make_trainer(*prepared, with_teacher=False)
    assert alone.teacher is None
    assert alone.args.soft_loss_weight is None
    assert largest_difference(taught_weights, weights_of(alone.model)) == 0
    for one, other in zip(taught_batches, batches_of(alone), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_cache_is_written_once_and_learnt_from(prepared: tuple[Recipe, Inputs], tmp_path: Path) -> None:
    recipe, inputs = prepared
    cached = replace(recipe, cache=CacheSection(str(tmp_path / "cache"), top_k=4))
    trainer = make_trainer(cached, inputs, with_teacher=True)
    assert trainer.teacher is None
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert written
    trainer.train()
    assert any("soft_loss" in logs for logs in trainer.state.log_history)
    make_trainer(cached, inputs, with_teacher=True)
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"teacher_dtype": "float16"}, "`teacher_dtype` says in which precision a model is run, got 'float16'"),
        ({"accelerator_config": {"dispatch_batches": True}}, "`dispatch_batches=True` cannot be used with a cache"),
    ],
)
def test_a_choice_that_is_of_no_use_with_a_cache_is_refused_before_the_teacher_is_asked(
    choice: dict[str, Any], message: str, prepared: tuple[Recipe, Inputs], tmp_path: Path
) -> None:
    recipe, inputs = prepared
    cached = replace(recipe, cache=CacheSection(str(tmp_path / "cache"), top_k=4))
    cached = replace(cached, arguments={**recipe.arguments, **choice})
    with pytest.raises(ValueError, match=message):
        run_student(cached, inputs)
    assert not (tmp_path / "cache").exists()


def test_checkpoints_of_another_run_are_not_written_over(prepared: tuple[Recipe, Inputs]) -> None:
    run_student(*prepared)
    with pytest.raises(RecipeError, match="holds checkpoints: pass `--resume`"):
        run_student(*prepared)
    assert run_student(*prepared, resume=True).steps == 4


def test_a_new_run_does_not_begin_beside_the_checkpoints_of_an_earlier_twin(tmp_path: Path) -> None:
    checkpoint = tmp_path / "alone-equal-steps" / "checkpoint-9"
    checkpoint.mkdir(parents=True)
    require_way_to_begin(str(tmp_path), resume=False)
    (checkpoint / "trainer_state.json").write_text("{}")
    with pytest.raises(RecipeError, match="alone-equal-steps holds checkpoints: pass `--resume`"):
        require_way_to_begin(str(tmp_path), resume=False)


def test_results_of_an_earlier_run_are_not_taken_for_those_of_the_new_one(prepared: tuple[Recipe, Inputs]) -> None:
    recipe, inputs = prepared
    student = Path(recipe.arguments["output_dir"])
    for folder in ("alone-equal-steps", "alone-equal-cost", "grown", "another"):
        (student / folder).mkdir(parents=True)
        (student / folder / "run.json").write_text("{}")
    run_student(recipe, inputs)
    assert {path.parent.name for path in student.rglob("run.json")} == {"student", "another"}


def test_the_teacher_is_scored_on_the_students_held_out_set(prepared: tuple[Recipe, Inputs]) -> None:
    recipe, inputs = prepared
    trainer = make_trainer(recipe, inputs, with_teacher=True)
    assert score_teacher(recipe, inputs).loss == pytest.approx(trainer.evaluate()["eval_teacher_hard_loss"], abs=1e-5)


def test_the_cost_of_a_step_follows_the_mean_length(prepared: tuple[Recipe, Inputs]) -> None:
    recipe, inputs = prepared
    assert inputs.teacher is not None
    length = mean_length(recipe, inputs)
    assert 5 < length < 12
    config = inputs.teacher.model.config
    short, long = (step_cost(recipe, "masked", config, config, each) for each in (length, 2 * length))
    assert short.student_forward == short.teacher_forward
    assert short.standalone < long.standalone


def test_the_table_says_unknown_where_costs_cannot_be_counted() -> None:
    runs = [Run("with teacher", 10, 1.0, 0.5, 3.0, 10, ()), Run("alone", 10, 1.1, 0.4, 2.0, 0, ())]
    teacher = teacher_row(runs[0])
    tables = (comparison_table(comparison_rows(runs, teacher, cost), teacher) for cost in (StepCost(10, 15), None))
    known, unknown = tables
    assert [list(column.cells) for column in known.columns[-2:]] == [["", "1.00", "0.67"], ["", "33%", "0%"]]
    assert [list(column.cells) for column in unknown.columns[-2:]] == [["", "unknown", "unknown"]] * 2
