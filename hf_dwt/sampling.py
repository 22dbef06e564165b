"""Examples that a trainer looks at beside training, without taking them away from it."""

from collections.abc import Callable, Collection, Iterator
from itertools import islice
from random import Random
from typing import Any

import datasets
from torch.utils.data import IterableDataset
from transformers import Trainer
from transformers.trainer_utils import has_length

_MOST_EXAMPLES = 10_000

Collate = Callable[[list[Any]], dict[str, Any]]


def is_stream(dataset: Any) -> bool:
    """Tell whether examples can only be read in their order; PyTorch's streams may tell how many there are."""
    return not has_length(dataset) or isinstance(dataset, IterableDataset)


def reads_once(dataset: Any) -> bool:
    """Tell whether looking at a stream takes its examples away from training."""
    return not has_length(dataset) and iter(dataset) is iter(dataset)


def probe_data(trainer: Trainer) -> Any:
    """Data to compare teacher and student on: held out, the first set of several, or else those of training."""
    held_out = trainer.eval_dataset
    if isinstance(held_out, dict):
        held_out = next(iter(held_out.values()), None)
    return trainer.train_dataset if held_out is None else held_out


def sampled_by(trainer: Trainer, dataset: Any, collate: Collate) -> Iterator[dict[str, Any]] | None:
    """Batches of a trainer's data, with the columns that it keeps; None if they cannot be looked at.

    Args:
        trainer: Tells the batch size.
        dataset: Its training or evaluation data.
        collate: Makes batches of them that are the same each time.
    """
    is_training = dataset is trainer.train_dataset
    own_loader = type(trainer).get_train_dataloader is not Trainer.get_train_dataloader
    if dataset is None or (is_training and own_loader) or reads_once(dataset):
        return None
    description = "training" if is_training else "evaluation"
    if isinstance(dataset, datasets.Dataset):
        dataset = trainer._remove_unused_columns(dataset, description=description)
    else:
        collate = trainer._get_collator_with_removed_columns(collate, description=description)
    return sampled_batches(dataset, collate, trainer.args.per_device_train_batch_size)


def with_columns(collate: Collate, columns: Collection[str]) -> Collate:
    """Make batches of these columns alone, as `Trainer` does: others may hold text, of which no tensor can be made.

    Examples that are no dictionaries are taken as they are.
    """

    def of_columns(examples: list[Any]) -> dict[str, Any]:
        return collate([_only(example, columns) if isinstance(example, dict) else example for example in examples])

    return of_columns


def _only(example: dict[str, Any], columns: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in example.items() if name in columns}


def sampled_batches(dataset: Any, collate: Collate, batch_size: int) -> Iterator[dict[str, Any]]:
    """Collate batches of at most ten thousand examples. No global generator is touched.

    A sized data set is sampled, so that an ordered one does not mislead; a stream is read from its start. Every rank
    sees the same batches.
    """
    if not is_stream(dataset):
        indices = Random(0).sample(range(len(dataset)), min(len(dataset), _MOST_EXAMPLES))
        examples: Iterator[Any] = (dataset[index] for index in indices)
    else:
        examples = islice(dataset, _MOST_EXAMPLES)
    while chunk := list(islice(examples, batch_size)):
        yield collate(chunk)
