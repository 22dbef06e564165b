"""What a trainer looks at beside training."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from tiny_runs import collator, examples, make_teacher, tokenizer
from trainer_runs import make_trainer

from hf_dwt import DWTTrainer
from hf_dwt.sampling import probe_data, reads_once, sampled_batches, sampled_by


class OwnLoader(DWTTrainer):
    """Has its data from elsewhere."""

    def get_train_dataloader(self) -> Any:
        return super().get_train_dataloader()


def test_a_sample_is_the_same_each_time_and_moves_no_global_generator() -> None:
    before = torch.random.get_rng_state()
    first, second = (list(sampled_batches(list(range(100)), list, 8)) for _ in range(2))
    assert first == second
    assert [index for batch in first for index in batch] != list(range(100))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_columns_that_the_model_does_not_take_are_left_out(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, train_dataset=examples().add_column("origin", ["web"] * 24))
    seen: list[Any] = []
    next(sampled_by(trainer, trainer.train_dataset, lambda rows: seen.extend(rows) or {}))
    assert set(seen[0]) == {"input_ids"}


def test_training_data_from_a_loader_of_ones_own_or_that_read_once_cannot_be_looked_at(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    data = {"train_dataset": examples(), "eval_dataset": examples(4), "processing_class": tokenizer()}
    own = OwnLoader(trainer.model, trainer.args, **data)
    assert sampled_by(own, own.train_dataset, collator("masked")) is None
    assert sampled_by(own, own.eval_dataset, collator("masked")) is not None
    assert sampled_by(trainer, iter(examples()), collator("masked")) is None
    assert sampled_by(trainer, None, collator("masked")) is None


def test_a_stream_that_starts_anew_can_be_looked_at() -> None:
    assert reads_once(iter([1]))
    assert not reads_once(examples().to_iterable_dataset())


@pytest.mark.parametrize(
    ("held_out", "expected"), [(None, 24), (examples(4), 4), ({"web": examples(5), "books": examples(6)}, 5), ({}, 24)]
)
def test_held_out_data_come_before_those_of_training(held_out: Any, expected: int, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher=make_teacher(), eval_dataset=held_out)
    assert isinstance(probe_data(trainer), datasets.Dataset)
    assert len(probe_data(trainer)) == expected
