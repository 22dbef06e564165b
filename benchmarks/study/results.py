"""The results: a line of JSON for each cell, a file for each part, written by one process."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.study.cells import Cell, choices_of
from benchmarks.study.recipes import same_recipe
from hf_dwt.sections import RecipeError

TIMES = "times.jsonl"


class Results:
    """The lines of a folder.

    Args:
        folder: With a `.jsonl` file for each part; need not be there yet.

    Raises:
        RecipeError: If a line cannot be read; one that was cut off at the end of its file is left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []
        self._by_choices: dict[str, dict[str, Any]] = {}
        self._by_id: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.glob("*.jsonl")):
            if path.name != TIMES:
                for line in contents_of(path):
                    self._know(line)

    def find(self, cell: Cell) -> dict[str, Any] | None:
        """The line of a run with these choices, whatever part it was run for."""
        return self._by_choices.get(cell.choices)

    def loss_of(self, choices: str) -> float | None:
        """Final held-out loss of a run with these choices, see `Cell.choices`."""
        line = self._by_choices.get(choices)
        return None if line is None else float(line["final"]["loss"])

    def refuse_changes(self, cell: Cell, recipe: Mapping[str, Any]) -> None:
        """Refuse a cell that has a line, but of other choices or another recipe.

        Raises:
            RecipeError: If so; saying in what they differ.
        """
        line = self._by_id.get(cell.id, self.find(cell))
        if line is None:
            return
        before, now = line["cell"], cell.to_dict()
        told = []
        if choices_of(before) != cell.choices:
            keys = [key for key in {**before, **now} if key not in ("id", "part", "arm")]
            told = [_told(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]
        elif not same_recipe(line["recipe"], recipe):
            told = _differences("", line["recipe"], recipe)
        if told:
            raise RecipeError(
                f"The cell `{cell.id}` has a result of another run in {self.folder}: {'; '.join(told)}. Name the arm "
                f"anew, or take the line of `{before['id']}` out."
            )

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line, whole or not at all."""
        content = dict(line)
        append(self.folder / f"{content['cell']['part']}.jsonl", content)
        self._know(content)

    def _know(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self._by_choices.setdefault(choices_of(line["cell"]), line)
        self._by_id[line["cell"]["id"]] = line


def contents_of(path: Path) -> list[dict[str, Any]]:
    """The objects in the lines of a file, but for a last one that was cut off.

    Raises:
        RecipeError: If another one cannot be read.
    """
    *whole, _ = path.read_text().split("\n")
    lines = []
    for number, text in enumerate(whole, start=1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise RecipeError(f"{path}, line {number}, is no JSON: {error}") from error
    return lines


def append(path: Path, content: Mapping[str, Any]) -> None:
    """Write a line at the end of a file, after what is whole there, and see it on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        before = file.read()
        if not before.endswith(b"\n"):
            file.truncate(before.rfind(b"\n") + 1)
        file.write(json.dumps(content).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _told(key: str, before: Any, now: Any) -> str:
    return f"`{key}` was {before}, now {now}"


def _differences(where: str, before: Any, now: Any) -> list[str]:
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return [] if before == now or where == "arguments.output_dir" else [_told(where, before, now)]
    keys = {**before, **now}
    return [told for key in keys for told in _differences(f"{where}.{key}".lstrip("."), before.get(key), now.get(key))]
