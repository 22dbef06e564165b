"""Sections of YAML files: what is written is checked against a dataclass, and a wrong key or value is named."""

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from hf_dwt.names import nearest


class RecipeError(ValueError):
    """Something in a recipe or a suite, or in the options that change it, is wrong."""


def read_sections(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a YAML file that is a mapping of sections.

    Args:
        path: Of the file.
        kind: What it is, in errors: 'recipe'.

    Raises:
        RecipeError: If it is missing, no YAML, or something else.
    """
    if not Path(path).is_file():
        raise RecipeError(f"There is no {kind} {str(path)!r}.")
    try:
        content = yaml.load(Path(path).read_text(), Loader=YamlLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} is no {kind}: it should be a mapping of sections.")
    return content


def names_of(section: type) -> list[str]:
    """Return the keys that a section knows."""
    return [each.name for each in fields(section)]


def check_section(name: str, content: Any, section: type) -> None:
    """Refuse content that is no section of this class, by name.

    Raises:
        RecipeError: If a key is missing or not known, or a value of a wrong type.
    """
    if not isinstance(content, Mapping):
        raise RecipeError(f"`{name}` should be a mapping, got {content!r}.")
    check_keys(f"`{name}`", content, names_of(section))
    for each in fields(section):
        if each.name in content:
            check_type(f"{name}.{each.name}", content[each.name], get_type_hints(section)[each.name])
        elif each.default is MISSING and each.default_factory is MISSING:
            raise RecipeError(f"`{name}` has no `{each.name}`.")


def check_keys(where: str, content: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse a key that is not known.

    Raises:
        RecipeError: If there is one.
    """
    for key in content:
        if key not in known:
            raise RecipeError(f"{where} has no key `{key}`. {suggestion(str(key), known)}")


def suggestion(given: str, known: Sequence[str]) -> str:
    """Name the nearest known key, or all of a few."""
    meant = nearest(given, known)
    if meant is not None:
        return f"Did you mean `{meant}`?"
    return f"Known: {', '.join(known)}." if len(known) < 30 else ""


def check_type(name: str, value: Any, hint: Any) -> None:
    """Check plain types and choices; whatever else a hint says is left to the class."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if Any in options or any(_fits(value, option) for option in options):
        return
    wanted = " or ".join(_describe(option) for option in options)
    raise RecipeError(f"`{name}` should be {wanted}, got {value!r}.")


def _fits(value: Any, option: Any) -> bool:
    if option is type(None):
        return value is None
    if get_origin(option) is Literal:
        return value in get_args(option)
    if option in (int, float):
        return isinstance(value, int if option is int else (int, float)) and not isinstance(value, bool)
    if option in (bool, str):
        return isinstance(value, option)
    if get_origin(option) is list:
        return isinstance(value, list) and all(_fits(each, *get_args(option)) for each in value)
    return isinstance(value, Mapping) if _is_mapping(option) else value is not None


def _is_mapping(option: Any) -> bool:
    return (get_origin(option) or option) in (Mapping, dict) or is_dataclass(option)


def _describe(option: Any) -> str:
    if get_origin(option) is Literal:
        return " or ".join(map(repr, get_args(option)))
    if get_origin(option) is list:
        return f"a list of {_describe(*get_args(option))}"
    if _is_mapping(option):
        return "a mapping"
    return {type(None): "empty", int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        option, str(option)
    )


class YamlLoader(yaml.SafeLoader):
    """YAML as people write it, and as YAML 1.2 has it: 5e-4 is a number, `no` is a word (as in `save_strategy: no`)."""


YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
YamlLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))
YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
