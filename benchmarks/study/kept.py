"""Trained teachers, kept beside the lines: another machine trains them to other weights, and goes on with these."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.study.cells import TEACHERS
from benchmarks.study.recipes import same_recipe
from benchmarks.study.running import FACTS

# What makes a model and says what was found of it; the facts come last, so that what has them is whole.
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", FACTS)


def recipe_in(folder: Path) -> Mapping[str, Any] | None:
    """The recipe by which the model of a folder was trained; None if there is no whole one."""
    path = folder / FACTS
    return json.loads(path.read_text()).get("recipe") if path.is_file() else None


def keep(results: Path, models: Path, name: str) -> None:
    """Copy a teacher that was just trained to the results, in the place of one that is there."""
    _copy(models / TEACHERS / name, results / TEACHERS / name)


def restore(results: Path, models: Path, name: str, recipe: Mapping[str, Any]) -> bool:
    """Copy a teacher from the results to where it is looked for, if there is one of this recipe; say whether."""
    kept = results / TEACHERS / name
    trained_by = recipe_in(kept)
    if trained_by is None or not same_recipe(trained_by, recipe):
        return False
    _copy(kept, models / TEACHERS / name)
    return True


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in _FILES:
        shutil.copyfile(source / file, target / file)
