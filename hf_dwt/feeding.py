"""The part of the trainer that feeds its language model: the order of the examples, and what makes batches of them."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import has_length
from transformers.training_args import TrainingArguments

from hf_dwt.collators import evaluation_collator
from hf_dwt.publishing.trainer import PublishingTrainer
from hf_dwt.sampling import sampled_by
from hf_dwt.workers import with_own_seed


def data_seed(args: TrainingArguments) -> int:
    """What order and masks of the training data are drawn from: `data_seed`, or `seed` where there is none."""
    return int(args.seed if args.data_seed is None else args.data_seed)


class FeedingTrainer(PublishingTrainer):
    """`Trainer` whose order and masks depend on seed and epoch alone, and whose held-out sets always look the same."""

    data_collator: Any
    _order: torch.Generator | None = None

    @property
    def data_seed(self) -> int:
        """See `data_seed`."""
        return data_seed(self.args)

    def training_collator(
        self, collator: Callable[[list[Any]], dict[str, Any]], dataset: Any
    ) -> Callable[[list[Any]], dict[str, Any]]:
        """What makes batches of the training data: `data_collator` itself."""
        return collator

    def look_at(self, dataset: Any) -> Iterator[dict[str, Any]] | None:
        """Batches of training or held-out data that are the same each time; None if they cannot be looked at."""
        return sampled_by(self, dataset, evaluation_collator(self.data_collator, self.args.seed))

    def begin_order(self, epoch: int) -> None:
        """Draw a new order of grouped lengths."""
        if self._order is not None:
            self._order.manual_seed(self.data_seed + epoch)

    def _get_dataloader(self, dataset: Any, *args: Any, sampler_fn: Any = None, **kwargs: Any) -> Any:
        """Evaluate with the same masks each time, and let samplers see the length column that `Trainer` drops."""
        if self.kind is None:
            return super()._get_dataloader(dataset, *args, sampler_fn=sampler_fn, **kwargs)
        sampler = None if sampler_fn is None else lambda _: sampler_fn(dataset)
        collator = self.data_collator
        if kwargs.get("is_training"):
            self.data_collator = self.training_collator(collator, dataset)
        else:
            self.data_collator = evaluation_collator(collator, self.args.seed)
        try:
            return with_own_seed(super()._get_dataloader(dataset, *args, sampler_fn=sampler, **kwargs), self.data_seed)
        finally:
            self.data_collator = collator

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Make the order of grouped lengths depend on seed and epoch alone."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.kind is not None and has_length(dataset) and not len(dataset):
            raise ValueError("`train_dataset` is empty.")
        sampler = super()._get_train_sampler(dataset)
        if self.kind is not None and isinstance(sampler, LengthGroupedSampler):
            # It would draw from the global generator, which a resumed run restores too late.
            sampler.generator = self._order = torch.Generator()
        return sampler
