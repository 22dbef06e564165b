"""Which cached predictions belong to an example: its key is made of what the model reads and is asked.

So a cache fits a batch whatever its size, order, ranks and workers, and never fits other data, masks or tokens.
"""

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def keys_of(batch: Mapping[str, Tensor], *, reads_token_types: bool = True) -> NDArray[np.int64]:
    """Keys of a batch's examples, shape (examples,); padding changes nothing, nor do token types that are all 0.

    Args:
        batch: On the CPU, with labels.
        reads_token_types: Whether the model reads them, where there are any.
    """
    ids, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
    mask, types = batch.get("attention_mask"), batch.get("token_type_ids") if reads_token_types else None
    own = np.ones_like(ids, dtype=bool) if mask is None else mask.numpy() != 0
    kinds = np.zeros_like(ids) if types is None else types.numpy()
    rows = zip(ids, labels, kinds, own, strict=True)
    digests = [_digest(row[kept], asked[kept], kind[kept]) for row, asked, kind, kept in rows]
    return np.frombuffer(b"".join(digests), dtype="<i8")


def _digest(ids: NDArray[Any], labels: NDArray[Any], types: NDArray[Any]) -> bytes:
    read = [ids, labels, types] if types.any() else [ids, labels]
    return hashlib.blake2b(b"".join(each.astype("<i8").tobytes() for each in read), digest_size=8).digest()


def batches_fingerprint(batches: Iterable[Mapping[str, Tensor]], most: int | None = None) -> str:
    """Digest of what is read and asked of examples, masks included; their batches make no difference.

    Args:
        batches: On the CPU, with labels.
        most: No more examples are looked at.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for key in islice(chain.from_iterable(map(keys_of, batches)), most):
        hasher.update(key.tobytes())
    return hasher.hexdigest()


def draws_of(keys: NDArray[np.int64], counts: NDArray[np.int64], num_draws: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) to draw tokens by, shape (positions, draws), one in each of so many equal parts.

    They belong to the examples, as masks do: other masks, as of another epoch, get other numbers, other batches none.
    The parts make what is drawn less alike than independent numbers would, and each token as likely.

    Args:
        keys: Of the examples.
        counts: Positions of each.
        num_draws: Of a position.
    """
    own = [
        np.random.Generator(np.random.Philox(key=key % 2**64)).random((count, num_draws))
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True)
    ]
    draws: NDArray[np.float64] = (np.concatenate(own) + np.arange(num_draws)) / num_draws
    return draws


def row_check(identity: int, key: int, *columns: NDArray[Any]) -> int:
    """Number by which a changed row is known, or one of another cache.

    Args:
        identity: Of the cache.
        key: Of the example.
        columns: What is kept of it.
    """
    return zlib.crc32(
        b"".join([key.to_bytes(8, "little", signed=True), *(each.tobytes() for each in columns)]), identity
    )


def digest_of_weights(model: torch.nn.Module) -> str:
    """Digest of every bit of a model's weights; `identity.fingerprint_of` reads some, on any device and engine."""
    hasher = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.state_dict().items()):
        hasher.update(name.encode())
        hasher.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()


def tokenizer_fingerprint(tokenizer: Any | None) -> str | None:
    """Digest of a tokenizer's tokens with their ids; None without one."""
    if tokenizer is None:
        return None
    vocabulary = sorted(tokenizer.get_vocab().items())
    return hashlib.blake2b(repr(vocabulary).encode(), digest_size=16).hexdigest()
