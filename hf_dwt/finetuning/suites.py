"""Suites: which tasks, on which data, scored how, trained how. They are YAML files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from hf_dwt.finetuning.metrics import METRICS
from hf_dwt.sections import RecipeError, YamlLoader, check_keys, check_section, names_of, suggestion


@dataclass(frozen=True)
class TaskData:
    """Where a task's rows come from.

    Attributes:
        source: Hub id, folder of a data set, or file (.csv, .json, .jsonl, .parquet).
        packaged: Name of a set that lies in a package, instead of `source`.
        name: Configuration of the data set.
        revision: Hub only.
        train: Split to train on.
        evaluation: Splits to score on. None: `num_held_out` rows are put aside from `train`.
        num_held_out: Rows to put aside, the same for every model and seed; of equal texts one is kept before.
    """

    source: str | None = None
    packaged: str | None = None
    name: str | None = None
    revision: str | None = None
    train: str = "train"
    evaluation: list[str] | None = None
    num_held_out: int = 1000


@dataclass(frozen=True)
class Training:
    """How a model is fine-tuned; the defaults are BERT's.

    Attributes:
        learning_rate: At the end of the warm-up; falls to 0 on a line.
        lora_learning_rate: The same for adapters, which take larger steps.
        epochs: Over the training rows.
        batch_size: Rows a step.
        warmup: Share of the steps.
        weight_decay: Of AdamW.
        max_length: Tokens of a row, cut there.
        lora_rank: Of the adapters.
        num_train_examples: Rows to train on at most, a fixed sample. None takes all.
        probe_strength: The larger, the less a probe's weights are held small.
    """

    learning_rate: float = 2e-5
    lora_learning_rate: float = 4e-4
    epochs: float = 3
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_length: int = 128
    lora_rank: int = 8
    num_train_examples: int | None = None
    probe_strength: float = 1.0


@dataclass(frozen=True)
class Task:
    """One task of a suite.

    Attributes:
        data: Where the rows come from.
        text: One column, or two for pairs.
        metrics: Names of metrics for its kind; a task's score is their mean, over all evaluation splits.
        label: Its column.
        kind: What is predicted: a class or a number.
        optional: Run only where it is named, and never part of the average.
        training: How it is trained.
        name: In the suite.
    """

    data: TaskData
    text: list[str]
    metrics: list[str]
    label: str = "label"
    kind: Literal["classification", "regression"] = "classification"
    optional: bool = False
    training: Training = field(default_factory=Training)
    name: str = ""

    def fingerprint(self) -> str:
        """Return a digest of all that the task says: results of another task of this name are not its own."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Suite:
    """Tasks to score models on."""

    name: str
    description: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class _Written:
    """A suite file: `training` holds for all tasks that say nothing else."""

    tasks: Mapping[str, Any]
    description: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)


def suite_names() -> list[str]:
    """Return the names of the suites that come with the package."""
    found = (files("hf_dwt.finetuning") / "suites").iterdir()
    return sorted(Path(each.name).stem for each in found if each.name.endswith(".yaml"))


def load_suite(suite: str | Path, tasks: Sequence[str] | None = None, data: str | None = None) -> Suite:
    """Read a suite.

    Args:
        suite: Name of one that comes with the package, or a YAML file.
        tasks: Names of the tasks to run. None: all but the optional ones.
        data: Takes the place of every `source`: a copy of the data set elsewhere, of the same layout.

    Raises:
        RecipeError: If there is no such suite or task, or something in it is wrong.
    """
    if str(suite) in suite_names():
        text = (files("hf_dwt.finetuning") / "suites" / f"{suite}.yaml").read_text()
    elif Path(suite).is_file():
        text = Path(suite).read_text()
    else:
        known = ", ".join(suite_names())
        raise RecipeError(f"There is no suite {str(suite)!r}: name a YAML file, or one of {known}.")
    try:
        content = yaml.load(text, Loader=YamlLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"The suite {str(suite)!r} is not YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise RecipeError(f"{str(suite)!r} is no suite: it should be a mapping with `tasks`.")
    check_section("suite", content, _Written)
    written = _Written(**content)
    every = [_make_task(name, task, written.training) for name, task in written.tasks.items()]
    chosen = _choose(every, tasks)
    if data is not None:
        chosen = [replace(task, data=replace(task.data, source=data)) if task.data.source else task for task in chosen]
    return Suite(Path(suite).stem, written.description.strip(), tuple(chosen))


def _choose(every: Sequence[Task], names: Sequence[str] | None) -> list[Task]:
    if names is None:
        return [task for task in every if not task.optional]
    known = {task.name: task for task in every}
    for name in names:
        if name not in known:
            raise RecipeError(f"The suite has no task {name!r}. {suggestion(name, list(known))}")
    return [known[name] for name in dict.fromkeys(names)]


def _make_task(name: str, content: Any, defaults: Mapping[str, Any]) -> Task:
    where = f"tasks.{name}"
    if isinstance(content, Mapping):
        check_keys(f"`{where}`", content, [key for key in names_of(Task) if key != "name"])
    check_section(where, content, Task)
    check_section(f"{where}.data", content["data"], TaskData)
    training = {**defaults, **content.get("training", {})}
    check_section(f"{where}.training", training, Training)
    data = TaskData(**content["data"])
    if (data.source is None) == (data.packaged is None):
        raise RecipeError(f"`{where}.data` should have one of `source` and `packaged`.")
    if data.evaluation == []:
        raise RecipeError(f"`{where}.data.evaluation` is empty: name a split, or leave it out to hold rows out.")
    for key, value in (
        ("data.num_held_out", data.num_held_out),
        ("training.batch_size", training.get("batch_size", 1)),
    ):
        if value < 1:
            raise RecipeError(f"`{where}.{key}` is {value}: it should be at least 1.")
    if not 1 <= len(content["text"]) <= 2:
        raise RecipeError(f"`{where}.text` should be a list of one column or two, got {content['text']!r}.")
    if content.get("label", "label") in content["text"]:
        raise RecipeError(f"`{where}.label` is {content['label']!r}, which is a column of `text` as well.")
    check_keys(f"`{where}.metrics`", dict.fromkeys(content["metrics"]), list(METRICS))
    if not content["metrics"]:
        raise RecipeError(f"`{where}.metrics` is empty: name at least one of {', '.join(METRICS)}.")
    kind = content.get("kind", Task.kind)
    for metric in content["metrics"]:
        if METRICS[metric] != kind:
            fitting = ", ".join(name for name, scored in METRICS.items() if scored == kind)
            raise RecipeError(
                f"`{where}.metrics` has {metric!r}, which is for {METRICS[metric]}: for {kind} there are {fitting}."
            )
    return Task(**{**content, "data": data, "training": Training(**training), "name": str(name)})
