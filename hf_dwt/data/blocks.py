"""Texts to token ids: fixed-length blocks, or one example per row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

from datasets import Dataset, Features, IterableDataset, List, Value
from transformers import PreTrainedTokenizerBase

from hf_dwt.data.text import map_text

_SMALLEST_LENGTH = 8


def to_blocks(
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    *,
    text_column: str = "text",
    num_proc: int | None = None,
    keep_remainder: bool = False,
) -> Dataset | IterableDataset:
    """The texts, tokenised, joined and cut in blocks of `block_size` tokens.

    A tokenizer that frames a text ([CLS] x [SEP]) frames each block, within `block_size`, and
    its separator stands between documents; else documents are ended by the end-of-sequence token, if
    there is one. Documents are joined 1,000 at a time (of each process).

    Args:
        dataset: One split, map-style or stream; other columns are dropped.
        tokenizer: Also decides which special tokens there are.
        block_size: Tokens, from 8 to the tokenizer's `model_max_length`.
        text_column: Where the documents are.
        num_proc: Processes, map-style only.
        keep_remainder: Keep the shorter block at the end of each 1,000 documents, instead of dropping it.

    Returns:
        Rows of `input_ids`, `attention_mask` (ones) and, for a framing tokenizer, `special_tokens_mask`.

    Raises:
        TypeError: Several splits at once.
        ValueError: `block_size` out of range, no such column, `num_proc` for a stream, or too little text
            for one block (not noticed in a stream).

    Example:
        >>> from datasets import Dataset
        >>> from hf_dwt.data import to_blocks, train_tokenizer
        >>> text = Dataset.from_dict({"text": ["to be or not to be"] * 3})
        >>> tokenizer = train_tokenizer(text["text"], vocab_size=40)
        >>> [len(ids) for ids in to_blocks(text, tokenizer, block_size=8)["input_ids"]]
        [8, 8, 8]
    """
    _check_length("block_size", block_size, tokenizer)
    function = partial(
        _cut_batch,
        tokenizer=tokenizer,
        text_column=text_column,
        block_size=block_size,
        keep_remainder=keep_remainder,
    )
    blocks = map_text(
        dataset, function, text_column, "Cutting blocks", features=_features(tokenizer), num_proc=num_proc
    )
    if isinstance(blocks, Dataset) and len(blocks) == 0:
        raise ValueError(
            f"There is too little text for one block of {block_size} tokens: lower `block_size`, "
            "give more text, or set `keep_remainder=True`."
        )
    return blocks


def to_sentences(
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    text_column: str = "text",
    num_proc: int | None = None,
) -> Dataset | IterableDataset:
    """Each row's text as one example, truncated; rows without a token are dropped.

    Args:
        dataset: One split, map-style or stream; other columns are dropped.
        tokenizer: Its special tokens are added as it does for any text.
        max_length: Tokens at most, special ones included, from 8 to the tokenizer's `model_max_length`.
        text_column: Where the sentences are.
        num_proc: Processes, map-style only.

    Returns:
        Rows of `input_ids`, `attention_mask` (ones), for a framing tokenizer `special_tokens_mask`, and
        `length` in tokens, which `train_sampling_strategy="group_by_length"` reads.

    Raises:
        TypeError: Several splits at once.
        ValueError: `max_length` out of range, no such column, `num_proc` for a stream, or no text at all
            (not noticed in a stream).

    Example:
        >>> from datasets import Dataset
        >>> from hf_dwt.data import to_sentences, train_tokenizer
        >>> text = Dataset.from_dict({"text": ["to be", "", "or not to be"]})
        >>> tokenizer = train_tokenizer(text["text"], vocab_size=40)
        >>> to_sentences(text, tokenizer, max_length=16)["length"][0]
        4
    """
    _check_length("max_length", max_length, tokenizer)
    function = partial(_truncate_batch, tokenizer=tokenizer, text_column=text_column, max_length=max_length)
    features = Features({**_features(tokenizer), "length": Value("int32")})
    sentences = map_text(dataset, function, text_column, "Tokenising", features=features, num_proc=num_proc)
    if isinstance(sentences, Dataset) and len(sentences) == 0:
        raise ValueError(f"No row of the column {text_column!r} holds any text.")
    return sentences


@dataclass(frozen=True)
class _Documents:
    """Token ids of the texts that have any, and the special tokens that go around them."""

    ids: list[list[int]]
    prefix: list[int]
    suffix: list[int]

    def framed(self, ids: Sequence[int]) -> list[int]:
        return [*self.prefix, *ids, *self.suffix]


def _encode(texts: Sequence[str | None], tokenizer: PreTrainedTokenizerBase) -> _Documents:
    """The frame is read off a text: fast tokenizers do not offer `build_inputs_with_special_tokens`.

    Truncating here instead of in the tokenizer leaves its state, and so the data set's fingerprint, alone.
    """
    present = [text for text in texts if text]
    if not present:
        return _Documents([], [], [])
    encoded = tokenizer(present, return_special_tokens_mask=True, verbose=False)
    rows = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    filled = [(ids, mask) for ids, mask in rows if 0 in mask]
    if not filled:
        return _Documents([], [], [])
    ids, mask = filled[0]
    start = len(list(takewhile(bool, mask)))
    num_last = len(list(takewhile(bool, reversed(mask))))
    contents = [ids[start : len(ids) - num_last] for ids, _ in filled]
    return _Documents(contents, ids[:start], ids[len(ids) - num_last :])


def _cut_batch(
    batch: dict[str, list[str | None]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    text_column: str,
    block_size: int,
    keep_remainder: bool,
) -> dict[str, list[Any]]:
    documents = _encode(batch[text_column], tokenizer)
    separator = _separator(tokenizer)
    stream = [token for ids in documents.ids for token in (*ids, *separator)]
    if documents.suffix:
        stream = stream[: len(stream) - len(separator)]
    size = block_size - tokenizer.num_special_tokens_to_add()
    bodies = [stream[start : start + size] for start in range(0, len(stream), size)]
    if bodies and len(bodies[-1]) < size and not keep_remainder:
        bodies.pop()
    return _columns([documents.framed(body) for body in bodies], documents, tokenizer)


def _truncate_batch(
    batch: dict[str, list[str | None]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    text_column: str,
    max_length: int,
) -> dict[str, list[Any]]:
    documents = _encode(batch[text_column], tokenizer)
    size = max_length - tokenizer.num_special_tokens_to_add()
    rows = [documents.framed(ids[:size]) for ids in documents.ids]
    return {**_columns(rows, documents, tokenizer), "length": [len(row) for row in rows]}


def _separator(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    frames = tokenizer.num_special_tokens_to_add() > 0
    separator = tokenizer.sep_token_id if frames and tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    return [] if separator is None else [separator]


def _columns(rows: list[list[int]], documents: _Documents, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "input_ids": rows,
        "attention_mask": [[1] * len(row) for row in rows],
    }
    if tokenizer.num_special_tokens_to_add() > 0:
        special = {*documents.prefix, *documents.suffix, *_separator(tokenizer)}
        columns["special_tokens_mask"] = [[int(token in special) for token in row] for row in rows]
    return columns


def _features(tokenizer: PreTrainedTokenizerBase) -> Features:
    features = {"input_ids": List(Value("int32")), "attention_mask": List(Value("int8"))}
    if tokenizer.num_special_tokens_to_add() > 0:
        features["special_tokens_mask"] = List(Value("int8"))
    return Features(features)


def _check_length(name: str, length: int, tokenizer: PreTrainedTokenizerBase) -> None:
    if length < _SMALLEST_LENGTH:
        raise ValueError(f"`{name}` must be at least {_SMALLEST_LENGTH} tokens, not {length}.")
    if length > tokenizer.model_max_length:
        raise ValueError(
            f"`{name}` is {length}, but the tokenizer's model reads at most {tokenizer.model_max_length} "
            "tokens (`tokenizer.model_max_length`)."
        )
