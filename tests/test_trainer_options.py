"""The options of `Trainer`: honoured or refused, beside a teacher too."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers.integrations
import transformers.trainer
from tiny_runs import (
    KINDS,
    arguments,
    collator,
    examples,
    labelled_examples,
    largest_difference,
    make_student,
    make_teacher,
    weights_of,
)
from torch import Tensor
from trainer_runs import make_trainer, plain_losses, trained_weights, training_logs
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, Trainer, TrainingArguments

from hf_dwt import DWTTrainer

MAX_DIFFERENCE = 1e-6


# The loss


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_label_smoothing_spreads_a_share_of_the_target_evenly_in_the_hard_loss(
    kind: str, smoothing: float, tmp_path: Path
) -> None:
    settings = {"weighting": "constant", "soft_loss_weight": 3.0, "temperature": 2.0}
    trainer = make_trainer(tmp_path, kind, label_smoothing_factor=smoothing, **settings)
    batch = collator(kind)(list(examples()))
    hard, soft = plain_losses(make_student(kind), make_teacher(kind).eval(), batch, kind, temperature=2.0)
    logits, labels = (
        make_student(kind)(batch["input_ids"], attention_mask=batch["attention_mask"]).logits,
        batch["labels"],
    )
    if kind == "causal":
        logits, labels = logits[:, :-1], labels[:, 1:]
    even = -logits.log_softmax(-1).mean(-1)[labels != -100]
    expected = ((1 - smoothing) * hard + smoothing * even + 3.0 * 4.0 * soft).mean()
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_label_smoothing_without_teacher_trains_as_in_the_stock_trainer(kind: str, tmp_path: Path) -> None:
    # The stock trainer also counts the first label of a causal example, which nothing predicts.
    first_ignored = labelled_examples(kind).map(lambda row: {"labels": [-100, *row["labels"][1:]]})
    rows, trained = first_ignored.select([1] * 8), []
    for trainer_class, smoothing in ((Trainer, 0.3), (DWTTrainer, 0.3), (DWTTrainer, 0.0)):
        student = make_student(kind)
        args = arguments(tmp_path, max_steps=2, label_smoothing_factor=smoothing)
        trainer_class(student, args, train_dataset=rows).train()
        trained.append(weights_of(student))
    stock, ours, not_smoothed = trained
    assert largest_difference(stock, ours) < MAX_DIFFERENCE
    assert largest_difference(stock, not_smoothed) > 1e-3


def doubled_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    return 2 * torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())


def test_a_loss_of_ones_own_is_used_without_a_teacher(tmp_path: Path) -> None:
    rows, trained = labelled_examples("masked").select([1] * 8), []
    for trainer_class, own in ((Trainer, doubled_loss), (DWTTrainer, doubled_loss), (DWTTrainer, None)):
        student = make_student()
        trainer_class(student, arguments(tmp_path, max_steps=2), train_dataset=rows, compute_loss_func=own).train()
        trained.append(weights_of(student))
    stock, ours, without = trained
    assert largest_difference(stock, ours) == 0
    assert largest_difference(stock, without) > 1e-3


def test_choices_without_effect_are_named_where_a_loss_of_ones_own_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(tmp_path, teacher=None, compute_loss_func=doubled_loss, temperature=2.0)
    assert "There is no `teacher`: weighting, temperature have no effect" in caplog.text
    assert "hard loss" not in caplog.text


def test_choices_without_effect_are_named_where_the_model_is_no_language_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = BertForSequenceClassification(BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1))
    DWTTrainer(classifier, arguments(tmp_path, temperature=2.0))
    assert "There is no `teacher`: weighting, temperature have no effect" in caplog.text
    caplog.clear()
    DWTTrainer(classifier, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    assert "have no effect" not in caplog.text


# What is refused


def test_a_loss_of_ones_own_is_refused_beside_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`compute_loss_func` cannot be used with a teacher: both would be the loss"):
        make_trainer(tmp_path, compute_loss_func=doubled_loss)


@pytest.mark.parametrize("teacher", ["own", None], ids=["taught", "alone"])
def test_a_replaced_head_is_refused(teacher: str | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`use_liger_kernel` would replace the head whose logits are compared"):
        make_trainer(tmp_path, teacher=teacher, use_liger_kernel=True)


@pytest.mark.parametrize("teacher", ["own", None], ids=["taught", "alone"])
def test_several_devices_without_a_launcher_are_refused(
    teacher: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", 3)
    with pytest.raises(ValueError, match=r"^3 GPUs without a launcher .* `torchrun --nproc_per_node 3`"):
        make_trainer(tmp_path, teacher=teacher)


@pytest.mark.parametrize(
    ("method", "name"), [("get_tp_size", "tensor"), ("get_cp_size", "context"), ("get_sp_size", "sequence")]
)
def test_splitting_a_model_or_a_sequence_is_refused(
    method: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, method, lambda _: 2)
    with pytest.raises(ValueError, match=rf"^{name} parallelism \(here over 2 processes\) is not supported; use DDP"):
        make_trainer(tmp_path)


def test_auxiliary_losses_of_a_router_are_refused(tmp_path: Path) -> None:
    student = make_student("causal")
    student.config.output_router_logits = True
    with pytest.raises(ValueError, match="Auxiliary router losses are not supported: set `output_router_logits=False`"):
        make_trainer(tmp_path, "causal", model=student)


def test_a_quantised_teacher_is_refused(tmp_path: Path) -> None:
    teacher = make_teacher()
    teacher.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    with pytest.raises(ValueError, match=r"is quantised\. Load it unquantised; `teacher_dtype='bfloat16'` halves it"):
        make_trainer(tmp_path, teacher=teacher)


def test_a_teacher_on_two_devices_is_refused_and_one_on_a_single_device_taken(tmp_path: Path) -> None:
    teacher = make_teacher()
    teacher.hf_device_map = {"bert": "cpu", "cls": "disk"}
    with pytest.raises(ValueError, match=r"is spread over 2 devices by a `device_map`\. Load it without one"):
        make_trainer(tmp_path, teacher=teacher)
    teacher.hf_device_map = {"": "cpu"}
    make_trainer(tmp_path, teacher=teacher)


# Noise, precision, memory


def test_noise_on_the_embeddings_reaches_the_student_alone_and_ends_with_training(tmp_path: Path) -> None:
    # At learning rate 0 the same example gives another loss only if something is random.
    same = datasets.Dataset.from_dict({"input_ids": [examples()[2]["input_ids"]] * 24})
    settings = {"max_steps": 3, "learning_rate": 0.0, "logging_steps": 1, "train_dataset": same, "eval_dataset": same}
    num_losses = {}
    for alpha in (None, 5.0):
        trainer = make_trainer(tmp_path, neftune_noise_alpha=alpha, allow_bad_teacher=True, **settings)
        trainer.train()
        logs = training_logs(trainer)
        num_losses[alpha] = len({round(each["hard_loss"], 6) for each in logs})
        assert len({round(each["teacher_hard_loss"], 6) for each in logs}) == 1
        assert trainer.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"]
    assert num_losses == {None: 1, 5.0: 3}


def test_training_under_noise_moves_the_weights_elsewhere(tmp_path: Path) -> None:
    noisy, quiet = (trained_weights(tmp_path, neftune_noise_alpha=alpha) for alpha in (5.0, None))
    assert all(each.isfinite().all() for each in noisy.values())
    assert largest_difference(noisy, quiet) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_weight(kind: str, tmp_path: Path) -> None:
    student, calls = make_student(kind), []
    trainer = make_trainer(tmp_path, kind, model=student, activation_checkpointing=True, max_steps=3)
    layer = student.bert.encoder.layer[0] if kind == "masked" else student.transformer.h[0]
    # Hooks of the layer itself stay outside of what the backward pass runs again.
    next(layer.children()).register_forward_pre_hook(lambda *_: calls.append(student.training))
    trainer.train()
    assert largest_difference(weights_of(student), trained_weights(tmp_path, kind, max_steps=3)) < MAX_DIFFERENCE
    assert calls.count(True) == 6


def head_dtypes(model: PreTrainedModel) -> set[torch.dtype]:
    """A set that fills with the types of the logits that the model computes."""
    dtypes: set[torch.dtype] = set()
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: dtypes.add(logits.dtype))
    return dtypes


@pytest.mark.parametrize(("mixed", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_holds_for_student_and_teacher(
    kind: str, mixed: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    student, teacher = make_student(kind), make_teacher(kind)
    trainer = make_trainer(tmp_path, kind, model=student, teacher=teacher, bf16=mixed, max_steps=3, logging_steps=3)
    seen = head_dtypes(student), head_dtypes(teacher)
    trainer.train()
    assert seen == ({dtype}, {dtype})
    assert {each.dtype for model in (student, teacher) for each in model.parameters()} == {torch.float32}
    plain = make_trainer(tmp_path, kind, max_steps=3, logging_steps=3)
    plain.train()
    for name in ("loss", "hard_loss", "soft_loss", "teacher_hard_loss"):
        assert training_logs(trainer)[0][name] == pytest.approx(training_logs(plain)[0][name], rel=0.05)


def test_the_precision_of_the_teacher_can_be_chosen(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher_dtype="bfloat16", max_steps=3, logging_steps=1)
    trainer.train()
    assert {each.dtype for each in trainer.teacher.model.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in trainer.model.parameters()} == {torch.float32}
    plain = make_trainer(tmp_path, max_steps=3, logging_steps=1)
    plain.train()
    losses = [[logs["teacher_hard_loss"] for logs in training_logs(each)] for each in (trainer, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


# Search for hyperparameters


def test_each_trial_starts_from_a_student_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    # What a search passes is known to transformers by the package it comes from; none is installed.
    monkeypatch.setattr(transformers.integrations, "hp_params", lambda trial: trial)

    def model_init(trial: dict[str, int] | None) -> PreTrainedModel:
        made.append(trial)
        return make_student(num_layers=trial["num_layers"] if trial else 2)

    trainer = make_trainer(tmp_path, model_init=model_init, max_steps=2)
    trainer.train(trial={"num_layers": 3})
    assert trainer.model.config.num_hidden_layers == 3
    trainer.train(trial={"num_layers": 1})
    assert trainer.model.config.num_hidden_layers == 1
    first = weights_of(trainer.model)
    trainer.train(trial={"num_layers": 1})
    assert largest_difference(first, weights_of(trainer.model)) == 0
    assert made == [None, {"num_layers": 3}, {"num_layers": 1}, {"num_layers": 1}]


def test_a_trial_may_choose_the_weighting(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, model_init=lambda: make_student(), max_steps=2, logging_steps=1)
    # This is how a search sets what it tries.
    trainer.args.soft_loss_weight = 2.0
    trainer.train()
    assert [logs["soft_loss_weight"] for logs in training_logs(trainer)] == [2.0, 1.5]
