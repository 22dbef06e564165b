"""Which collator a language model's batches are made with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import datasets
import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import DataCollatorForLanguageModeling
from transformers.trainer_utils import has_length
from transformers.utils import logging

from hf_dwt.data import CausalCollator, MaskingCollator
from hf_dwt.evaluation.reseeded import ReseededCollator
from hf_dwt.language_models import Kind
from hf_dwt.positions import LABEL_NAMES
from hf_dwt.sampling import reads_once

logger = logging.get_logger(__name__)

Collator = Callable[[list[Any]], dict[str, Any]]


def choose_collator(
    kind: Kind,
    given: Collator | None,
    *,
    default: Collator,
    train_dataset: Any,
    eval_dataset: Any,
    processing_class: Any | None,
    seed: int,
) -> Collator:
    """Take the user's collator, else `Trainer`'s own where there are labels, else one that makes them.

    Args:
        kind: What the examples are for.
        given: The user's collator, if any.
        default: What `Trainer` uses without one.
        train_dataset: Training data, looked at for a `labels` column.
        eval_dataset: Looked at if there are no training data.
        processing_class: The tokenizer.
        seed: Of the masks.

    Raises:
        ValueError: If the user's collator makes labels for models of the other kind, or masks are needed, but there is
            no tokenizer.
    """
    _refuse_other_kind(kind, given)
    if train_dataset is not None and isinstance(given, MaskingCollator) and not given.follows_epochs:
        logger.warning(
            "Your `data_collator` was made by `for_evaluation()`: training hides the same tokens in every epoch. Pass "
            "the collator that it was called on for new masks in each."
        )
    dataset = eval_dataset if train_dataset is None else train_dataset
    if dataset is None or _brings_labels(dataset):
        return given or default
    if given is not None:
        if kind == "masked" and not isinstance(given, MaskingCollator):
            logger.warning(
                "Your `data_collator` draws its masks from a generator that each batch moves on: a resumed run will "
                "see other masks than an uninterrupted one. In evaluation they are the same each time. "
                "`hf_dwt.data.MaskingCollator` draws the same ones in a resumed run too."
            )
        return given
    if kind == "causal":
        logger.warning_once("The examples have no labels: they are copied from `input_ids`.")
        return CausalCollator(processing_class)
    if processing_class is None:
        raise ValueError(
            "The examples have no `labels`, and without a tokenizer they cannot be masked. Pass `processing_class`, or "
            "a `data_collator` that makes labels."
        )
    logger.warning_once(
        "The examples have no labels: 15 % of their tokens are masked, see `hf_dwt.data.MaskingCollator`."
    )
    return MaskingCollator(processing_class, seed=seed)


def stacked(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch of examples of one length that have labels already, each value as a tensor of shape (examples, ...)."""
    return {name: torch.stack([torch.as_tensor(each[name]) for each in examples]) for name in examples[0]}


def set_epoch(collator: Collator, epoch: int) -> None:
    """Draw the masks of an epoch, where the collator draws its own in each."""
    if isinstance(collator, MaskingCollator) and collator.follows_epochs:
        collator.set_epoch(epoch)


@contextmanager
def epoch_kept(collator: Collator) -> Iterator[None]:
    """Let a collator draw the masks afterwards that it drew before."""
    before = collator.epoch if isinstance(collator, MaskingCollator) else None
    try:
        yield
    finally:
        if before is not None:
            set_epoch(collator, before)


def evaluation_collator(collator: Collator, seed: int) -> Collator:
    """Make a collator whose batches depend on their examples alone, neither on the epoch nor on generators."""
    if isinstance(collator, MaskingCollator):
        return collator.for_evaluation()
    if isinstance(collator, CausalCollator):
        return collator
    if isinstance(collator, DataCollatorForLanguageModeling):
        # With a seed it would draw from a generator of its own, which nobody reseeds.
        unseeded = copy(collator)
        unseeded.seed = unseeded.generator = None
        collator = unseeded
    return ReseededCollator(collator, seed)


def _refuse_other_kind(kind: Kind, given: Collator | None) -> None:
    made_for = _made_for(given)
    if made_for not in (None, kind):
        ours = MaskingCollator if kind == "masked" else CausalCollator
        raise ValueError(
            f"`data_collator` is a {type(given).__name__} that makes labels for {made_for} language models, `model` is "
            f"a {kind} one. Pass a `hf_dwt.data.{ours.__name__}`, or leave `data_collator` out for the one that fits."
        )


def _made_for(collator: Collator | None) -> Kind | None:
    if isinstance(collator, DataCollatorForLanguageModeling):
        return "masked" if collator.mlm else "causal"
    if isinstance(collator, MaskingCollator):
        return "masked"
    return "causal" if isinstance(collator, CausalCollator) else None


def _brings_labels(dataset: Any) -> bool:
    if isinstance(dataset, dict):
        return any(map(_brings_labels, dataset.values()))
    known = isinstance(dataset, datasets.Dataset | datasets.IterableDataset)
    columns = dataset.column_names if known else None
    if columns is None and reads_once(dataset):
        # Looking would take an example away: leave it to the user's collator, or to that of `Trainer`.
        return True
    if columns is None:
        sized = has_length(dataset) and not isinstance(dataset, IterableDataset)
        columns = dataset[0] if sized and len(dataset) else next(iter(dataset), ())
    names = columns if isinstance(columns, Mapping | list | tuple) else vars(columns)
    return any(name in names for name in LABEL_NAMES)
