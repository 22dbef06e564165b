"""Asking a teacher once, and keeping what it said."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from datasets.arrow_writer import ArrowWriter
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_dwt.cache.keys import (
    batches_fingerprint,
    digest_of_weights,
    draws_of,
    keys_of,
    row_check,
    tokenizer_fingerprint,
)
from hf_dwt.cache.locking import alone_in
from hf_dwt.cache.manifest import Manifest, read_manifest
from hf_dwt.cache.reading import TeacherCache, features
from hf_dwt.collators import choose_collator, epoch_kept, evaluation_collator, set_epoch, stacked
from hf_dwt.compatibility import judge
from hf_dwt.heads import Head, parts_of
from hf_dwt.language_models import Kind
from hf_dwt.positions import Positions, positions_of, without_labels
from hf_dwt.preflight import FirstImpression, first_batches, first_impression
from hf_dwt.sampling import is_stream, sampled_batches, with_columns
from hf_dwt.teacher import Teacher, as_teacher
from hf_dwt.topk_losses import Excerpt, excerpt_of
from hf_dwt.vocabulary import num_shared_tokens

logger = logging.get_logger(__name__)

_EXAMPLES_PER_SHARD = 4096
_NUM_SAMPLED = 256


def cache_teacher(
    teacher: Teacher | PreTrainedModel | str | PathLike[str],
    dataset: Any,
    folder: str | PathLike[str],
    top_k: int = 8,
    epochs: int = 1,
    *,
    tail_samples: int = 8,
    dtype: Literal["float16", "float32"] = "float16",
    processing_class: Any | None = None,
    data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
    batch_size: int = 32,
    seed: int = 42,
) -> TeacherCache:
    """Ask a teacher about every example once for each epoch of masks, and keep the answers in a folder.

    A cache that is there already is taken; one that was interrupted is gone on with. Of several processes that ask for
    one, as the ranks of a launcher do, the first writes it and the others wait. The soft loss that is learnt from
    it estimates the KL divergence without bias where tokens are drawn from the tail; it is no bound then, and may be
    negative at a position. With `tail_samples=0` it is a lower bound: the further below, the more the teacher doubts
    (see `hf_dwt.topk_losses`). With a flat teacher of 30,522 tokens it was 23 to 59 % too low at 16 tokens, and
    students learnt nothing from it that they had not learnt alone; 8 likely tokens and 8 drawn ones, which take the
    same space, taught as the teacher itself did (`python -m benchmarks.cache_error`). So the latter are the default.
    A teacher that is no better than guessing by token frequency is told here, and refused by the trainer.

    Args:
        teacher: As for `DWTTrainer`.
        dataset: The tokenised training examples, of a known length. Columns that the teacher does not read are left
            out.
        folder: Where to write.
        top_k: Most likely tokens to keep at a position, >= 1.
        epochs: Epochs of masks to keep, >= 1; longer runs start over with the first one's.
        tail_samples: Tokens to draw from the others, >= 0; 0 keeps their mass alone. What is drawn belongs to the
            example and its mask: the same whatever the batches, another one with the masks of another epoch.
        dtype: Of the log-probabilities.
        processing_class: The student's tokenizer. Default: the teacher's.
        data_collator: As for `DWTTrainer`; its masks must belong to the examples.
        batch_size: Examples that are asked about at once.
        seed: Of the masks: `seed` (or `data_seed`) of the training arguments.

    Raises:
        OSError: If the disk is too small or full, or an example cannot be read.
        ValueError: If a value is out of range, the data are a stream, or another cache is in the folder.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> small = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
        >>> cache_teacher(small, [{"input_ids": [3, 4, 5]}] * 2, "cache", top_k=2).manifest.is_complete
        True
    """
    _check(top_k, tail_samples, epochs, dtype, dataset)
    writer = _Writer(
        as_teacher(teacher), dataset, Path(folder).expanduser(), processing_class, data_collator, batch_size, seed
    )
    with epoch_kept(writer.collator):
        return writer.write(top_k, tail_samples, epochs, dtype)


class _Writer:
    def __init__(
        self,
        teacher: Teacher,
        dataset: Any,
        folder: Path,
        processing_class: Any | None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None,
        batch_size: int,
        seed: int,
    ) -> None:
        self.teacher, self.dataset, self.folder, self.batch_size = teacher, dataset, folder, batch_size
        self.seed = seed
        self.kind = cast(Kind, teacher.kind)
        self.tokenizer = processing_class or teacher.processing_class
        vocab_size = teacher.vocab_size
        self.num_shared = num_shared_tokens(teacher.processing_class, self.tokenizer, vocab_size, vocab_size)
        self.collator = choose_collator(
            self.kind,
            data_collator,
            default=data_collator or stacked,
            train_dataset=dataset,
            eval_dataset=None,
            processing_class=self.tokenizer,
            seed=seed,
        )
        self._collate = with_columns(self.collator, teacher.columns)

    def write(self, top_k: int, tail_samples: int, epochs: int, dtype: str) -> TeacherCache:
        wanted = self._manifest(top_k, tail_samples, epochs, dtype)
        if not self._found(wanted).is_complete:
            with alone_in(self.folder):
                # Found once more: another process may have written it meanwhile.
                self._complete(self._found(wanted))
        return TeacherCache(self.folder)

    def _found(self, wanted: Manifest) -> Manifest:
        """What is written of a cache already, or that nothing is."""
        found = read_manifest(self.folder)
        if found is not None and (differences := found.differences(wanted)):
            raise ValueError(
                f"{str(self.folder)!r} holds another cache: it differs in {', '.join(differences)}. Name another "
                "folder."
            )
        return found or wanted

    def _complete(self, manifest: Manifest) -> None:
        if manifest.is_complete:
            return
        self._announce(manifest)
        if manifest.impression is None:
            manifest = replace(manifest, impression=self._impression())
        for name, epoch, start in self._shards(manifest.epochs):
            if name not in manifest.shards:
                manifest = self._write_shard(manifest, name, epoch, start)
        with self._telling_what_is_kept():
            replace(manifest, is_complete=True).write(self.folder)

    def _shards(self, epochs: int) -> Iterator[tuple[str, int, int]]:
        for epoch in range(epochs):
            for start in range(0, len(self.dataset), _EXAMPLES_PER_SHARD):
                yield f"epoch-{epoch:04d}-from-{start:010d}.arrow", epoch, start

    def _manifest(self, top_k: int, tail_samples: int, epochs: int, dtype: str) -> Manifest:
        set_epoch(self.collator, 0)
        return Manifest(
            teacher={
                **vars(self.teacher.origin),
                "architecture": type(self.teacher.model).__name__,
                "num_parameters": self.teacher.model.num_parameters(),
                "reads_token_types": "token_type_ids" in self.teacher.columns,
            },
            kind=self.kind,
            model=digest_of_weights(self.teacher.model),
            tokenizer=tokenizer_fingerprint(self.tokenizer),
            data=batches_fingerprint(self._collate([example]) for example in self._sample()),
            num_examples=len(self.dataset),
            epochs=epochs,
            top_k=top_k,
            tail_samples=tail_samples,
            dtype=dtype,
            num_shared_tokens=self.num_shared,
            shards={},
        )

    def _sample(self) -> Iterator[Any]:
        """Examples from all over the data."""
        return (self.dataset[index] for index in range(0, len(self.dataset), max(1, len(self.dataset) // _NUM_SAMPLED)))

    @torch.no_grad()
    def _impression(self) -> FirstImpression:
        """Judge the teacher while it is there: a bad one is told here, and refused by the training."""
        kind_positions_of = partial(positions_of, self.kind)
        collate = with_columns(evaluation_collator(self.collator, self.seed), self.teacher.columns)
        batches = first_batches(sampled_batches(self.dataset, collate, self.batch_size), kind_positions_of)
        impression = first_impression(list(map(self._placed, batches)), kind_positions_of, self._head_at)
        judge(self.teacher, impression, allow_bad_teacher=True)
        return impression

    def _announce(self, manifest: Manifest) -> None:
        """Tell the disk needed, and see whether it is there."""
        sample = list(self._sample())
        per_example = len(positions_of(self.kind, self._collate(sample))) / len(sample)
        per_position = bytes_per_position(manifest.num_kept, manifest.dtype)
        num_left = manifest.num_examples * manifest.epochs - _EXAMPLES_PER_SHARD * len(manifest.shards)
        needed = round(max(num_left, 0) * (per_example * per_position + 16))
        free = shutil.disk_usage(self.folder).free
        told = f"{per_position} bytes per position, about {needed / 2**20:,.1f} MiB"
        logger.warning(f"Caching the teacher ({self.teacher.origin}) in {str(self.folder)!r}: {told}.")
        if needed > free:
            raise OSError(
                f"The cache needs {told} in {str(self.folder)!r}, where {free / 2**20:,.1f} MiB are free. Lower "
                "`top_k`, `tail_samples` or `epochs`, or name another folder."
            )

    def _write_shard(self, manifest: Manifest, name: str, epoch: int, start: int) -> Manifest:
        set_epoch(self.collator, epoch)
        path, unfinished = self.folder / name, self.folder / f"{name}.unfinished"
        end = min(start + _EXAMPLES_PER_SHARD, len(self.dataset))
        with self._telling_what_is_kept(unfinished):
            with ArrowWriter(path=str(unfinished), features=features(manifest.dtype)) as writer:
                for first in range(start, end, self.batch_size):
                    rows = [self.dataset[index] for index in range(first, min(first + self.batch_size, end))]
                    writer.write_batch(self._columns(self._collate(rows), manifest))
                writer.finalize()
            manifest = manifest.with_shard(name, unfinished.stat().st_size)
            os.replace(unfinished, path)
            manifest.write(self.folder)
        return manifest

    @contextmanager
    def _telling_what_is_kept(self, *unfinished: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            for path in unfinished:
                path.unlink(missing_ok=True)
            raise OSError(
                f"The cache {str(self.folder)!r} could not be completed: {error}. What is written is kept: mend that "
                "(make room, where the disk is full) and call `cache_teacher` again with the same arguments."
            ) from error

    def _columns(self, batch: dict[str, Tensor], manifest: Manifest) -> dict[str, list[Any]]:
        examples = positions_of(self.kind, batch).examples
        keys = keys_of(batch, reads_token_types=manifest.reads_token_types)
        draws = None
        if manifest.num_drawn:
            counts = np.bincount(examples.numpy(), minlength=len(keys))
            draws = torch.from_numpy(draws_of(keys, counts, manifest.num_drawn))
        excerpt = self._ask(batch, manifest.top_k, draws)
        columns: dict[str, list[Any]] = {name: [] for name in features(manifest.dtype)}
        for index, key in enumerate(keys.tolist()):
            own = (examples == index).numpy()
            row = {
                "ids": excerpt.ids.numpy()[own].astype(np.int32).ravel(),
                "logs": excerpt.logs.numpy()[own].astype(manifest.dtype).ravel(),
                "rest": excerpt.rest.numpy()[own],
                "label_logs": excerpt.label_logs.numpy()[own],
            }
            check = row_check(manifest.identity, key, *row.values())
            for column, value in {"key": key, "check": check, **row}.items():
                columns[column].append(value)
        return columns

    @torch.no_grad()
    def _ask(self, batch: dict[str, Tensor], top_k: int, draws: Tensor | None) -> Excerpt:
        batch = self._placed(batch)
        positions = positions_of(self.kind, batch)
        head = self._head_at(batch, positions)
        told = [
            excerpt_of(head.logits(rows), positions.labels[rows], top_k, None if draws is None else draws[rows])
            for rows in head.parts
        ]
        columns = [torch.cat(parts).cpu() for parts in zip(*(each.columns for each in told), strict=True)]
        return Excerpt(self.num_shared, *columns, num_drawn=told[0].num_drawn)

    def _placed(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.teacher.model.device) for name, value in batch.items()}

    def _head_at(self, batch: Mapping[str, Tensor], positions: Positions) -> Head:
        parts = parts_of(positions, self.teacher.vocab_size)
        return self.teacher.head_at(without_labels(batch), positions, self.num_shared, parts)


def bytes_per_position(num_kept: int, dtype: str) -> int:
    """Bytes that a position takes on disk: ids of 4 bytes, log-probabilities, mass of the rest, the label's."""
    return num_kept * (4 + np.dtype(dtype).itemsize) + 4 + 4


def _check(top_k: int, tail_samples: int, epochs: int, dtype: str, dataset: Any) -> None:
    for name, value, least in (("top_k", top_k, 1), ("tail_samples", tail_samples, 0), ("epochs", epochs, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"`{name}` must be a whole number, at least {least}, got {value!r}.")
    if dtype not in ("float16", "float32"):
        raise ValueError(f"`dtype` must be 'float16' or 'float32', got {dtype!r}.")
    if is_stream(dataset) or not len(dataset):
        raise ValueError("`dataset` must hold examples, and tell how many: a stream cannot be cached.")
