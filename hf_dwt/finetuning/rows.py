"""The rows of a task: read, checked, split, labels as numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, load_dataset

from hf_dwt.data.sources import load_text
from hf_dwt.finetuning.packaged import read_packaged
from hf_dwt.finetuning.suites import Task, TaskData

# The same rows are held out, and the same are trained on, for every model and seed.
_SPLIT_SEED = 0


@dataclass(frozen=True)
class Rows:
    """Rows with the columns `text`, `text_pair` (of pairs) and `label`, a class or a number.

    Attributes:
        train: To train on.
        evaluation: Split by split.
        labels: Names of the classes, in the order of their numbers; None for regression.
    """

    train: Dataset
    evaluation: dict[str, Dataset]
    labels: tuple[str, ...] | None


def read_rows(task: Task) -> Rows:
    """Read the rows of a task.

    Raises:
        ValueError: If a split, a column or a label is missing, or a label is not what the task's kind wants.
        OSError: If they cannot be had.
    """
    data = task.data
    splits = _load(data)
    if data.evaluation is None:
        train, held_out = _put_aside(_select(splits, data.train, task), data.num_held_out, task)
        parts = {"held_out": held_out}
    else:
        train = _select(splits, data.train, task)
        parts = {name: _select(splits, name, task) for name in data.evaluation}
    labels, convert = _label_reader(task, train)
    most = task.training.num_train_examples
    if most is not None and most < len(train):
        train = train.shuffle(seed=_SPLIT_SEED).select(range(most))
    return Rows(_relabel(train, convert), {name: _relabel(part, convert) for name, part in parts.items()}, labels)


def _load(data: TaskData) -> DatasetDict:
    if data.packaged is not None:
        return DatasetDict({"train": read_packaged(data.packaged)})
    assert data.source is not None
    if Path(data.source).is_file():
        return DatasetDict({"train": load_text(data.source)})
    return load_dataset(data.source, data.name, revision=data.revision)


def _select(splits: DatasetDict, split: str, task: Task) -> Dataset:
    """One split, its columns under our names."""
    if split not in splits:
        raise ValueError(f"Task `{task.name}`: there is no split {split!r}, only {', '.join(map(repr, splits))}.")
    part = splits[split]
    for column in [*task.text, task.label]:
        if column not in part.column_names:
            known = ", ".join(map(repr, part.column_names))
            raise ValueError(f"Task `{task.name}`: there is no column {column!r}, only {known}.")
    part = part.select_columns([*task.text, task.label])
    # Two renamings, so that a pair may be called ("text_pair", "text").
    first = {column: f"column {index}" for index, column in enumerate([*task.text, task.label])}
    second = dict(zip(first.values(), [*_text_columns(task), "label"], strict=True))
    return part.rename_columns(first).rename_columns(second)


def _text_columns(task: Task) -> list[str]:
    return ["text", "text_pair"][: len(task.text)]


def _put_aside(rows: Dataset, count: int, task: Task) -> tuple[Dataset, Dataset]:
    seen: dict[tuple[str, ...], int] = {}
    for index, texts in enumerate(zip(*(rows[column] for column in _text_columns(task)), strict=True)):
        seen.setdefault(texts, index)
    if len(seen) <= count:
        raise ValueError(
            f"Task `{task.name}` has {len(seen)} different rows, and {count} should be held out: "
            "set `num_held_out`, or name splits in `evaluation`."
        )
    parts = rows.select(list(seen.values())).train_test_split(test_size=count, seed=_SPLIT_SEED)
    return parts["train"], parts["test"]


def _label_reader(task: Task, train: Dataset) -> tuple[tuple[str, ...] | None, Callable[[Any], int | float]]:
    """Names of the classes, and the function that makes a label a number."""

    def as_number(value: Any) -> float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"Task `{task.name}` is a regression, but a label is {value!r}: "
                "set `label` to a column of numbers, or `kind: classification`."
            ) from None

    if task.kind == "regression":
        return None, as_number
    feature, values = train.features["label"], train["label"]
    if isinstance(feature, ClassLabel):
        names, numbers = list(feature.names), {number: number for number in range(feature.num_classes)}
    else:
        # Words, or numbers with gaps.
        classes = sorted({value for value in values if value is not None})
        names, numbers = list(map(str, classes)), {value: number for number, value in enumerate(classes)}
    if len(names) < 2:
        raise ValueError(f"Task `{task.name}` has one class only, {names[0]!r}: there is nothing to tell apart.")
    if len(names) > 2 and "f1" in task.metrics:
        raise ValueError(f"Task `{task.name}` has {len(names)} classes, but the metric 'f1' is for two.")

    def as_class(value: Any) -> int:
        if value not in numbers:
            raise ValueError(f"Task `{task.name}`: a label is {value!r}, which is no class; known: {', '.join(names)}.")
        return int(numbers[value])

    return tuple(names), as_class


def _relabel(rows: Dataset, convert: Callable[[Any], int | float]) -> Dataset:
    labels = [convert(value) for value in rows["label"]]
    return rows.remove_columns("label").add_column("label", labels)
