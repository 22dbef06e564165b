"""What the study consists of: read from YAML, checked, and made smaller for a quick or a smoke run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hf_dwt.sections import RecipeError, check_keys, check_section, check_type, names_of, read_sections

SCALES = ("quick", "smoke")
# Of a cell; `share` is of the steps, `tuned_as` says whose learning rate is taken instead of its own family's.
CHOICES = (
    *("inputs", "size", "start", "teacher", "grown_from", "weighting", "soft_loss_weight", "final_soft_loss_weight"),
    *("weighting_kwargs", "temperature", "learning_rate", "steps", "dropout", "arguments", "growth"),
    *("share", "tuned_as"),
)


@dataclass(frozen=True)
class InputSection:
    """What cells of one kind read, and how: the recipe that their choices are put on.

    Attributes:
        objective: Of the recipe.
        data: Likewise.
        student: Likewise: what does not depend on the size, `model_type` among it.
        tokens: Mean tokens of an example, for estimates before anything was read.
        vocabulary: Likewise.
        tokenizer: Of the recipe.
        arguments: Likewise.
        dropout: Fields of the student's configuration that take a cell's dropout.
        num_test_examples: Examples that final losses are of; None takes those of the curve.
    """

    objective: Literal["masked", "causal"]
    data: Mapping[str, Any]
    student: Mapping[str, Any]
    tokens: int
    vocabulary: int
    tokenizer: Mapping[str, Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    dropout: list[str] = field(default_factory=list)
    num_test_examples: int | None = None


@dataclass(frozen=True)
class TeacherSection:
    """A model that teaches, or that a student is grown from.

    Attributes:
        inputs: That it is trained on.
        size: Its own; of a published one for estimates.
        steps: That the study trains it for.
        learning_rate: Likewise.
        seed: Likewise.
        published: Folder of one that the study does not train.
    """

    inputs: str
    size: str
    steps: int | None = None
    learning_rate: float | None = None
    seed: int | None = None
    published: str | None = None


@dataclass(frozen=True)
class Part:
    """A question, and the cells that answer it.

    Attributes:
        name: Of the part and its file of results.
        question: In words.
        seeds: Each cell is run with each of them.
        choices: That all arms share.
        arms: By name: choices on top, and `vary`, choices whose values are taken in turn.
    """

    name: str
    question: str
    seeds: tuple[int, ...]
    choices: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Study:
    """All of it.

    Attributes:
        name: Of the file; with the scale it names the folder of models and data.
        scale: None, 'quick' or 'smoke'.
        inputs: By name.
        sizes: By name: fields of the student's configuration for each model type.
        teachers: By name.
        defaults: Choices that all parts share.
        parts: In the order in which they are run.
        operations_per_second: Of a core, for estimates until there are lines.
        seconds_per_cell: What a cell takes besides its operations, for estimates.
        step_factor: That all steps are multiplied by.
        launch: How processes are started for a cell, such as 'torchrun --nproc_per_node 8'; None runs each cell in one
            process, pinned to one core.
        num_processes: That are started so.
        keep_students: Whether students are kept, to be evaluated further.
    """

    name: str
    scale: str | None
    inputs: Mapping[str, InputSection]
    sizes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    teachers: Mapping[str, TeacherSection]
    defaults: Mapping[str, Any]
    parts: tuple[Part, ...]
    operations_per_second: float
    seconds_per_cell: float
    step_factor: float = 1.0
    launch: str | None = None
    num_processes: int = 1
    keep_students: bool = False


def read_study(path: str | Path, scale: str | None = None) -> Study:
    """Read a study's file.

    Args:
        path: YAML.
        scale: Name of the section whose changes are made to the others.

    Raises:
        RecipeError: If it is missing, or something in it is wrong.
    """
    content = read_sections(path, "study")
    changes = {name: content.pop(name, None) for name in SCALES}
    if scale is not None:
        if not isinstance(changes[scale], Mapping):
            raise RecipeError(f"{path} has no section `{scale}`.")
        content = _changed(content, changes[scale])
    return make_study(content, Path(path).stem, scale)


def make_study(content: Mapping[str, Any], name: str, scale: str | None = None) -> Study:
    """Check a study's content and make a `Study` of it.

    Raises:
        RecipeError: If a key or value is not known, or a key is missing.
    """
    known = [each for each in names_of(Study) if each not in ("name", "scale", "step_factor")]
    check_keys("the study", content, [*known, "scale_steps", "most_seeds"])
    for key in ("inputs", "sizes", "teachers", "parts", "defaults"):
        wanted = list if key == "parts" else dict
        if not isinstance(content.get(key), wanted):
            raise RecipeError(f"The study's `{key}` should be a {'list' if wanted is list else 'mapping'}.")
    for key in ("operations_per_second", "seconds_per_cell"):
        check_type(key, content.get(key), float)
    check_keys("`defaults`", content["defaults"], CHOICES)
    most_seeds = content.get("most_seeds")
    return Study(
        name=name,
        scale=scale,
        inputs=_sections("inputs", content["inputs"], InputSection),
        sizes=_sizes(content["sizes"]),
        teachers=_sections("teachers", content["teachers"], TeacherSection),
        defaults=content["defaults"],
        parts=tuple(_part(each, most_seeds) for each in content["parts"]),
        operations_per_second=float(content["operations_per_second"]),
        seconds_per_cell=float(content["seconds_per_cell"]),
        step_factor=float(content.get("scale_steps", 1)),
        launch=content.get("launch"),
        num_processes=int(content.get("num_processes", 1)),
        keep_students=bool(content.get("keep_students", False)),
    )


def _sections(name: str, content: Mapping[str, Any], section: type) -> dict[str, Any]:
    made = {}
    for key, each in content.items():
        if each is None:
            continue
        check_section(f"{name}.{key}", each, section)
        made[str(key)] = section(**each)
    return made


def _sizes(content: Mapping[str, Any]) -> Mapping[str, Any]:
    for size, kinds in content.items():
        if not isinstance(kinds, Mapping) or not all(isinstance(each, Mapping) for each in kinds.values()):
            raise RecipeError(f"`sizes.{size}` should hold fields of a configuration for each model type.")
    return content


def _part(content: Any, most_seeds: int | None) -> Part:
    if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
        raise RecipeError(f"Each of `parts` is a mapping with a `name`, got {content!r}.")
    where = f"the part `{content['name']}`"
    check_keys(where, content, ("name", "question", "seeds", "vary", "arms", *CHOICES))
    if not isinstance(content.get("arms"), Mapping) or not content["arms"]:
        raise RecipeError(f"{where} has no `arms`.")
    seeds = content.get("seeds")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise RecipeError(f"`seeds` of {where} should be a list of whole numbers, got {seeds!r}.")
    arms = {}
    for arm, choices in content["arms"].items():
        if choices is None:
            continue
        if not isinstance(choices, Mapping):
            raise RecipeError(f"The arm `{arm}` of {where} should be a mapping, got {choices!r}.")
        check_keys(f"the arm `{arm}` of {where}", choices, (*CHOICES, "vary"))
        vary = {**(content.get("vary") or {}), **(choices.get("vary") or {})}
        check_keys(f"`vary` of {where}", vary, CHOICES)
        if wrong := [key for key, values in vary.items() if not isinstance(values, list) or not values]:
            raise RecipeError(f"`vary.{wrong[0]}` of {where} should be a list, got {vary[wrong[0]]!r}.")
        arms[str(arm)] = {**choices, "vary": {key: values for key, values in vary.items() if key not in choices}}
    shared = {key: content[key] for key in CHOICES if key in content}
    return Part(content["name"], str(content.get("question", "")), tuple(seeds[:most_seeds]), shared, arms)


def _changed(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Put changes on top, mapping into mapping; parts are found by their names, and None takes one away."""
    changes = dict(changes)
    parts = changes.pop("parts", None) or {}
    changed = _merged(content, changes)
    named = {each.get("name"): each for each in content.get("parts") or []}
    if wrong := [name for name in parts if name not in named]:
        raise RecipeError(f"There is no part `{wrong[0]}` to change.")
    kept = [name for name in named if name not in parts or parts[name] is not None]
    return changed | {"parts": [_merged(named[name], parts.get(name, {})) for name in kept]}


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(ours)
    for key, value in theirs.items():
        own = both.get(key)
        both[key] = _merged(own, value) if isinstance(own, Mapping) and isinstance(value, Mapping) else value
    return both
