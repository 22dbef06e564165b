"""From a recipe to its inputs: teacher, tokenizer, and text as examples."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError
from transformers import AutoTokenizer

from hf_dwt.cli.recipe import DataSection, Recipe, SourceSection, reading
from hf_dwt.cli.students import check_student, objective_of
from hf_dwt.data import (
    CausalCollator,
    MaskingCollator,
    load_text,
    split_sentences,
    take_every,
    to_blocks,
    to_sentences,
    train_tokenizer,
)
from hf_dwt.language_models import Kind
from hf_dwt.sections import RecipeError
from hf_dwt.teacher import Teacher, load_teacher

# Enough to learn a vocabulary from; a stream has no end.
_MOST_TOKENIZER_ROWS = 1_000_000
# Documents do not tell how many blocks they make: put aside more than enough, and cut.
_HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class Inputs:
    """What the runs with and without the teacher share.

    Attributes:
        kind: 'masked' or 'causal'.
        tokenizer: The teacher's, or the recipe's own.
        train: Tokenised examples, without labels.
        evaluation: Held-out ones.
        collator: Makes batches of them.
        teacher: None if the recipe has none.
    """

    kind: Kind
    tokenizer: Any
    train: Any
    evaluation: Any
    collator: Any
    teacher: Teacher | None


def read_inputs(recipe: Recipe, seed: int) -> Inputs:
    """Load the teacher, read and tokenise the text, put held-out examples aside.

    Raises:
        RecipeError: If there is no tokenizer to be had, or the text cannot be read.
    """
    teacher = None if recipe.teacher is None else load_teacher(**asdict(recipe.teacher))
    kind = objective_of(recipe, None if teacher is None else teacher.model.config)
    check_student(recipe, kind, None if teacher is None else teacher.model)
    data = recipe.data
    try:
        with reading("data"):
            text = _read_text(data, data.sources())
            tokenizer = _read_tokenizer(recipe, teacher, text)
            train, evaluation = _put_aside(data, text, tokenizer, seed)
    except (DatasetGenerationError, UnicodeDecodeError) as error:
        raise RecipeError(f"The text of `data` could not be read: {error.__cause__ or error}") from error
    if kind == "masked":
        collator: Any = MaskingCollator(tokenizer, data.mask_probability, data.whole_word, seed=seed)
    else:
        collator = CausalCollator(tokenizer)
    return Inputs(kind, tokenizer, train, evaluation, collator, teacher)


def _read_text(data: DataSection, sources: Sequence[SourceSection]) -> Any:
    """Rows of text, from one source or several."""
    parts = [load_text(**asdict(each), streaming=data.streaming) for each in sources]
    for each, part in zip(sources, parts, strict=True):
        # The columns of a stream may not be known before its first row is read.
        columns = part.column_names or list(next(iter(part), {}))
        if columns and data.text_column not in columns:
            raise RecipeError(
                f"`data.text_column` is {data.text_column!r}, but {each.source!r} has no such column, only "
                f"{', '.join(map(repr, columns))}."
            )
    text = parts[0]
    if len(parts) > 1:
        text = datasets.concatenate_datasets([part.select_columns([data.text_column]) for part in parts])
    if data.split_sentences:
        text = split_sentences(text, data.text_column, data.num_proc)
    return take_every(text, data.take_every) if data.take_every > 1 else text


def _read_tokenizer(recipe: Recipe, teacher: Teacher | None, text: Any) -> Any:
    section = recipe.tokenizer
    if section is None and teacher is not None and teacher.processing_class is not None:
        return teacher.processing_class
    named = named_tokenizer(recipe)
    if named is not None:
        return named
    if section is None:
        raise RecipeError("There is no teacher whose tokenizer to take: the recipe needs a `tokenizer`.")
    rows = _texts(text, recipe.data.text_column)
    return train_tokenizer(islice(rows, _MOST_TOKENIZER_ROWS), section.vocab_size, kind=section.kind)


def named_tokenizer(recipe: Recipe) -> Any | None:
    """The tokenizer that the recipe names or, without a `tokenizer`, that of the student that it names."""
    named = recipe.student if recipe.tokenizer is None else asdict(recipe.tokenizer)
    if named.get("name") is None:
        return None
    own = {"revision": named.get("revision") or "main", "trust_remote_code": False}
    return AutoTokenizer.from_pretrained(os.path.expanduser(named["name"]), **own)


def _texts(text: Any, column: str) -> Iterator[str]:
    return (row[column] for row in text)


def _put_aside(data: DataSection, text: Any, tokenizer: Any, seed: int) -> tuple[Any, Any]:
    """Training and held-out examples; whole rows are put aside, so that none is in both.

    A row is a document, but of a .txt file it is a line, and with `split_sentences` a sentence.
    """
    if evaluation_sources := data.evaluation_sources():
        held_out = _held_out(data, _read_text(data, evaluation_sources), tokenizer)
        return _examples(data, text, tokenizer), _first(held_out, data.num_evaluation_examples)
    if data.streaming:
        examples = _examples(data, text, tokenizer)
        return examples.skip(data.num_evaluation_examples), examples.take(data.num_evaluation_examples)
    if len(text) < 2:
        raise RecipeError(
            "The text of `data` is one row: none can be put aside for evaluation. Give more rows (of a .txt file they "
            "are lines), or held-out text as `data.evaluation_source`."
        )
    share = data.num_evaluation_examples / len(text) if data.form == "sentences" else _HELD_OUT_SHARE
    parts = text.train_test_split(test_size=min(share, 0.5), seed=seed)
    held_out = _held_out(data, parts["test"], tokenizer)
    return _examples(data, parts["train"], tokenizer), _first(held_out, data.num_evaluation_examples)


def _held_out(data: DataSection, text: Any, tokenizer: Any) -> Any:
    try:
        return _examples(data, text, tokenizer)
    except ValueError as error:
        raise RecipeError(
            f"The held-out text could not be cut into examples: {error} In a recipe their length is `data.length`, and "
            "more text for them is given as `data.evaluation_source`."
        ) from error


def _examples(data: DataSection, text: Any, tokenizer: Any) -> Any:
    cut = to_blocks if data.form == "blocks" else to_sentences
    return cut(text, tokenizer, data.length, text_column=data.text_column, num_proc=data.num_proc)


def _first(examples: Any, count: int) -> Any:
    if isinstance(examples, datasets.IterableDataset):
        return examples.take(count)
    return examples.select(range(min(count, len(examples))))
