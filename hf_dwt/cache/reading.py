"""Opening a cache, and adding its predictions to batches as they are made."""

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_dwt.cache.keys import keys_of, row_check
from hf_dwt.cache.manifest import Manifest, read_manifest
from hf_dwt.topk_losses import Excerpt

_NAMES = ("ids", "logs", "rest", "label_logs")
_PREFIX = "cached_"


class TeacherCache:
    """A teacher's predictions that `cache_teacher` has written; takes the place of `teacher` in a `DWTTrainer`.

    Args:
        folder: Where they are.

    Attributes:
        manifest: What the folder says of itself.

    Raises:
        FileNotFoundError: If there is no cache.
        ValueError: If it is partial or corrupt.

    Example:
        >>> TeacherCache("./no-such-folder")
        Traceback (most recent call last):
        ...
        FileNotFoundError: 'no-such-folder' holds no cached predictions: `cache_teacher` writes them.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder).expanduser()
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise FileNotFoundError(f"{str(self.folder)!r} holds no cached predictions: `cache_teacher` writes them.")
        self.manifest = manifest
        if not manifest.is_complete:
            raise ValueError(
                f"The cache {str(self.folder)!r} is partial, {len(manifest.shards)} shards are written: call "
                "`cache_teacher` again with the same arguments, it goes on from there."
            )
        self._shards = [self._open(name, size) for name, size in manifest.shards.items()]
        keys = [np.asarray(shard.column("key").to_numpy(), dtype="<i8") for shard in self._shards]
        self._starts = np.cumsum([0, *map(len, keys)])
        everything = np.concatenate(keys)
        self._order = np.argsort(everything, kind="stable")
        self._sorted = everything[self._order]

    def add_to(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the teacher's predictions at the positions of a batch, in their order.

        Raises:
            ValueError: If an example is not in the cache with this mask, or its predictions are corrupt.
        """
        keys = keys_of(batch, reads_token_types=self.manifest.reads_token_types)
        rows = [self._row(each) for each in self._places(keys)]
        columns = {name: np.concatenate([row[name] for row in rows]) for name in _NAMES}
        told = {f"{_PREFIX}{name}": torch.from_numpy(column) for name, column in columns.items()}
        for name in ("ids", "logs"):
            told[f"{_PREFIX}{name}"] = told[f"{_PREFIX}{name}"].reshape(-1, self.manifest.num_kept)
        return {**batch, **told}

    def _open(self, name: str, size: int) -> Any:
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != size:
            found = f"{path.stat().st_size:,} bytes" if path.is_file() else "missing"
            raise ValueError(
                f"The cache {str(self.folder)!r} is corrupt: {name} should have {size:,} bytes and is {found}. Remove "
                "the folder and cache again."
            )
        try:
            with pa.memory_map(str(path)) as file:
                table = pa.ipc.open_stream(file).read_all()
            # Offsets that lead elsewhere would be followed.
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._corrupt(name) from error
        if not table.schema.equals(features(self.manifest.dtype).arrow_schema):
            raise self._corrupt(name)
        return table

    def _places(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.searchsorted(self._sorted, keys).clip(max=max(len(self._sorted) - 1, 0))
        foreign = self._sorted[found] != keys
        if foreign.any():
            raise ValueError(
                f"{int(foreign.sum())} of {len(keys)} examples of a batch are not in the cache {str(self.folder)!r} "
                "with these masks: it belongs to other data, another tokenizer, seed or `data_collator`, or its "
                "teacher read `token_type_ids` that the student does not: leave that column out of both."
            )
        places: NDArray[np.int64] = self._order[found]
        return places

    def _row(self, place: int) -> dict[str, NDArray[Any]]:
        shard = int(np.searchsorted(self._starts, place, side="right")) - 1
        table, index = self._shards[shard], int(place - self._starts[shard])
        row = {name: table.column(name)[index].values.to_numpy(zero_copy_only=False).copy() for name in _NAMES}
        check = row_check(self.manifest.identity, table.column("key")[index].as_py(), *row.values())
        if check != table.column("check")[index].as_py():
            raise self._corrupt(list(self.manifest.shards)[shard])
        return row

    def _corrupt(self, name: str) -> ValueError:
        return ValueError(
            f"The cache {str(self.folder)!r} is corrupt: {name} is not what was written. Remove the folder and cache "
            "again."
        )


class CachedCollator:
    """Makes batches with the teacher's predictions in them, in the data loader.

    With `dataloader_num_workers` they are read while the steps before are taken. Without workers the training process
    reads them itself, one batch ahead: a look-up from a local disk takes 0.3 ms for 8 x 128 tokens, less than 0.1 % of
    a small step on a CPU (`python -m benchmarks.teacher_costs --only reading`). Take a worker where the disk is slow.

    Args:
        collator: Makes the batches.
        cache: Holds the predictions.
    """

    def __init__(self, collator: Callable[[list[Any]], dict[str, Any]], cache: TeacherCache) -> None:
        self.collator, self.cache = collator, cache

    def __call__(self, examples: list[Any]) -> dict[str, Any]:
        """Collate, and look up."""
        return self.cache.add_to(self.collator(examples))


def features(dtype: str) -> datasets.Features:
    """Columns of a shard, whose log-probabilities are of a precision."""
    lists = {"ids": "int32", "logs": dtype, "rest": "float32", "label_logs": "float32"}
    numbers = {"key": datasets.Value("int64"), "check": datasets.Value("int64")}
    return datasets.Features(numbers | {name: datasets.List(datasets.Value(kind)) for name, kind in lists.items()})


def take_excerpt(inputs: Mapping[str, Any], manifest: Manifest) -> tuple[dict[str, Any], Excerpt | None]:
    """Part a batch into what models read and what the teacher said, None if it holds nothing of that."""
    told = [inputs[f"{_PREFIX}{name}"] for name in _NAMES if f"{_PREFIX}{name}" in inputs]
    rest = {name: value for name, value in inputs.items() if not name.startswith(_PREFIX)}
    return rest, Excerpt(manifest.num_shared_tokens, *told, num_drawn=manifest.num_drawn) if told else None
