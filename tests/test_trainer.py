"""`DWTTrainer`: what it computes, and that it stands in for `Trainer`."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import (
    KINDS,
    arguments,
    examples,
    kind_of,
    labelled_examples,
    largest_difference,
    make_student,
    make_teacher,
    tokenizer,
    weights_of,
)
from torch import Tensor
from trainer_runs import make_trainer, plain_losses, stack, training_logs
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, Trainer, TrainingArguments

from hf_dwt import DWTTrainer, DWTTrainingArguments, heads

MAX_DIFFERENCE = 1e-6


def train_plainly(student: PreTrainedModel, teacher: PreTrainedModel, kind: str, num_steps: int) -> None:
    """Minimise hard loss + (4 falling to 1) * temperature**2 * soft loss at temperature 2 by SGD."""
    rows = labelled_examples(kind).with_format("torch")
    student.train()
    for step in range(num_steps):
        start = 8 * step % len(rows)
        hard, soft = plain_losses(student, teacher.eval(), rows[start : start + 8], kind, temperature=2.0)
        loss = (hard + (4.0 - 3.0 * step / num_steps) * 4.0 * soft).sum() / len(hard)
        gradients = torch.autograd.grad(loss, list(student.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(student.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "gpt2", "llama"])
def test_weights_are_those_of_a_plain_loop_over_the_same_batches(architecture: str, tmp_path: Path) -> None:
    student, teacher, kind = make_student(architecture), make_teacher(architecture), kind_of(architecture)
    before, plain, exact = weights_of(student), copy.deepcopy(student), copy.deepcopy(student).double()
    settings = {"soft_loss_weight": 4.0, "final_soft_loss_weight": 1.0, "temperature": 2.0, "num_train_epochs": 2}
    args = arguments(tmp_path, train_sampling_strategy="sequential", allow_bad_teacher=True, **settings)
    DWTTrainer(student, args, train_dataset=labelled_examples(kind), teacher=teacher).train()
    train_plainly(plain, teacher, kind, num_steps=6)
    train_plainly(exact, copy.deepcopy(teacher).double(), kind, num_steps=6)
    wanted = {name: weight.float() for name, weight in weights_of(exact).items()}
    # Llama's small embeddings are normalised: there a plain loop in float32 is some 1e-5 off itself.
    tolerance = max(MAX_DIFFERENCE, 2 * largest_difference(weights_of(plain), wanted))
    assert largest_difference(weights_of(student), wanted) < tolerance < 2e-5
    assert largest_difference(weights_of(student), before) > 0.01


@pytest.mark.parametrize("settings", [{}, {"activation_checkpointing": True}, {"bf16": True}], ids=str)
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_heads_that_are_run_in_parts_change_no_result(
    kind: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twenty_steps() -> tuple[dict[str, Tensor], list[dict[str, float]], dict[str, float]]:
        sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 20}
        trainer = make_trainer(tmp_path, kind, eval_dataset=examples(), **sizes, **settings)
        trainer.train()
        return weights_of(trainer.model), training_logs(trainer), trainer.evaluate()

    whole = twenty_steps()
    calls: list[int] = []
    run = heads.halt_at
    monkeypatch.setattr(heads, "halt_at", lambda *args: calls.append(1) or run(*args))
    monkeypatch.setattr(heads, "_MOST_LOGITS_ON_CPU", 5 * make_student(kind).config.vocab_size)
    parts = twenty_steps()
    assert len(calls) >= 40, "student and teacher, two micro-batches a step, of which some have few positions"
    difference = largest_difference(parts[0], whole[0])
    assert difference < (1e-2 if "bf16" in settings else 1e-5)
    # Rounding to bfloat16 makes logits equal, and which of them comes first is a matter of the processor.
    kinds = ("loss", "gap") if "bf16" in settings else ("loss", "gap", "agreement")
    for ours, theirs in [*zip(parts[1], whole[1], strict=True), (parts[2], whole[2])]:
        names = {name for name in theirs if any(each in name for each in kinds)}
        for name in names:
            assert ours[name] == pytest.approx(theirs[name], rel=5e-2 if "bf16" in settings else 1e-5, abs=1e-5), name


def weights_after_three_steps(
    folder: Path, kind: str, batch_size: int, accumulation: int, *, teacher: Any = "own", scaled: bool = True
) -> dict[str, Tensor]:
    sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation}
    trainer = make_trainer(folder, kind, teacher=teacher, max_steps=3, **sizes)
    trainer.loss_is_scaled_for_ga = scaled
    trainer.train()
    return weights_of(trainer.model)


@pytest.mark.parametrize("teacher", ["own", None], ids=["both losses", "hard loss"])
@pytest.mark.parametrize("kind", KINDS)
def test_accumulation_changes_no_weight(kind: str, teacher: str | None, tmp_path: Path) -> None:
    whole = weights_after_three_steps(tmp_path, kind, 8, 1, teacher=teacher)
    for batch_size, accumulation in ((2, 4), (4, 2)):
        parts = weights_after_three_steps(tmp_path, kind, batch_size, accumulation, teacher=teacher)
        assert largest_difference(whole, parts) < MAX_DIFFERENCE
    assert largest_difference(whole, weights_of(make_student(kind))) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_counting_a_micro_batch_instead_of_the_step_would_change_weights(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights_after_three_steps(tmp_path, kind, 8, 1)
    monkeypatch.setattr(
        DWTTrainer,
        "_get_num_items_in_batch",
        lambda self, batches, device: torch.tensor(len(self._positions_of(batches[0]))),
    )
    assert largest_difference(whole, weights_after_three_steps(tmp_path, kind, 2, 4)) > 1e-3


def test_a_second_division_by_the_micro_batches_would_change_weights(tmp_path: Path) -> None:
    whole = weights_after_three_steps(tmp_path, "masked", 8, 1)
    parts = weights_after_three_steps(tmp_path, "masked", 2, 4, scaled=False)
    assert largest_difference(whole, parts) > 1e-3


def test_the_gradient_of_the_stock_trainer_is_four_times_too_large_for_bert_at_four_accumulation_steps(
    tmp_path: Path,
) -> None:
    rows = labelled_examples("masked").select([1] * 8)
    moved = {}
    for trainer_class in (Trainer, DWTTrainer):
        for batch_size, accumulation in ((8, 1), (2, 4)):
            sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation}
            student = make_student()
            before = student.bert.embeddings.word_embeddings.weight.detach().clone()
            trainer_class(student, arguments(tmp_path, max_steps=1, **sizes), train_dataset=rows).train()
            moved[trainer_class, accumulation] = student.bert.embeddings.word_embeddings.weight.detach() - before
    torch.testing.assert_close(moved[Trainer, 4], 4 * moved[Trainer, 1], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(moved[DWTTrainer, 4], moved[Trainer, 1], atol=1e-6, rtol=1e-4)


def test_without_teacher_the_loss_is_the_hard_loss_alone(tmp_path: Path) -> None:
    rows = labelled_examples("masked").select([2] * 8)
    students = {}
    for trainer_class in (Trainer, DWTTrainer):
        students[trainer_class] = make_student()
        trainer_class(students[trainer_class], arguments(tmp_path, max_steps=3), train_dataset=rows).train()
    assert largest_difference(*map(weights_of, students.values())) < MAX_DIFFERENCE


def test_without_teacher_the_settings_of_distillation_are_said_to_have_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path, teacher=None, temperature=2.0, hard_loss_weight=3.0)
    assert trainer.weights().hard == 1.0
    assert "There is no `teacher`: weighting, hard_loss_weight, temperature have no effect" in caplog.text


# In place of `Trainer`


def test_positional_arguments_are_those_of_the_stock_trainer(tmp_path: Path) -> None:
    rows = labelled_examples("masked")
    trainer = DWTTrainer(make_student(), arguments(tmp_path, max_steps=1), stack, rows, rows, tokenizer())
    assert trainer.data_collator is stack
    assert (trainer.train_dataset, trainer.eval_dataset, trainer.processing_class) == (rows, rows, tokenizer())
    trainer.train()


def test_plain_training_arguments_take_the_default_choices(tmp_path: Path) -> None:
    args = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        max_steps=2,
        logging_steps=1,
    )
    trainer = DWTTrainer(
        make_student(), args, train_dataset=examples(), processing_class=tokenizer(), teacher=make_teacher()
    )
    trainer.train()
    assert [logs["soft_loss_weight"] for logs in training_logs(trainer)] == [1.0, 0.0], "of `inheritance`"


def test_no_arguments_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = DWTTrainer(make_student(), teacher=make_teacher())
    assert isinstance(trainer.args, DWTTrainingArguments)
    assert trainer.args.output_dir == "tmp_trainer"


def test_model_init_makes_the_student(tmp_path: Path) -> None:
    def trained(**students: Any) -> dict[str, Tensor]:
        trainer = DWTTrainer(
            args=arguments(tmp_path, max_steps=2, data_seed=42),
            train_dataset=examples(),
            processing_class=tokenizer(),
            teacher=make_teacher(),
            **students,
        )
        trainer.train()
        return weights_of(trainer.model)

    assert largest_difference(trained(model_init=lambda: make_student()), trained(model=make_student())) == 0


def classification(folder: Path, **settings: Any) -> dict[str, Any]:
    """Arguments of a trainer of a classifier."""
    torch.manual_seed(0)
    size = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=64, hidden_size=8, num_labels=3, **size))
    rows = examples().add_column("label", [index % 3 for index in range(len(examples()))])
    return {
        "model": model,
        "args": arguments(folder, num_train_epochs=2, gradient_accumulation_steps=2, **settings),
        "train_dataset": rows,
        "eval_dataset": rows,
        "processing_class": tokenizer(),
    }


def test_a_model_that_is_no_language_model_is_trained_as_by_the_stock_trainer(tmp_path: Path) -> None:
    trainers = []
    for trainer_class in (Trainer, DWTTrainer):
        # Dropout draws from the global generator, which each constructor seeds.
        trainers.append(trainer_class(**classification(tmp_path, logging_steps=1)))
        trainers[-1].train()
    stock, ours = trainers
    assert largest_difference(weights_of(stock.model), weights_of(ours.model)) == 0
    assert training_logs(stock) == training_logs(ours)
    assert stock.evaluate()["eval_loss"] == ours.evaluate()["eval_loss"]


def test_a_model_that_is_no_language_model_cannot_have_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`model` is BertForSequenceClassification"):
        DWTTrainer(**classification(tmp_path), teacher=make_teacher())
