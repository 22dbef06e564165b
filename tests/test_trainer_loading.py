"""Sizes, orders and sources of batches beside a teacher: each option acts, and changes only what it shall."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate.data_loader import DataLoaderDispatcher
from tiny_runs import KINDS, examples, largest_difference, make_student, weights_of
from torch.utils.data import IterableDataset
from trainer_runs import make_trainer, trained_weights, training_logs
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_dwt import DWTTrainer

EQUAL = 1e-5


def rows_seen(trainer: DWTTrainer) -> list[list[int]]:
    """Lengths of the examples of each batch that the loss is computed of, once it has been trained."""
    seen, compute_loss = [], trainer.compute_loss

    def noting(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(inputs["attention_mask"].sum(-1).tolist())
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = noting
    trainer.train()
    return seen


# Sizes of batches


def test_a_batch_that_is_too_large_is_reduced_and_the_teacher_is_asked_again(tmp_path: Path) -> None:
    tried = []

    class TooSmall(DWTTrainer):
        """Has no memory for more than five examples."""

        def training_step(self, model: Any, inputs: Any, *args: Any) -> Any:
            tried.append(len(inputs["input_ids"]))
            if tried[-1] > 5:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return super().training_step(model, inputs, *args)

    settings = {"max_steps": 3, "logging_steps": 1, "train_sampling_strategy": "sequential"}
    plain = make_trainer(tmp_path, **settings)
    small = TooSmall(
        make_student(),
        args=plain.args,
        teacher=plain.teacher,
        train_dataset=examples(),
        processing_class=plain.processing_class,
    )
    small.args.auto_find_batch_size = True
    small.train()
    first_that_fits = tried.index(next(size for size in tried if size <= 5))
    assert tried[:first_that_fits] == sorted(tried[:first_that_fits], reverse=True)
    assert len(tried) == first_that_fits + 3
    assert small._train_batch_size == tried[-1] <= 5
    assert all(logs["soft_loss"] > 0 for logs in training_logs(small))
    settings |= {"per_device_train_batch_size": tried[-1]}
    assert largest_difference(weights_of(small.model), trained_weights(tmp_path, **settings)) < EQUAL


# Orders


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length", "batch_rebalance"])
def test_every_order_shows_each_example_once_an_epoch_beside_a_teacher(
    strategy: str, kind: str, tmp_path: Path
) -> None:
    rows = examples(num=96)
    settings = {"train_dataset": rows, "per_device_train_batch_size": 4, "num_train_epochs": 1, "logging_steps": 1}
    trainer = make_trainer(tmp_path, kind, train_sampling_strategy=strategy, **settings)
    before = weights_of(trainer.model)
    seen = rows_seen(trainer)
    lengths = [len(row["input_ids"]) for row in rows]
    shown = [length for batch in seen for length in batch]
    assert sorted(shown) == sorted(lengths)
    assert (shown == lengths) is (strategy == "sequential")
    if strategy == "group_by_length":
        assert isinstance(trainer._get_train_sampler(), LengthGroupedSampler)
        as_given = [lengths[start : start + 4] for start in range(0, 96, 4)]
        spread, of_those = (sum(max(each) - min(each) for each in batches) for batches in (seen, as_given))
        assert spread < of_those / 2
    assert largest_difference(before, weights_of(trainer.model)) > 1e-3
    assert all(logs["soft_loss"] > 0 for logs in training_logs(trainer))


# Streams


class Stream(IterableDataset):
    """The examples in their order, of no known length."""

    def __iter__(self) -> Iterator[Any]:
        yield from examples()


@pytest.mark.parametrize("source", ["torch", "datasets"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_trains_as_the_same_examples_in_order(kind: str, source: str, tmp_path: Path) -> None:
    stream: Any = Stream() if source == "torch" else examples().to_iterable_dataset()
    assert isinstance(stream, IterableDataset | datasets.IterableDataset)
    streamed = trained_weights(tmp_path, kind, max_steps=4, train_dataset=stream)
    listed = trained_weights(tmp_path, kind, max_steps=4, train_sampling_strategy="sequential")
    assert largest_difference(streamed, listed) < EQUAL
    assert largest_difference(streamed, trained_weights(tmp_path, kind, max_steps=4, teacher=None)) > 1e-3


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "stream"])
def test_batches_that_are_dispatched_train_as_others_do(sized: bool, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 4, "train_sampling_strategy": "sequential"}
    plain = trained_weights(tmp_path, **settings)
    settings |= {} if sized else {"train_dataset": Stream()}
    trainer = make_trainer(tmp_path, accelerator_config={"dispatch_batches": True}, **settings)
    assert isinstance(trainer.get_train_dataloader(), DataLoaderDispatcher)
    trainer.train()
    assert largest_difference(plain, weights_of(trainer.model)) < EQUAL
