"""`dwt_recipe.json`: all that is needed to understand a student and to train it again."""

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from hf_dwt._version import __version__
from hf_dwt.arguments import DistillationArguments
from hf_dwt.course import MILESTONES, gap_interval, planned_weights
from hf_dwt.publishing.results import is_over, other_results_of, results_of
from hf_dwt.remapping.plan import plan_of
from hf_dwt.teacher import Origin
from hf_dwt.unsharded import num_entries

RECORD_FILE, ARGUMENTS_FILE = "dwt_recipe.json", "training_args.json"
SCHEMA_VERSION = 1

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "huggingface_hub")


@dataclass(frozen=True)
class TeacherFacts:
    """What is known of a teacher, also after it has been let go.

    Attributes:
        origin: Where it came from.
        architecture: Its class.
        num_parameters: How many.
        config: Its configuration; None if it is heard from a cache, and no step pays for a forward pass of it.
        num_cached: Examples that it was asked about for its cache; None if the steps ask it.
        is_students_base: Whether it is the base of the student, with the student's adapter off.
    """

    origin: Origin
    architecture: str
    num_parameters: int
    config: PretrainedConfig | None = None
    num_cached: int | None = None
    is_students_base: bool = False


@dataclass(frozen=True)
class TrainingFacts:
    """What a run has taken and brought.

    Attributes:
        steps: Optimiser steps done.
        tokens: Read in training, padding included: those of the first rank, times the ranks.
        seconds: Wall-clock.
        teacher_share: Of a distilled step's operations, 0 to 1; None if they could not be counted.
        num_examples: Of the training set, None of a stream.
        sources: Data sets of the Hub that the training set was made of, by `name` and `revision`, where it is known.
        log_history: Of the trainer.
        planned_steps: Optimiser steps of the whole run, of which a checkpoint has some, and so has one that was stopped
            early; None if it is done.
        best_step: Step of the best model, whose weights were loaded at the end; None if they are the last step's.
    """

    steps: int
    tokens: int
    seconds: float
    teacher_share: float | None
    num_examples: int | None
    sources: Sequence[Mapping[str, str | None]]
    log_history: Sequence[Mapping[str, float]]
    planned_steps: int | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class Repetition:
    """How a run can be repeated from its record alone.

    Attributes:
        command: Takes the record.
        recipe: What the command reads there.
    """

    command: str
    recipe: Mapping[str, Any]


