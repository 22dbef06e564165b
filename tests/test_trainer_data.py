"""The forms that the data of `DWTTrainer` may take: streams, torch data sets, workers, added tokens."""

import copy
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers.integrations
import transformers.trainer
from tiny_runs import KINDS, examples, largest_difference, make_student, make_teacher, tokenizer
from torch import Tensor
from trainer_runs import make_trainer, stack, trained_weights, training_logs
from transformers import DataCollatorForLanguageModeling, PreTrainedModel

from hf_dwt import Teacher
from hf_dwt.data import MaskingCollator


def without_new_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskingCollator, "set_epoch", lambda *_: None)


def test_masks_made_for_evaluation_train_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collate = MaskingCollator(tokenizer(), seed=42).for_evaluation()
    trainer = make_trainer(tmp_path, data_collator=collate, num_train_epochs=2)
    trainer.train()
    assert trainer.state.global_step == 6
    assert "training hides the same tokens in every epoch" in caplog.text


def test_grouping_by_length_takes_the_lengths_from_their_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    class Sampler(transformers.trainer.LengthGroupedSampler):
        def __init__(self, *args: Any, lengths: Any = None, **kwargs: Any) -> None:
            given.append(None if lengths is None else list(lengths))
            super().__init__(*args, lengths=lengths, **kwargs)

    monkeypatch.setattr(transformers.trainer, "LengthGroupedSampler", Sampler)
    # No example has these lengths: they are read, not counted.
    lengths = [100 - index for index in range(len(examples()))]
    rows = examples().add_column("length", lengths)
    with_column, without = (
        trained_weights(tmp_path, train_dataset=each, train_sampling_strategy="group_by_length")
        for each in (rows, examples())
    )
    assert given == [lengths, None]
    assert largest_difference(with_column, without) > 1e-3


def test_workers_change_no_weight_and_those_that_stay_draw_new_masks_in_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(num_workers: int) -> dict[str, Tensor]:
        workers = {"dataloader_num_workers": num_workers, "dataloader_persistent_workers": num_workers > 0}
        return trained_weights(tmp_path, num_train_epochs=2, **workers)

    here, in_workers = weights(0), weights(2)
    assert largest_difference(here, in_workers) == 0
    without_new_masks(monkeypatch)
    assert largest_difference(here, weights(0)) > 1e-3


def streamed_batches(folder: Path) -> list[Tensor]:
    """What the student reads in two passes, of three steps each, over a stream."""
    student, read = make_student(), []
    trainer = make_trainer(folder, model=student, train_dataset=examples().to_iterable_dataset(), max_steps=6)
    student.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: read.append((student.training, inputs[0]))
    )
    trainer.train()
    in_training = [batch for is_training, batch in read if is_training]
    assert len(in_training) == 6
    return in_training


def test_each_pass_over_a_stream_has_its_own_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = streamed_batches(tmp_path)
    assert not any(torch.equal(first, second) for first, second in zip(read[:3], read[3:], strict=True))
    without_new_masks(monkeypatch)
    read = streamed_batches(tmp_path)
    assert all(torch.equal(first, second) for first, second in zip(read[:3], read[3:], strict=True))


class Rows(torch.utils.data.Dataset):
    """The examples, as no more than a torch data set."""

    def __len__(self) -> int:
        return len(examples())

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": examples()[index]["input_ids"], "text": "not for the model"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_torch_data_set_trains_as_the_same_rows_of_datasets_do(kind: str, tmp_path: Path) -> None:
    weights = [trained_weights(tmp_path, kind, train_dataset=each) for each in (Rows(), examples())]
    assert largest_difference(*weights) == 0


