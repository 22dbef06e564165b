"""Runs a notebook with small settings and stand-ins of its inputs, in a kernel of its own that does not outlive it."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from tiny_runs import WORDS, make_teacher, tokenizer

ROOT = Path(__file__).parents[2]
STEPS = 20
SPEECH = [
    "the cat sat on the mat and the dog ran over the hill before the sun had risen over the old house",
    "rain fell on the old house all night long and nobody heard the dog that ran over the hill",
    "my fellow citizens, the mat is old and the house is older, but the sun rises over both of them",
]
_MARK = "HF_DWT_TEST_OF_NOTEBOOKS"


def furnish(folder: Path) -> None:
    """Put stand-ins where the demo of the command line would put speeches and molecules: it leaves them alone."""
    speeches, molecules = folder / "runs/speeches", folder / "runs/molecules"
    speeches.mkdir(parents=True)
    for name, copies in {"train": 300, "held_out": 30}.items():
        (speeches / f"{name}.txt").write_text("\n".join(SPEECH * copies) + "\n")
    make_teacher().save_pretrained(molecules / "teacher")
    tokenizer().save_pretrained(molecules / "teacher")
    sentences = [" ".join((WORDS * 3)[start : start + 14]) for start in range(len(WORDS))]
    for name in ("train", "held_out"):
        (molecules / f"{name}.txt").write_text("\n".join(sentences * 20) + "\n")


def run_notebook(path: Path, folder: Path, environment: Mapping[str, str], timeout: float) -> dict[str, Any]:
    """Execute a copy in a folder and return it with its outputs; no process outlives the call.

    Args:
        path: The notebook.
        folder: Where it runs, and writes.
        environment: On top of this process's own.
        timeout: Seconds, > 0.

    Raises:
        AssertionError: If a cell fails, the time is over, or a process was left behind.
    """
    (folder / path.name).write_bytes(path.read_bytes())
    mark = uuid.uuid4().hex
    settings = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_ENDPOINT")}
    settings |= {"HF_DWT_NOTEBOOK_STEPS": str(STEPS), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", _MARK: mark}
    settings |= {"PIP_NO_INDEX": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *_python_path()])}
    # Nobody's settings are read, and nothing is left in anybody's home.
    for name in ("HF_HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        settings[name] = str(folder / "home" / name.lower())
    words = ["--to", "notebook", "--execute", "--output", "executed", f"--ExecutePreprocessor.timeout={timeout:.0f}"]
    command = [sys.executable, "-m", "nbconvert", *words, path.name]
    with (folder / "nbconvert.log").open("w+") as log:
        running = subprocess.Popen(command, cwd=folder, env={**settings, **environment}, stdout=log, stderr=log)
        try:
            code = running.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            left = list(processes_with(mark))
            for each in left:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(left)
            running.wait()
        log.seek(0)
        said = log.read()
    assert code is not None, f"{path.name} took longer than {timeout:.0f} seconds"
    assert code == 0, f"{path.name} failed:\n{said[-6000:]}"
    assert not left, f"{path.name} left processes behind: {left}"
    executed: dict[str, Any] = json.loads((folder / "executed.ipynb").read_text())
    return executed


def processes_with(mark: str) -> Iterator[psutil.Process]:
    """Processes that were started with a mark in their environment."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _python_path() -> list[str]:
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