def record_of(
    student: PreTrainedModel,
    args: TrainingArguments,
    *,
    kind: str,
    choices: DistillationArguments,
    teacher: TeacherFacts | None,
    training: TrainingFacts,
    processing_class: Any | None,
    repetition: Repetition | None = None,
    adapter: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the record of a student, which holds numbers, text, lists and mappings only.

    A value that is not known is None; `baseline` is filled later, see `add_comparison`. `adapter` is what was trained
    of the student, see `adapters.describe`. `results` are those of the student's weights; where these were not
    evaluated, `other_results` are the last ones, with their `step`.
    """
    weights_of_step = training.steps if training.best_step is None else training.best_step
    results = results_of(training.log_history, weights_of_step)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "student": {**_student(student), "adapter": adapter},
        "teacher": None if teacher is None else _teacher(teacher, training.log_history),
        "objective": None if teacher is None else _objective(choices, training),
        "vocabulary": vocabulary_fingerprint(processing_class),
        "data": {"sources": list(training.sources), "num_examples": training.num_examples},
        "training": {
            "steps": training.steps,
            "weights_of_step": weights_of_step,
            "tokens": training.tokens,
            "seconds": round(training.seconds, 1),
            "teacher_share": training.teacher_share,
        },
        "results": results,
        "other_results": other_results_of(training.log_history) if results is None else None,
        "baseline": [],
        "seeds": {"seed": args.seed, "data_seed": args.data_seed},
        "arguments": arguments_of(args),
        "versions": {"hf_dwt": __version__, "python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
        "command": command_line() if repetition is None else repetition.command,
        "recipe": None if repetition is None else repetition.recipe,
    }


def arguments_of(args: TrainingArguments) -> dict[str, Any]:
    """Training arguments without secrets, as JSON takes them."""
    own = {name: value for name, value in args.to_dict().items() if not name.endswith("_token")}
    return dict(json.loads(json.dumps(own, default=str)))


@contextmanager
def without_tokens(args: TrainingArguments) -> Iterator[None]:
    """Take the tokens out of the arguments while they are saved."""
    kept = {name: value for name, value in vars(args).items() if name.endswith("_token") and value is not None}
    for name in kept:
        setattr(args, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(args, name, value)


def vocabulary_fingerprint(processing_class: Any | None) -> dict[str, Any] | None:
    """Size and hash of a tokenizer's tokens in the order of their ids, None without one."""
    if not isinstance(processing_class, PreTrainedTokenizerBase):
        return None
    tokens = sorted(processing_class.get_vocab().items(), key=lambda each: (each[1], each[0]))
    return {"size": len(tokens), "sha256": hashlib.sha256(json.dumps(tokens).encode()).hexdigest()}


def command_line() -> str | None:
    """The command of this process, without tokens and without folders of this machine in the program's name.

    None in a notebook: its cells were run, and the command of its kernel repeats nothing.
    """
    program, *options = sys.argv or [""]
    if Path(program).stem.endswith("kernel_launcher"):
        return None
    shown, hide = [], False
    for option in options:
        name, equals, _ = option.partition("=")
        is_token = name.replace("-", "_").endswith("_token") and name.startswith("-")
        secret = hide or option.startswith("hf_")
        shown.append("TOKEN" if secret else f"{name}=TOKEN" if is_token and equals else option)
        hide = is_token and not equals
    module = vars(sys.modules["__main__"]).get("__spec__")
    if module is not None:
        started = ["python", "-m", module.name.removesuffix(".__main__")]
    else:
        name = Path(program).name
        started = ["python", name] if name.endswith(".py") else [name]
    return shlex.join([*started, *shown])


def write(record: Mapping[str, Any], folder: str | Path) -> None:
    """Write the record and the training arguments into a folder."""
    for name, content in ((RECORD_FILE, record), (ARGUMENTS_FILE, record["arguments"])):
        Path(folder, name).write_text(json.dumps(content, indent=2) + "\n")


def _student(student: PreTrainedModel) -> dict[str, Any]:
    plan = plan_of(student)
    config = student.config
    growth = plan and {
        "teacher": plan.teacher,
        "width": plan.width_method,
        "depth": plan.depth_method,
        "outcome": plan.outcome,
    }
    return {
        "architecture": type(student).__name__,
        "num_parameters": num_entries(student.parameters()),
        "config": json.loads(json.dumps(config.to_dict(), default=str)),
        "growth": growth,
        "started_from": student.name_or_path or None,
        "commit": vars(config).get("_commit_hash"),
    }


def _teacher(teacher: TeacherFacts, log_history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    known = [each["eval_teacher_hard_loss"] for each in log_history if "eval_teacher_hard_loss" in each]
    return {
        **asdict(teacher.origin),
        "architecture": teacher.architecture,
        "num_parameters": teacher.num_parameters,
        "is_students_base": teacher.is_students_base,
        "held_out_loss": known[-1] if known else None,
    }


def _objective(choices: DistillationArguments, training: TrainingFacts) -> dict[str, Any]:
    planned = training.planned_steps or training.steps
    # One that was stopped early has heard no more of its course.
    done = training.steps / planned if is_over(training.log_history) else 1.0
    weights = planned_weights(choices, planned, [done * at for at in MILESTONES])
    hard = [[at, weight.hard] for at, weight in zip(MILESTONES, weights, strict=True)]
    soft = [[at, weight.soft] for at, weight in zip(MILESTONES, weights, strict=True)]
    if gap_interval(choices.policy(), training.steps) is not None:
        # What it answers depends on the run.
        soft = _logged_weights(training) or soft[:1]
        hard = [[at, weights[0].hard] for at, _ in soft]
    return {
        "weighting": choices.weighting,
        "temperature": choices.temperature,
        "hard_loss_weight": hard,
        "soft_loss_weight": soft,
    }


def _logged_weights(training: TrainingFacts) -> list[list[float]]:
    """Share of the steps done and soft-loss weight, as often as a policy is asked that depends on progress alone."""
    logged = [
        [each["step"] / training.steps, each["soft_loss_weight"]]
        for each in training.log_history
        if "soft_loss_weight" in each
    ]
    last = len(logged) - 1
    return [logged[place] for place in dict.fromkeys(round(share * last) for share in MILESTONES)] if logged else []