@pytest.mark.parametrize("seed", [None, 7])
def test_a_collator_of_ones_own_trains_with_one_warning_and_its_evaluation_does_not_vary(
    seed: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = DataCollatorForLanguageModeling(tokenizer(), mlm_probability=0.3, seed=seed)
    trainer = make_trainer(tmp_path, data_collator=own, eval_dataset=examples(), max_steps=3)
    trainer.train()
    assert trainer.data_collator is own
    assert trainer.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"]
    warnings = [each.message for each in caplog.records if each.name.startswith("hf_dwt")]
    assert len(warnings) == 1
    assert "Your `data_collator` draws its masks from a generator that" in warnings[0]


@pytest.mark.parametrize("kind", KINDS)
def test_classes_that_examples_still_have_change_nothing(kind: str, tmp_path: Path) -> None:
    rows = examples().add_column("label", [index % 3 for index in range(len(examples()))])
    weights = [trained_weights(tmp_path, kind, train_dataset=each, max_steps=2) for each in (rows, examples())]
    assert largest_difference(*weights) == 0


# Vocabularies


def with_added_token() -> tuple[Any, PreTrainedModel, datasets.Dataset]:
    """A tokenizer with one more token, a student that predicts it, and examples where it stands in each sentence."""
    larger = copy.deepcopy(tokenizer())
    larger.add_tokens(["owl"])
    student = make_student()
    student.resize_token_embeddings(len(larger), mean_resizing=False)
    ids = [[row[0], len(larger) - 1, *row[1:]] for row in examples()["input_ids"]]
    return larger, student, datasets.Dataset.from_dict({"input_ids": ids})


def test_a_token_that_the_teacher_lacks_is_refused_unless_it_is_shown_as_unknown(tmp_path: Path) -> None:
    larger, student, rows = with_added_token()
    ours = {"model": student, "processing_class": larger, "train_dataset": rows, "max_steps": 3}
    teacher = Teacher(make_teacher(), tokenizer())
    with pytest.raises(ValueError, match=rf"holds token {len(tokenizer())}, which the teacher .* lacks"):
        make_trainer(tmp_path, teacher=teacher, **ours).train()
    read: list[Tensor] = []
    teacher.model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    trainer = make_trainer(tmp_path, teacher=teacher, map_added_tokens_to_unknown=True, **ours)
    trainer.train()
    assert trainer.state.global_step == 3
    assert all((each < len(tokenizer())).all() for each in read)
    assert any((each == tokenizer().unk_token_id).any() for each in read)


def test_labels_that_the_teacher_does_not_know_at_all_are_refused_before_any_step(tmp_path: Path) -> None:
    larger, student, _ = with_added_token()
    rows = examples().map(lambda row: {"labels": [len(larger) - 1] * len(row["input_ids"])})
    ours = {"model": student, "processing_class": larger, "train_dataset": rows, "per_device_train_batch_size": 1}
    trainer = make_trainer(tmp_path, teacher=Teacher(make_teacher(), tokenizer()), data_collator=stack, **ours)
    with pytest.raises(ValueError, match="knows none of the tokens that the first batches ask for"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_showing_tokens_as_unknown_needs_the_teachers_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`map_added_tokens_to_unknown` needs a teacher with an unknown token"):
        make_trainer(tmp_path, teacher=make_teacher(), map_added_tokens_to_unknown=True)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_pad_the_students_vocabulary_stay_out_of_the_soft_loss(kind: str, tmp_path: Path) -> None:
    losses = []
    for num_padding in (0, 7):
        student = make_student(kind)
        student.resize_token_embeddings(len(tokenizer()) + num_padding, mean_resizing=False)
        trainer = make_trainer(tmp_path, kind, model=student, max_steps=3, learning_rate=0.0, logging_steps=3)
        trainer.train()
        losses.append(training_logs(trainer)[0])
    exact, padded = losses
    assert padded["soft_loss"] == pytest.approx(exact["soft_loss"], abs=1e-5)
    assert padded["teacher_hard_loss"] == pytest.approx(exact["teacher_hard_loss"], abs=1e-6)
    assert padded["hard_loss"] > exact["hard_loss"]
