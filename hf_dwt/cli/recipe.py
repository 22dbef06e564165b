"""A recipe: what a run of `hf-dwt train` consists of, in the same names as Python."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_type_hints

from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassError

from hf_dwt.cli.options import config_fields, parse_options, student_fields
from hf_dwt.remapping.sizes import FIELDS, refuse_empty
from hf_dwt.sections import (
    RecipeError,
    check_keys,
    check_section,
    check_type,
    names_of,
    read_sections,
    suggestion,
)

# That `to_blocks` and `to_sentences` cut text to.
_SMALLEST_LENGTH = 8


@contextmanager
def reading(section: str) -> Iterator[None]:
    """Tell a wrong type, or values that do not go together, while a section is read as the recipe's fault.

    A wrong type is the recipe's fault nowhere else.

    Raises:
        RecipeError: In place of what was raised.
    """
    try:
        yield
    except StrictDataclassClassValidationError as error:
        raise RecipeError(f"The values of `{section}` do not go together: {error.__cause__ or error}") from error
    except (TypeError, StrictDataclassError) as error:
        raise RecipeError(f"A value of `{section}` is of a wrong type: {error}") from error


@dataclass(frozen=True)
class TeacherSection:
    """The arguments of `load_teacher`."""

    name: str
    revision: str | None = None
    dtype: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True)
class TokenizerSection:
    """A tokenizer to load by name, or the arguments of `train_tokenizer`. Default: the teacher's."""

    name: str | None = None
    revision: str | None = None
    kind: Literal["wordpiece", "bpe"] = "wordpiece"
    vocab_size: int = 30_522


@dataclass(frozen=True)
class SourceSection:
    """Text of one place: the arguments of `load_text`."""

    source: Any
    name: str | None = None
    revision: str | None = None
    split: str = "train"


@dataclass(frozen=True)
class DataSection:
    """Where the text comes from, and how it becomes examples.

    Attributes:
        source: As in `load_text`; or a mapping with `source`, `name`, `revision` and `split`, or a list of such.
        name: Of `source`: configuration of a Hub data set.
        revision: Of `source`: commit, tag or branch of a Hub data set.
        split: Of `source`: part of a Hub data set.
        streaming: Read it while training; `max_steps` must be given.
        text_column: Where the text is.
        split_sentences: Turn documents into one sentence per row first.
        take_every: Keep one row of so many, as the paper keeps one sentence of four.
        form: 'blocks' of equal length, or one 'sentences' row each.
        length: Tokens per block, or at most per sentence.
        evaluation_source: Held-out text, in the forms that `source` may have: what is not of the split "train", or has
            a `name` or `revision`, is a mapping. Default: rows put aside from `source`.
        num_evaluation_examples: Examples of held-out text, at most.
        mask_probability: Share of tokens that a masked LM predicts.
        whole_word: Mask all pieces of a word together.
        num_proc: Processes that tokenise.
    """

    source: Any
    name: str | None = None
    revision: str | None = None
    split: str = "train"
    streaming: bool = False
    text_column: str = "text"
    split_sentences: bool = False
    take_every: int = 1
    form: Literal["blocks", "sentences"] = "blocks"
    length: int = 128
    evaluation_source: Any = None
    num_evaluation_examples: int = 1000
    mask_probability: float = 0.15
    whole_word: bool = False
    num_proc: int | None = None

    def check(self) -> None:
        """Refuse values that no text could be read by.

        Raises:
            RecipeError: Naming the key.
        """
        _check_least("data", self, {"take_every": 1, "num_evaluation_examples": 1, "length": _SMALLEST_LENGTH})
        if not 0 < self.mask_probability <= 1:
            raise RecipeError(
                f"`data.mask_probability` is {self.mask_probability}: it should be above 0 and at most 1."
            )
        self.sources()
        self.evaluation_sources()

    def sources(self) -> list[SourceSection]:
        """The places of the text that is trained on.

        Raises:
            RecipeError: If `source` is wrong, or tells by itself what `name`, `revision` and `split` are for.
        """
        if not _is_told_by_mappings(self.source):
            return [SourceSection(self.source, self.name, self.revision, self.split)]
        for key in ("name", "revision", "split"):
            if getattr(self, key) != getattr(DataSection, key):
                raise RecipeError(f"`data.{key}` is for a `source` without mappings: write `{key}` into each mapping.")
        return _read_mappings("data.source", self.source)

    def evaluation_sources(self) -> list[SourceSection]:
        """The places of the held-out text; none where rows are put aside.

        Raises:
            RecipeError: If `evaluation_source` is wrong.
        """
        given = self.evaluation_source
        if _is_told_by_mappings(given):
            return _read_mappings("data.evaluation_source", given)
        return [] if given is None else [SourceSection(given)]


