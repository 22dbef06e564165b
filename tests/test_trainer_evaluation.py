"""The figures of a held-out set that `DWTTrainer` gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import (
    KINDS,
    collator,
    examples,
    labelled_examples,
    largest_difference,
    make_student,
    make_teacher,
    tokenizer,
    weights_of,
)
from trainer_runs import make_trainer, plain_losses, stack
from transformers import Trainer

EVALUATION_KEYS = {"loss", "perplexity", "accuracy", "soft_loss", "teacher_hard_loss", "agreement", "gap"}
STOCK_EVALUATION_KEYS = {"runtime", "samples_per_second", "steps_per_second", "model_preparation_time"}


def expected_figures(kind: str, temperature: float = 1.0) -> dict[str, float]:
    collate = collator(kind)
    batch = collate.for_evaluation()(list(examples())) if kind == "masked" else collate(list(examples()))
    student, teacher = make_student(kind).eval(), make_teacher(kind).eval()
    with torch.no_grad():
        hard, soft = plain_losses(student, teacher, batch, kind, temperature)
        teacher_hard, _ = plain_losses(teacher, teacher, batch, kind, temperature)
        labels = batch["labels"] if kind == "masked" else batch.pop("labels")[:, 1:]
        guesses = [
            model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1)
            for model in (student, teacher)
        ]
    guesses = guesses if kind == "masked" else [each[:, :-1] for each in guesses]
    student_guess, teacher_guess = (each[labels != -100] for each in guesses)
    return {
        "eval_loss": hard.mean().item(),
        "eval_perplexity": hard.mean().exp().item(),
        "eval_accuracy": (student_guess == labels[labels != -100]).float().mean().item(),
        "eval_soft_loss": soft.mean().item(),
        "eval_teacher_hard_loss": teacher_hard.mean().item(),
        "eval_agreement": (student_guess == teacher_guess).float().mean().item(),
        "eval_gap": (hard - teacher_hard).mean().item(),
    }


@pytest.mark.parametrize("batch_size", [1, 5, 24])
@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_the_evaluation_are_means_over_all_positions_whatever_the_batch_size(
    kind: str, batch_size: int, tmp_path: Path
) -> None:
    settings = {"per_device_eval_batch_size": batch_size, "temperature": 2.0}
    metrics = make_trainer(tmp_path, kind, eval_dataset=examples(), **settings).evaluate()
    expected = expected_figures(kind, temperature=2.0)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert metrics.keys() == {"epoch"} | {f"eval_{name}" for name in EVALUATION_KEYS | STOCK_EVALUATION_KEYS}


def test_without_teacher_there_are_no_figures_of_one(tmp_path: Path) -> None:
    metrics = make_trainer(tmp_path, teacher=None, eval_dataset=examples()).evaluate()
    figures = {"loss", "perplexity", "accuracy"} | STOCK_EVALUATION_KEYS
    assert metrics.keys() == {"epoch"} | {f"eval_{name}" for name in figures}
    assert metrics["eval_loss"] == pytest.approx(expected_figures("masked")["eval_loss"], abs=1e-5)


def test_evaluation_asks_for_the_same_predictions_each_time(tmp_path: Path) -> None:
    settings = {"learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 2, "max_steps": 6}
    trainer = make_trainer(tmp_path, eval_dataset=examples(), **settings)
    trainer.train()
    losses = [logs["eval_loss"] for logs in trainer.state.log_history if "eval_loss" in logs]
    assert len(losses) == 3
    assert len(set(losses)) == 1


def test_evaluation_moves_no_mask_of_the_training(tmp_path: Path) -> None:
    steps = {"logging_steps": 1, "max_steps": 6}
    without = make_trainer(tmp_path, **steps)
    with_evaluation = make_trainer(tmp_path, **steps, eval_dataset=examples(), eval_strategy="steps", eval_steps=1)
    without.train()
    with_evaluation.train()
    assert largest_difference(weights_of(without.model), weights_of(with_evaluation.model)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_of_the_user_win_and_see_logits_of_the_stock_shape(kind: str, tmp_path: Path) -> None:
    shapes = []

    def metrics_of(prediction: Any) -> dict[str, float]:
        shapes.append((prediction.predictions.shape, prediction.label_ids.shape))
        return {"accuracy": -1.0, "own": 7.0}

    rows = labelled_examples(kind)
    settings = {"per_device_eval_batch_size": 5, "allow_bad_teacher": True, "eval_dataset": rows}
    trainer = make_trainer(
        tmp_path, kind, compute_metrics=metrics_of, train_dataset=rows, data_collator=stack, **settings
    )
    metrics = trainer.evaluate()
    assert shapes == [((24, 10, len(tokenizer())), (24, 10))]
    assert (metrics["eval_accuracy"], metrics["eval_own"]) == (-1.0, 7.0)
    trainer.compute_metrics = None
    assert metrics["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss"], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_the_logits_that_the_model_gives(kind: str, tmp_path: Path) -> None:
    rows = labelled_examples(kind)
    trainer = make_trainer(tmp_path, kind, train_dataset=rows, data_collator=stack)
    output = trainer.predict(rows)
    batch = rows.with_format("torch")[:]
    with torch.no_grad():
        logits = make_student(kind).eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(torch.tensor(output.predictions), logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.tensor(output.label_ids), batch["labels"])
    assert {f"test_{name}" for name in EVALUATION_KEYS} <= output.metrics.keys()


def test_each_of_several_evaluation_sets_has_its_figures(tmp_path: Path) -> None:
    sets = {"a": examples(), "b": examples(num=7, first_word=3)}
    metrics = make_trainer(tmp_path, eval_dataset=sets).evaluate()
    assert {f"eval_{which}_{name}" for which in sets for name in EVALUATION_KEYS} <= metrics.keys()
    assert metrics["eval_a_loss"] == pytest.approx(expected_figures("masked")["eval_loss"], abs=1e-5)
    assert metrics["eval_a_loss"] != metrics["eval_b_loss"]


def test_label_smoothing_does_not_enter_the_evaluation(tmp_path: Path) -> None:
    smoothed, plain = (
        make_trainer(tmp_path, eval_dataset=examples(), label_smoothing_factor=factor).evaluate()
        for factor in (0.3, 0.0)
    )
    assert smoothed["eval_loss"] == plain["eval_loss"]


def test_the_best_checkpoint_can_be_chosen_by_our_figures(tmp_path: Path) -> None:
    when = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    trainer = make_trainer(
        tmp_path, eval_dataset=examples(), **when, load_best_model_at_end=True, metric_for_best_model="agreement"
    )
    trainer.train()
    assert trainer.state.best_metric == max(
        logs["eval_agreement"] for logs in trainer.state.log_history if "eval_agreement" in logs
    )


@pytest.mark.parametrize("name", ["loss", "eval_loss"])
@pytest.mark.parametrize("by_batch", [False, True])
def test_a_loss_that_the_users_metrics_return_wins_too(name: str, by_batch: bool, tmp_path: Path) -> None:
    def metrics_of(prediction: Any, compute_result: bool = True) -> dict[str, Any]:
        return {name: np.float32(-2.0)} if compute_result else {}

    settings = {"eval_dataset": examples(), "compute_metrics": metrics_of, "batch_eval_metrics": by_batch}
    trainer = make_trainer(tmp_path, **settings, per_device_eval_batch_size=5)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == -2.0
    assert type(metrics["eval_loss"]) is float
    assert metrics["eval_perplexity"] == pytest.approx(expected_figures("masked")["eval_perplexity"], rel=1e-5)
    assert trainer.compute_metrics is metrics_of
    trainer.compute_metrics = None
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected_figures("masked")["eval_loss"], abs=1e-5)


@pytest.mark.parametrize("ignored", [["logits"], ["logits", "hidden_states"], []])
def test_outputs_that_are_to_be_ignored_are_gone_from_predictions_but_not_from_our_figures(
    ignored: list[str], tmp_path: Path
) -> None:
    rows = labelled_examples("masked")
    ours = make_trainer(tmp_path, train_dataset=rows, data_collator=stack, allow_bad_teacher=True)
    ours.model.config.output_hidden_states = True
    stock = Trainer(ours.model, ours.args, stack)
    predicted, expected = (trainer.predict(rows, ignore_keys=ignored) for trainer in (ours, stock))
    assert shapes_of(predicted.predictions) == shapes_of(expected.predictions)
    assert predicted.metrics["test_loss"] == pytest.approx(ours.predict(rows).metrics["test_loss"])
    evaluated = ours.evaluate(rows, ignore_keys=ignored)
    assert {f"eval_{name}" for name in EVALUATION_KEYS} <= evaluated.keys()


def test_a_teacher_that_breaks_stops_the_evaluation(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, eval_dataset=examples())
    trainer.evaluate()
    trainer.teacher.model.bert.embeddings.word_embeddings.weight[7] = torch.nan
    with pytest.raises(
        FloatingPointError, match=r"a model passed in memory\) gave logits that are not finite, at \d+ "
    ):
        trainer.evaluate()


def test_the_loop_of_an_evaluation_takes_its_arguments_by_position_as_trainer_does(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, eval_dataset=examples())
    output = trainer.evaluation_loop(trainer.get_eval_dataloader(), "Evaluation", True, None, "own")
    assert output.predictions is None
    assert {f"own_{name}" for name in EVALUATION_KEYS} <= output.metrics.keys()


def shapes_of(predictions: Any) -> Any:
    return predictions.shape if isinstance(predictions, np.ndarray) else [shapes_of(each) for each in predictions]
