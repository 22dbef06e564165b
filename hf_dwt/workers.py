"""Data workers that stay over the epochs, in runs that are interrupted and resumed."""

from typing import Any

import torch
from accelerate.data_loader import DataLoaderAdapter


def with_own_seed(loader: Any, seed: int) -> Any:
    """Let persistent workers draw their seed from a generator of their own; other loaders stay as they are.

    PyTorch draws it when the workers start: once in an uninterrupted run, once more in a resumed one. From the global
    generator, each draw would move the dropout of all later steps.

    Args:
        loader: As accelerate prepares it. Changed.
        seed: Of the generator.

    Returns:
        The loader itself.
    """
    if isinstance(loader, DataLoaderAdapter) and loader.base_dataloader.persistent_workers:
        loader.base_dataloader.generator = torch.Generator().manual_seed(seed)
    return loader
