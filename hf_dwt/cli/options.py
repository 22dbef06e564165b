"""Options of the command line that change a recipe or name fields of a student."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_dwt.sections import RecipeError, YamlLoader, suggestion


def parse_options(options: Sequence[str]) -> list[tuple[str, Any]]:
    """Read `--name value` and `--name=value` pairs; values are YAML, `-` and `_` are the same.

    A value that begins with `--` is written behind `=`.

    Raises:
        RecipeError: If an option has no name or no value.
    """
    pairs = []
    remaining = list(options)
    while remaining:
        option = remaining.pop(0)
        if not option.startswith("--"):
            raise RecipeError(f"{option!r} is no option: write `--name value`.")
        name, equals, value = option[2:].partition("=")
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise RecipeError(f"`--{name}` has no value: write `--{name} VALUE`, of a switch `true`.")
            value = remaining.pop(0)
        try:
            pairs.append((name.replace("-", "_"), yaml.load(value, Loader=YamlLoader)))
        except yaml.YAMLError as error:
            raise RecipeError(f"The value of `--{name}`, {value!r}, is not YAML: {error}") from error
    return pairs


def student_fields(content: Mapping[str, Any]) -> list[str]:
    """Names that a recipe's student may be given: of its `model_type` or, without one, of a teacher in a folder."""
    student = content.get("student") or {}
    model_type = student.get("model_type") or (None if "name" in student else _type_of_folder(content.get("teacher")))
    return config_fields(model_type) if model_type else list(student)


def _type_of_folder(teacher: Any) -> str | None:
    """The architecture of a teacher that is here; one of the Hub is not asked for while options are read."""
    name = teacher.get("name") if isinstance(teacher, Mapping) else None
    path = Path(name).expanduser() / "config.json" if isinstance(name, str) else None
    if path is None or not path.is_file():
        return None
    from transformers import CONFIG_MAPPING

    try:
        model_type = json.loads(path.read_bytes()).get("model_type")
    except (ValueError, AttributeError):
        return None  # told by whoever reads the teacher
    return model_type if model_type in CONFIG_MAPPING else None


def config_fields(model_type: str) -> list[str]:
    """Names that the configuration of an architecture knows.

    Raises:
        RecipeError: If transformers has no such architecture.
    """
    from transformers import CONFIG_MAPPING

    if not isinstance(model_type, str):
        raise RecipeError(f"`student.model_type` should be text, got {model_type!r}.")
    if model_type not in CONFIG_MAPPING:
        raise RecipeError(f"There is no `model_type` {model_type!r}. {suggestion(model_type, list(CONFIG_MAPPING))}")
    config_class = CONFIG_MAPPING[model_type]
    return sorted({*config_class().to_dict(), *config_class.attribute_map})
