"""What `DWTTrainer` refuses before the first step."""

from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest
from tiny_runs import (
    KINDS,
    arguments,
    build,
    examples,
    largest_difference,
    make_student,
    make_teacher,
    tokenizer,
    weights_of,
)
from trainer_runs import make_trainer
from transformers import BertConfig, BertModel, DataCollatorWithPadding, T5Config, T5ForConditionalGeneration

from hf_dwt import DWTTrainer, Signals, Weights, register_policy, weighting
from hf_dwt.data import MaskingCollator


def test_a_teacher_no_better_than_guessing_is_refused_before_any_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher=build("masked", 12, 1), max_steps=3)
    before = weights_of(trainer.model)
    with pytest.raises(ValueError, match=r"no better than guessing by token frequency: its loss is 4\.\d+ against 2\."):
        trainer.train()
    assert trainer.state.global_step == 0
    assert largest_difference(before, weights_of(trainer.model)) == 0


def test_a_policy_that_fails_at_the_end_is_refused_before_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weighting, "_policies", weighting._policies.copy())

    @register_policy("growing")
    @dataclass(frozen=True)
    class Growing:
        def __call__(self, signals: Signals) -> Weights:
            return Weights(1.0, 1 / (1 - signals.progress))

    trainer = make_trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=2, weighting="growing")
    told = r"`weighting='growing'` fails at progress 1, with ZeroDivisionError: .*\. A policy has to answer for each"
    with pytest.raises(ValueError, match=told):
        trainer.train()
    assert trainer.state.global_step == 0
    assert not list(tmp_path.glob("checkpoint-*"))


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("teacher", ["own", None], ids=["taught", "alone"])
def test_a_collator_that_makes_no_labels_is_refused(kind: str, teacher: str | None, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, kind, teacher=teacher, data_collator=DataCollatorWithPadding(tokenizer()))
    with pytest.raises(ValueError, match=r"A batch of `train_dataset` has no `labels`, only 'input_ids'"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_collator_for_the_other_kind_of_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="a MaskingCollator that makes labels for masked language models, `model` is a c"
    ):
        make_trainer(tmp_path, "causal", data_collator=MaskingCollator(tokenizer()))


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
