"""Where a line of results comes from: code, versions, machine."""

import subprocess
from pathlib import Path
from typing import Any

from benchmarks.measuring import PACKAGES, environment
from hf_dwt import __version__

_REPOSITORY = Path(__file__).parents[2]


def commit() -> str:
    """This project's commit, marked where more than results has changed since."""
    described = _git("describe", "--always")
    changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return f"{described}-dirty" if changed else described or "not known"


def origin() -> dict[str, Any]:
    """Versions and machine."""
    known = environment()
    versions = {"hf_dwt": __version__, "python": known["python"]} | {name: known[name] for name in PACKAGES}
    return {"versions": versions, "machine": known["device"]}


def _git(*words: str) -> str:
    command = ["git", "-C", str(_REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