def _check_least(where: str, section: Any, least: Mapping[str, int]) -> None:
    for key, bound in least.items():
        if getattr(section, key) < bound:
            raise RecipeError(f"`{where}.{key}` is {getattr(section, key)}: it should be at least {bound}.")


def _is_told_by_mappings(given: Any) -> bool:
    return any(isinstance(each, Mapping) for each in (given if isinstance(given, list) else [given]))


def _read_mappings(where: str, given: Any) -> list[SourceSection]:
    parts = given if isinstance(given, list) else [given]
    for part in parts:
        check_section(where, part, SourceSection)
    return [SourceSection(**part) for part in parts]


@dataclass(frozen=True)
class GrowthSection:
    """How the student is made out of the teacher: arguments of `from_weak_teacher`."""

    method: str = "exact"
    depth_method: str | None = None
    width_method: str | None = None
    noise: float = 0.1


@dataclass(frozen=True)
class CacheSection:
    """The arguments of `cache_teacher`: the teacher is asked once, and heard from there."""

    folder: str
    top_k: int = 8
    tail_samples: int = 8
    epochs: int = 1
    dtype: Literal["float16", "float32"] = "float16"

    def check(self) -> None:
        """Refuse numbers by which nothing would be kept.

        Raises:
            RecipeError: Naming the key.
        """
        _check_least("cache", self, {"top_k": 1, "tail_samples": 0, "epochs": 1})


@dataclass(frozen=True)
class Recipe:
    """A run.

    Attributes:
        student: Fields of its configuration, on top of the teacher's or, with `model_type`, of that architecture's
            defaults; or `name`, a model to start from. Its weights are float32, whatever the teacher's or the named
            model's are, unless there is a `dtype`, such as bfloat16.
        data: The text.
        arguments: Of `DWTTrainingArguments`.
        growth: How the student is grown from the teacher. None starts it at random.
        teacher: None trains the student alone.
        cache: Where the teacher's predictions are kept, for this run and later ones. None asks it in every step.
        tokenizer: None takes the teacher's.
        objective: 'masked' or 'causal'. Default: the teacher's.
    """

    student: Mapping[str, Any]
    data: DataSection
    arguments: Mapping[str, Any] = field(default_factory=dict)
    teacher: TeacherSection | None = None
    growth: GrowthSection | None = None
    cache: CacheSection | None = None
    tokenizer: TokenizerSection | None = None
    objective: Literal["masked", "causal"] | None = None


_SECTIONS = {"teacher": TeacherSection, "growth": GrowthSection, "cache": CacheSection}
_SECTIONS |= {"tokenizer": TokenizerSection, "data": DataSection}
_MAPPINGS = (*_SECTIONS, "student", "arguments")


