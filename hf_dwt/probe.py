"""The probe: fixed sequences with fixed masks on which teacher and student are compared while the student is trained.

Training batches are no substitute: dropout makes a student that equals its teacher look worse, and repeated data makes
it look better.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers.utils import logging

from hf_dwt.heads import Head
from hf_dwt.losses import IGNORED_LABEL, hard_loss
from hf_dwt.positions import Positions

logger = logging.get_logger(__name__)

NUM_EXAMPLES = 256

HeadOf = Callable[[Mapping[str, Any], Positions], Head]


@dataclass(frozen=True)
class Score:
    """How a model does on the probe.

    Attributes:
        loss: Mean hard loss over the positions whose label the teacher knows, nats.
        seconds: Wall-clock of the forward passes of this rank.
        seconds_per_example: Likewise, for each of its examples.
    """

    loss: float
    seconds: float
    seconds_per_example: float


class Probe:
    """A sample of examples, whose batches are divided among the ranks.

    Args:
        batches: The same on every rank, with labels; after `NUM_EXAMPLES` no more are read. None if the data cannot be
            looked at.
        positions_of: Finds the positions of a batch.
        num_shared_tokens: Tokens that teacher and student both know.
        accelerator: Says which rank this is, and where batches go.

    Attributes:
        num_examples: In the whole probe.

    Raises:
        ValueError: If there is no batch to look at.
    """

    def __init__(
        self,
        batches: Iterable[Mapping[str, Any]] | None,
        positions_of: Callable[[Mapping[str, Any]], Positions],
        num_shared_tokens: int,
        accelerator: Accelerator,
    ) -> None:
        self._positions_of, self._num_shared, self._accelerator = positions_of, num_shared_tokens, accelerator
        self._batches, self.num_examples = _first_examples(batches or ())
        if not self._batches:
            raise ValueError(
                "A policy that follows the gap needs examples to compare teacher and student on, and the data come "
                "from a loader of your own or can be read once only: pass an `eval_dataset`."
            )
        if self.num_examples < NUM_EXAMPLES:
            logger.warning(
                f"Teacher and student are compared on {self.num_examples} examples only, all that there are; "
                f"{NUM_EXAMPLES} make a gap that can be relied on."
            )

    @torch.no_grad()
    def score(self, head_of: HeadOf) -> Score:
        """Score a model; every rank returns the same loss.

        Args:
            head_of: The model's head for a batch and its positions, in evaluation mode.
        """
        started = time.perf_counter()
        sums = torch.zeros(2, dtype=torch.float64)
        share = self._own_share()
        for batch, counts in share:
            sums += counts * self._sums(batch, head_of).cpu()
        seconds = time.perf_counter() - started
        # Gathered and added up in one order, so that all ranks come to the very same number. MPS knows no float64.
        gathered = self._accelerator.gather(sums.float().to(self._accelerator.device)).cpu().double().reshape(-1, 2)
        loss, num_positions = gathered.sum(dim=0).tolist()
        return Score(
            loss / max(num_positions, 1.0), seconds, seconds / sum(len(each["input_ids"]) for each, _ in share)
        )

    def _own_share(self) -> list[tuple[Mapping[str, Any], bool]]:
        """Batches of this rank, and whether they count: each rank gets as many, since a sharded model is run by all."""
        num_ranks, rank, last = self._accelerator.num_processes, self._accelerator.process_index, len(self._batches) - 1
        places = range(rank, -(-len(self._batches) // num_ranks) * num_ranks, num_ranks)
        return [(self._batches[min(place, last)], place <= last) for place in places]

    def _sums(self, batch: Mapping[str, Any], head_of: HeadOf) -> Tensor:
        device = self._accelerator.device
        on_device = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        positions = self._positions_of(on_device)
        head = head_of(on_device, positions)
        labels = positions.labels.where(positions.labels < self._num_shared, IGNORED_LABEL)
        losses = [hard_loss(head.logits(rows), labels[rows]).sum() for rows in head.parts]
        return torch.stack([torch.stack(losses).sum(), (labels != IGNORED_LABEL).sum()])


def _first_examples(batches: Iterable[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], int]:
    num_examples = 0

    def wanted(batch: Mapping[str, Any]) -> bool:
        nonlocal num_examples
        is_wanted = num_examples < NUM_EXAMPLES
        num_examples += len(batch["input_ids"]) * is_wanted
        return is_wanted

    return list(takewhile(wanted, batches)), num_examples
