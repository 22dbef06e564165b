"""`DWTTrainer`: what it computes, what it does to teacher and student, what it logs and what it refuses."""

import copy
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import (
    KINDS,
    arguments,
    build,
    collator,
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
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hf_dwt import DWTTrainer, DWTTrainingArguments, Teacher, load_teacher
from hf_dwt.training_log import TrainingLog

MAX_DIFFERENCE = 1e-6


def make_trainer(folder: Path, architecture: str = "masked", *, teacher: Any = "own", **settings: Any) -> DWTTrainer:
    """A trainer of a tiny student on the examples; settings that are no arguments go to the trainer."""
    own = {"model", "train_dataset", "eval_dataset", "compute_metrics", "callbacks", "data_collator"}
    ours = {name: settings.pop(name) for name in own & settings.keys()}
    defaults = {"model": make_student(architecture), "train_dataset": examples()} if "model" not in ours else {}
    defaults |= {"processing_class": tokenizer(), "train_dataset": examples()}
    return DWTTrainer(
        args=arguments(folder, **settings),
        teacher=make_teacher(architecture) if teacher == "own" else teacher,
        **{**defaults, **ours},
    )


def training_logs(trainer: Trainer) -> list[dict[str, float]]:
    return [logs for logs in trainer.state.log_history if "loss" in logs]


# The loss


def plain_losses(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Tensor], kind: str, temperature: float
) -> tuple[Tensor, Tensor]:
    """Hard and soft loss of each position by the formulas of the paper, from full logits."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    labels, student_logits = batch["labels"], student(**inputs).logits
    with torch.no_grad():
        teacher_logits = teacher(**inputs).logits
    if kind == "causal":
        labels, student_logits, teacher_logits = labels[:, 1:], student_logits[:, :-1], teacher_logits[:, :-1]
    asked = labels != -100
    labels, student_logits, teacher_logits = labels[asked], student_logits[asked], teacher_logits[asked]
    hard = -student_logits.log_softmax(-1)[torch.arange(len(labels)), labels]
    probabilities = (teacher_logits / temperature).softmax(-1)
    soft = probabilities * (probabilities.log() - (student_logits / temperature).log_softmax(-1))
    return hard, soft.sum(-1)


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
    before, plain = weights_of(student), copy.deepcopy(student)
    settings = {"soft_loss_weight": 4.0, "final_soft_loss_weight": 1.0, "temperature": 2.0, "num_train_epochs": 2}
    args = arguments(tmp_path, train_sampling_strategy="sequential", allow_bad_teacher=True, **settings)
    DWTTrainer(student, args, train_dataset=labelled_examples(kind), teacher=teacher).train()
    train_plainly(plain, teacher, kind, num_steps=6)
    assert largest_difference(weights_of(student), weights_of(plain)) < MAX_DIFFERENCE
    assert largest_difference(weights_of(student), before) > 0.01


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
    assert "There is no `teacher`: hard_loss_weight, temperature have no effect" in caplog.text


# The teacher


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


# What is refused before the first step


def test_a_teacher_no_better_than_guessing_is_refused_before_any_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher=build("masked", 12, 1), max_steps=3)
    before = weights_of(trainer.model)
    with pytest.raises(ValueError, match=r"no better than guessing by token frequency: its loss is 4\.\d+ against 2\."):
        trainer.train()
    assert trainer.state.global_step == 0
    assert largest_difference(before, weights_of(trainer.model)) == 0


def test_a_bad_teacher_that_is_allowed_trains_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tmp_path, teacher=build("masked", 12, 1), max_steps=3, allow_bad_teacher=True)
    trainer.train()
    assert trainer.state.global_step == 3
    assert "no better than guessing" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_teacher_passes_in_silence(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_trainer(tmp_path, kind, max_steps=1).train()
    assert "guessing" not in caplog.text


@pytest.mark.parametrize("teacher", ["own", None], ids=["taught", "alone"])
def test_labels_that_are_all_ignored_are_refused(teacher: str | None, tmp_path: Path) -> None:
    rows = {name: examples()[:4]["input_ids"] for name in ("input_ids", "labels")}
    rows["labels"] = [[-100] * len(row) for row in rows["labels"]]
    trainer = make_trainer(
        tmp_path, teacher=teacher, train_dataset=datasets.Dataset.from_dict(rows), per_device_train_batch_size=1
    )
    with pytest.raises(ValueError, match=r"`train_dataset` asks for no prediction: in 4 batches every label is -100\."):
        trainer.train()


def test_an_empty_stream_is_refused(tmp_path: Path) -> None:
    stream = examples().to_iterable_dataset().filter(lambda _: False)
    trainer = make_trainer(tmp_path, train_dataset=stream, max_steps=3)
    with pytest.raises(ValueError, match=r"`train_dataset` is empty\."):
        trainer.train()


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"empty|num_samples"):
        make_trainer(tmp_path, train_dataset=examples().select([])).train()


@pytest.mark.parametrize(("teacher", "student"), [("masked", "causal"), ("causal", "masked")])
def test_a_teacher_of_the_other_kind_is_refused(teacher: str, student: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"is a {teacher} language model, `model` a {student} one"):
        make_trainer(tmp_path, student, teacher=make_teacher(teacher))


def test_a_teacher_that_shares_parameters_with_the_student_is_refused(tmp_path: Path) -> None:
    teacher = make_student()
    student = make_student()
    student.bert.embeddings = teacher.bert.embeddings
    with pytest.raises(ValueError, match="`teacher` and `model` share parameters"):
        make_trainer(tmp_path, model=student, teacher=teacher)
    with pytest.raises(ValueError, match="`teacher` and `model` share parameters"):
        make_trainer(tmp_path, model=student, teacher=student)


def test_encoder_decoders_are_refused_by_name(tmp_path: Path) -> None:
    config = T5Config(vocab_size=64, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(TypeError, match="`model` is T5ForConditionalGeneration"):
        make_trainer(tmp_path, model=T5ForConditionalGeneration(config))
    with pytest.raises(TypeError, match=r"got T5ForConditionalGeneration .*Encoder-decoders"):
        make_trainer(tmp_path, teacher=T5ForConditionalGeneration(config))


def test_a_teacher_without_head_is_refused_by_name(tmp_path: Path) -> None:
    bare = BertModel(BertConfig(vocab_size=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(TypeError, match="got BertModel"):
        make_trainer(tmp_path, teacher=bare)


def test_teacher_model_is_refused_and_the_right_name_told(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`teacher_model` is called `teacher` here"):
        DWTTrainer(make_student(), arguments(tmp_path), teacher_model=make_teacher())


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


# Logs

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

    def eager(self: TrainingLog, hard: Tensor, *rest: Any) -> None:
        hard.sum().item()
        collect(self, hard, *rest)

    monkeypatch.setattr(TrainingLog, "add", eager)
    assert growth() == with_logs + 3


# Evaluation

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
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-5)
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


def stack(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


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
    assert [logs["soft_loss_weight"] for logs in training_logs(trainer)] == [4.0, 2.5]


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
