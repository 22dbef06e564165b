"""Documents to sentences, and samples of them."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from datasets import Dataset, Features, IterableDataset

_PARAGRAPH = re.compile(r"\n\s*\n")
# \u2018 and \u2019 are the single quotation marks.
_SENTENCE_END = re.compile(r"[.!?…][\"'”\u2019»)\]]*\s+(?=(\S))")
_OPENING = "\"'“\u2018«(["


def take_every(dataset: Dataset | IterableDataset, every: int, offset: int = 0) -> Dataset | IterableDataset:
    """One row of every `every`, starting with row `offset`.

    The weak teachers of the paper were trained on such a sample of sentences. Where a stream is read by
    several workers, each counts the rows of its own shards.

    Args:
        dataset: One split, map-style or stream.
        every: At least 1, which takes all rows.
        offset: From 0 to `every` - 1; two samples with different offsets share no row.

    Raises:
        ValueError: A number out of range, or no row left.

    Reference:
        Lee et al., 2023, section 3.

    Example:
        >>> from datasets import Dataset
        >>> from hf_dwt.data import take_every
        >>> take_every(Dataset.from_dict({"text": list("abcdef")}), every=3, offset=1)["text"][:]
        ['b', 'e']
    """
    if every < 1:
        raise ValueError(f"`every` must be at least 1, not {every}.")
    if not 0 <= offset < every:
        raise ValueError(f"`offset` must be from 0 to `every` - 1 = {every - 1}, not {offset}.")
    if isinstance(dataset, IterableDataset):
        return dataset.filter(partial(_is_taken, every=every, offset=offset), with_indices=True)
    if offset >= len(dataset):
        raise ValueError(f"`offset` is {offset}, but the data set has only {len(dataset)} rows.")
    return dataset.select(range(offset, len(dataset), every))


def _is_taken(_example: dict[str, Any], index: int, *, every: int, offset: int) -> bool:
    return index % every == offset


def split_sentences(
    dataset: Dataset | IterableDataset, text_column: str = "text", num_proc: int | None = None
) -> Dataset | IterableDataset:
    """One sentence per row, other columns dropped.

    A sentence ends with an empty line, or with one of . ! ? … (and closing quotes or brackets) before
    white space and an upper-case letter, digit, opening quote or bracket. Abbreviations before a name
    ("Mr. Smith") are cut, therefore. White space within a sentence becomes one space; nothing empty is
    kept.

    Args:
        dataset: One split, map-style or stream.
        text_column: Where the documents are.
        num_proc: Processes, map-style only.

    Raises:
        TypeError: Several splits at once.
        ValueError: No such column, or `num_proc` for a stream.

    Example:
        >>> from datasets import Dataset
        >>> from hf_dwt.data import split_sentences
        >>> split_sentences(Dataset.from_dict({"text": ["It rains. Is it 3 p.m. yet?"]}))["text"][:]
        ['It rains.', 'Is it 3 p.m. yet?']
    """
    function = partial(_split_batch, text_column=text_column)
    return map_text(dataset, function, text_column, "Splitting sentences", num_proc=num_proc)


def _split_batch(batch: dict[str, list[str | None]], *, text_column: str) -> dict[str, list[str]]:
    return {text_column: [sentence for text in batch[text_column] for sentence in sentences_of(text or "")]}


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of one document, by the rule of `split_sentences`."""
    for paragraph in _PARAGRAPH.split(text):
        start = 0
        for end in _SENTENCE_END.finditer(paragraph):
            opener = end.group(1)
            if opener.isupper() or opener.isdigit() or opener in _OPENING:
                yield " ".join(paragraph[start : end.end()].split())
                start = end.end()
        if rest := " ".join(paragraph[start:].split()):
            yield rest


def map_text(
    dataset: Dataset | IterableDataset,
    function: Callable[[dict[str, list[str | None]]], dict[str, list[Any]]],
    text_column: str,
    description: str,
    *,
    features: Features | None = None,
    num_proc: int | None = None,
) -> Dataset | IterableDataset:
    """The rows that `function` makes of batches of 1,000 texts; streams stay lazy.

    Args:
        dataset: One split, map-style or stream.
        function: Takes and returns a batch; its columns replace the data set's.
        text_column: The only column that `function` sees.
        description: Title of the progress bar.
        features: Types of the new columns; None infers them.
        num_proc: Processes, map-style only.

    Raises:
        TypeError: Several splits at once.
        ValueError: No such column, or `num_proc` for a stream.
    """
    if not isinstance(dataset, (Dataset, IterableDataset)):
        raise TypeError(f'`dataset` must be one split, as in `dataset["train"]`, not {type(dataset).__name__}.')
    # A stream may not know its columns before it is read; a missing one then shows at the first row.
    if dataset.column_names is not None and text_column not in dataset.column_names:
        raise ValueError(
            f"There is no column {text_column!r}, only {', '.join(map(repr, dataset.column_names))}: set `text_column`."
        )
    texts = dataset.select_columns([text_column])
    options: dict[str, Any] = {"batched": True, "remove_columns": [text_column], "features": features}
    if isinstance(dataset, Dataset):
        return texts.map(function, num_proc=num_proc, desc=description, **options)
    if num_proc is not None:
        raise ValueError("`num_proc` is for map-style data sets: a stream is mapped where it is read.")
    return texts.map(function, **options)
