"""Each notebook runs, with small settings and stand-ins of its inputs, and is stored as a real run left it."""

import ast
import copy
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hub_guard import Wall
from notebook_runs import ROOT, STEPS, furnish, run_notebook

import hf_dwt
import hf_dwt.data
import hf_dwt.plots

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
STORED = {name: json.loads(path.read_text()) for name, path in NOTEBOOKS.items()}
PUBLIC = {module.__name__: module.__all__ for module in (hf_dwt, hf_dwt.data, hf_dwt.plots)}
MAX_BYTES = 700_000

# What a reader elsewhere has no use for: places and addresses of the machine, and the remains of progress bars.
_LITTER = re.compile(
    r"/(?:tmp|work|root|home|Users|usr|opt|var|mnt|content)/|127\.0\.0\.1|localhost|\d+it/s|it/s\]|Warning:|\[WARNING\]|\x1b\["
)


def cells(notebook: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def texts(value: Any) -> Iterator[str]:
    """Every text in an output, pictures left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        # Texts are stored as lists of lines.
        for each in ["".join(value)] if all(isinstance(each, str) for each in value) else value:
            yield from texts(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name != "image/png":
                yield from texts(each)


def kinds_of_output(notebook: dict[str, Any]) -> list[list[str]]:
    """What each code cell shows: streams, in however many pieces they came, and the kinds of what it displays."""
    shown = [[None, *map(_kind, cell["outputs"])] for cell in cells(notebook, "code")]
    return [
        [kind for before, kind in pairwise(kinds) if kind != before or kind not in ("stdout", "stderr")]
        for kinds in shown
    ]


def _kind(output: dict[str, Any]) -> str:
    return str(output.get("name") or " ".join(sorted(output.get("data", [output["output_type"]]))))


def faults(notebook: dict[str, Any]) -> list[str]:
    """What makes a stored notebook unfit to be shown."""
    found = []
    code = cells(notebook, "code")
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        found.append("its cells were not run once, from the first to the last")
    if notebook["metadata"]["kernelspec"]["name"] != "python3":
        found.append("it asks for a kernel of one machine")
    outputs = [output for cell in code for output in cell["outputs"]]
    if any(output["output_type"] == "error" for output in outputs):
        found.append("a cell failed")
    if any(output.get("name") == "stderr" for output in outputs):
        found.append("something was written to stderr")
    for output in outputs:
        found += [f"litter: {match[0]}" for text in texts(output) for match in _LITTER.finditer(text)]
        if "image/png" in output.get("data", {}) and not output["metadata"].get("image/png", {}).get("alt"):
            found.append("a picture has no text in its place")
    found += [f"{name} is not public" for name in private_names(notebook)]
    return [*found, *faults_of_time(notebook)]


def faults_of_time(notebook: dict[str, Any]) -> Iterator[str]:
    """Whether the first cell tells how long the stored run took, as the last one measured it."""
    opening, last = notebook["cells"][0], notebook["cells"][-1]
    if opening["cell_type"] != "markdown" or not source(opening).startswith("# "):
        yield "it does not open with what it shows"
    told = re.search(r"takes about (\d+) minutes?\b", source(opening))
    took = re.search(r"took ([\d.]+) minutes", "".join(texts(last.get("outputs", []))))
    if not (told and took and abs(int(told[1]) - float(took[1])) <= 1):
        yield f"it tells {told and told[1]} minutes, and took {took and took[1]}"


def private_names(notebook: dict[str, Any]) -> list[str]:
    """Names of the package that the cells import though they are none for users."""
    found = []
    for cell in cells(notebook, "code"):
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hf_dwt":
                found += [f"{node.module}.{a.name}" for a in node.names if a.name not in PUBLIC.get(node.module, ())]
            elif isinstance(node, ast.Import):
                found += [a.name for a in node.names if a.name.startswith("hf_dwt.") and a.name not in PUBLIC]
    return found


# As they are stored


def test_the_notebooks_are_there() -> None:
    wanted = {"01_quickstart", "02_how_good_is_your_teacher", "03_growing", "04_the_study", "05_scaling"}
    assert wanted == NOTEBOOKS.keys()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_stored_notebook_is_fit_to_be_shown(name: str) -> None:
    assert faults(STORED[name]) == []
    assert NOTEBOOKS[name].stat().st_size < MAX_BYTES


def _swap_counts(notebook: dict[str, Any]) -> None:
    code = cells(notebook, "code")
    code[0]["execution_count"], code[1]["execution_count"] = 2, 1


def _show(output: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda notebook: cells(notebook, "code")[1]["outputs"].append(output)


def _begin_with(text: str) -> Callable[[dict[str, Any]], None]:
    return lambda notebook: notebook["cells"][0].update(source=text)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (_swap_counts, "not run once"),
        (lambda notebook: notebook["metadata"]["kernelspec"].update(name="mine"), "kernel of one machine"),
        (_show({"output_type": "error", "ename": "E", "evalue": "", "traceback": []}), "a cell failed"),
        (_show({"output_type": "stream", "name": "stderr", "text": "hm"}), "stderr"),
        (_show({"output_type": "stream", "name": "stdout", "text": ["see\n", "/home/me/x"]}), "litter: /home/"),
        (_show({"output_type": "stream", "name": "stdout", "text": "UserWarning: x"}), "litter: Warning:"),
        (_show({"output_type": "stream", "name": "stdout", "text": "[now] [WARNING] no GPU"}), "litter: [WARNING]"),
        (_show({"output_type": "display_data", "data": {"image/png": ""}, "metadata": {}}), "no text in its place"),
        (
            lambda notebook: cells(notebook, "code")[1].update(source="from hf_dwt.heads import Head"),
            "hf_dwt.heads.Head",
        ),
        (_begin_with("Quick"), "does not open"),
        (_begin_with("# Quick\nIt takes about 99 minutes"), "tells 99 minutes"),
    ],
)
def test_what_is_unfit_is_noticed(damage: Callable[[dict[str, Any]], None], fault: str) -> None:
    notebook = copy.deepcopy(STORED["01_quickstart"])
    damage(notebook)
    assert any(fault in each for each in faults(notebook))


# As they run


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_shows_what_its_stored_run_shows(name: str, tmp_path: Path, wall: Wall) -> None:
    furnish(tmp_path)
    wall.asked.clear()
    executed = run_notebook(NOTEBOOKS[name], tmp_path, wall.environment(), timeout=500)
    assert not wall.asked, f"It has asked for other places than this machine: {wall.asked}"
    assert kinds_of_output(executed) == kinds_of_output(STORED[name])
    assert not any(list(tmp_path.glob(f"home/jupyter_runtime_dir/{each}")) for each in ("kernel-*.json", "*.lock"))
    said = "".join(texts([cell["outputs"] for cell in cells(executed, "code")]))
    if "HF_DWT_NOTEBOOK_STEPS" in "".join(map(source, cells(executed, "code"))):
        assert re.search(rf"\b{STEPS}\b", said), "small settings are taken"


# The first cell


def setup_cell(name: str) -> str:
    return source(cells(STORED[name], "code")[0])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_first_cell_does_nothing_where_the_package_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing is to be run"))
    before = list(sys.path)
    exec(setup_cell(name), {})
    assert sys.path == before
    assert cells(STORED[name], "code")[0]["outputs"] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_first_cell_asks_for_extras_that_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None)
    monkeypatch.setattr(subprocess, "run", lambda words, check: commands.append(words))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    exec(setup_cell(name), {})
    clone, install = commands
    assert clone[:2] == ["git", "clone"]
    assert sys.path[0] == clone[-1]
    extras = re.fullmatch(rf"{re.escape(clone[-1])}\[(.+)\]", install[-1])
    assert extras is not None
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{each} = \[", project, re.MULTILINE) for each in extras[1].split(","))


@pytest.mark.slow
def test_the_first_cell_makes_the_package_importable_where_it_is_missing(tmp_path: Path) -> None:
    origin, elsewhere = tmp_path / "origin", tmp_path / "elsewhere"
    shutil.copytree(ROOT / "hf_dwt", origin / "hf_dwt", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, origin / file)
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "-m", "All"]):
        subprocess.run(["git", *words], cwd=origin, check=True)
    venv.create(elsewhere, with_pip=False)
    # All but the package itself comes from this environment, pip included; none of its `.pth` files is read there.
    settings = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib"), "PIP_NO_INDEX": "1"}
    settings |= {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_DEPS": "1"}
    cell = setup_cell("01_quickstart").replace('"REPOSITORY"', repr(str(origin)))
    assert str(origin) in cell
    program = f"{cell}\nimport hf_dwt\nprint(hf_dwt.__file__)"
    command = [str(elsewhere / "bin/python"), "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "hf_dwt_repository")
    again = [str(elsewhere / "bin/python"), "-c", "import hf_dwt"]
    assert subprocess.run(again, cwd=elsewhere, env=settings, check=False).returncode == 0, "and it stays"
    assert find_spec("hf_dwt") is not None
