"""What several files of tests ask of the site's hooks."""

import importlib.util
from types import ModuleType

import pytest
from stand_ins import ROOT


@pytest.fixture(scope="session")
def building() -> ModuleType:
    """What the site takes from the repository."""
    spec = importlib.util.spec_from_file_location("building", ROOT / "docs/_building.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