def read_recipe(path: str | Path, options: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `--name value` options.

    The record of a student, `dwt_recipe.json`, can be read as well: it holds the recipe that it was trained by.

    An option names a key of any section (`--max-steps 100`, `--length 64`), or section and key
    (`--teacher.name ./small`); `-` and `_` are the same. Values are YAML.

    Raises:
        RecipeError: If the file is missing or no recipe, or a key or value is not known.
    """
    content: Any = read_sections(path, "recipe")
    if "schema_version" in content:
        content = content.get("recipe")
        if content is None:
            raise RecipeError(f"{path} is the record of a student that was not trained by a recipe.")
    if isinstance(content.get("teacher"), str):
        content["teacher"] = {"name": content["teacher"]}
    _require_mappings(content)
    for name, value in parse_options(options):
        _apply(content, name, value)
        _require_mappings(content)
    return make_recipe(content)


def _require_mappings(content: Mapping[str, Any]) -> None:
    for name in _MAPPINGS:
        if not isinstance(content.get(name) or {}, dict):
            raise RecipeError(f"`{name}` should be a mapping, got {content[name]!r}.")


def make_recipe(content: Mapping[str, Any]) -> Recipe:
    """Check a recipe's content and make a `Recipe` of it.

    Raises:
        ValueError: If a key or value is not known or wrong, or a key is missing.
    """
    check_keys("the recipe", content, names_of(Recipe))
    sections = dict(content)
    for name, section in _SECTIONS.items():
        if sections.get(name) is not None:
            check_section(name, sections[name], section)
            sections[name] = section(**sections[name])
    missing = [name for name in ("student", "data") if not sections.get(name)]
    if missing:
        raise RecipeError(f"The recipe has no `{missing[0]}`.")
    sections["data"].check()
    if sections.get("cache") is not None:
        sections["cache"].check()
    if not isinstance(sections["student"], Mapping):
        raise RecipeError(f"`student` should be a mapping, got {sections['student']!r}.")
    refuse_empty(sections["student"])
    if "dtype" in sections["student"]:
        check_type("student.dtype", sections["student"]["dtype"], Literal["float32", "bfloat16", "float16"] | None)
    if "model_type" in sections["student"]:
        check_keys("`student`", sections["student"], config_fields(sections["student"]["model_type"]))
    for name, use in (("growth", "makes the student out of the teacher"), ("cache", "keeps what the teacher says")):
        if sections.get(name) is not None and sections.get("teacher") is None:
            raise RecipeError(f"`{name}` {use}, but the recipe has no `teacher`.")
    check_type("objective", sections.get("objective"), get_type_hints(Recipe)["objective"])
    check_section("arguments", sections.get("arguments") or {}, _arguments_class())
    return Recipe(**{**sections, "arguments": sections.get("arguments") or {}})


def _arguments_class() -> type:
    from hf_dwt.arguments import DWTTrainingArguments

    return DWTTrainingArguments


def _apply(content: dict[str, Any], name: str, value: Any) -> None:
    """Set one option in the section whose key it is; what no section knows is a field of the student."""
    section, dot, key = name.partition(".")
    if not dot:
        if name == "teacher":
            content["teacher"] = None if value is None else {"name": value}
            return
        if name in names_of(Recipe):
            content[name] = value
            return
        homes = [home for home, known in _option_homes().items() if name in known]
        if len(homes) > 1:
            raise RecipeError(f"`--{name}` could be any of {', '.join(f'--{home}.{name}' for home in homes)}.")
        known = student_fields(content)
        if not homes and name not in known:
            hint = suggestion(name, [*chain.from_iterable(_option_homes().values()), *known])
            if name in chain.from_iterable(FIELDS.values()):
                hint = f"A field of the student is written `--student.{name}`."
            raise RecipeError(f"There is no option `--{name}`. {hint}")
        section, key = (homes or ["student"])[0], name
    if section not in names_of(Recipe):
        raise RecipeError(f"There is no section `{section}`. {suggestion(section, names_of(Recipe))}")
    if section not in _MAPPINGS:
        raise RecipeError(f"`{section}` has no keys: write `--{section} VALUE`.")
    if content.get(section) is None:
        content[section] = {}
    content[section][key] = value


def _option_homes() -> dict[str, list[str]]:
    homes = {name: names_of(section) for name, section in _SECTIONS.items()}
    return {**homes, "arguments": names_of(_arguments_class())}
