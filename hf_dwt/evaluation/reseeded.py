"""A user's own collator in evaluation: the same masks each time, and no global generator moved."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class ReseededCollator:
    """Calls a collator under forked and reseeded global generators (Python's, NumPy's and PyTorch's on the CPU).

    Args:
        collator: Makes a batch of a list of examples.
        seed: Reseeds the generators before each batch.
    """

    def __init__(self, collator: Callable[[list[Any]], Any], seed: int) -> None:
        self.collator = collator
        self.seed = seed

    def __call__(self, examples: list[Any]) -> Any:
        """Collate a batch; the same examples give the same batch."""
        with _forked_generators(self.seed):
            return self.collator(examples)


@contextmanager
def _forked_generators(seed: int) -> Iterator[None]:
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
