"""What several files of tests ask of the site's hooks."""

import importlib
import sys
from types import ModuleType

import pytest
from stand_ins import ROOT


def _from_docs(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="session")
def building() -> ModuleType:
    """What the site takes from the repository."""
    return _from_docs("_building")


@pytest.fixture(scope="session")
def figures() -> ModuleType:
    """The figures that pages quote."""
    return _from_docs("_figures")
