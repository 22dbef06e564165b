"""What is released: a wheel of the package alone, made of the source distribution, with metadata that indexes take."""

import re
import shutil
import subprocess
import sys
import tarfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.version import Version

import hf_dwt

ROOT = Path(__file__).parents[1]
PARTS = ("hf_dwt", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution and the wheel that is built of it; what else lies about here is not there to slip in."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for part in (*PARTS, "tests", "benchmarks", "trainer_configs"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(source)]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def metadata(built: tuple[Path, Path]) -> bytes:
    with ZipFile(built[1]) as wheel:
        (name,) = (each for each in wheel.namelist() if each.endswith(".dist-info/METADATA"))
        return wheel.read(name)


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    with ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert "hf-dwt = hf_dwt.cli:main" in wheel.read(entry_points).decode()
        for licence in ("LICENSE", "hf_dwt/finetuning/data/WORDNET_LICENSE.txt"):
            assert any(name.endswith(f".dist-info/licenses/{licence}") for name in wheel.namelist())
    there = {path.relative_to(ROOT) for path in (ROOT / "hf_dwt").rglob("*") if path.is_file()}
    assert names == {path.as_posix() for path in there if "__pycache__" not in path.parts}
    assert {
        "hf_dwt/py.typed",
        "hf_dwt/finetuning/suites/glue.yaml",
        "hf_dwt/finetuning/metrics/accuracy/accuracy.py",
    } <= names


def test_the_source_distribution_holds_what_builds_the_wheel(built: tuple[Path, Path]) -> None:
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    with ZipFile(wheel) as archive_of_wheel:
        assert {name for name in archive_of_wheel.namelist() if ".dist-info/" not in name} <= names
    assert set(PARTS) <= names
    assert {name.split("/")[0] for name in names} - {*PARTS, "", "PKG-INFO", "setup.cfg", "hf_dwt.egg-info"} == set()


def test_the_metadata_is_what_an_index_takes(metadata: bytes, built: tuple[Path, Path]) -> None:
    found = Metadata.from_email(metadata, validate=True)
    assert found.name == "hf_dwt"
    assert str(found.version) == str(Version(hf_dwt.__version__))
    assert found.license_expression == "Apache-2.0"
    assert found.description_content_type == "text/markdown"
    assert (found.description or "").startswith("# hf_dwt")
    assert found.requires_python is not None
    assert [path.name.split("-")[:2] for path in built] == [
        ["hf_dwt", f"{hf_dwt.__version__}.tar.gz"],
        ["hf_dwt", hf_dwt.__version__],
    ]


def requirements(metadata: bytes) -> dict[str, Requirement]:
    message: Message = BytesParser().parsebytes(metadata)
    found = map(Requirement, message.get_all("Requires-Dist", []))
    return {each.name: each for each in found if each.name != "hf_dwt"}


def test_every_requirement_has_a_lower_bound_that_the_pinned_version_meets(metadata: bytes) -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    named = requirements(metadata)
    assert [name for name, each in named.items() if not any(part.operator == ">=" for part in each.specifier)] == []
    assert [name for name, each in named.items() if name in pinned and not each.specifier.contains(pinned[name])] == []


def test_the_lowest_versions_are_those_that_are_declared(metadata: bytes) -> None:
    listed = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "lowest.py")], capture_output=True, text=True, check=True
    ).stdout
    lowest = dict(line.split("==") for line in listed.splitlines())
    named = requirements(metadata)
    assert lowest.keys() == named.keys()
    assert [name for name, each in named.items() if not each.specifier.contains(lowest[name])] == []


def test_the_workflow_is_yaml_whose_actions_are_pinned_to_a_major_version() -> None:
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text())
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        assert all(("uses" in step) != ("run" in step) for step in steps)
        assert [step["uses"] for step in steps if "uses" in step and not re.search(r"@v\d+$", step["uses"])] == []
        # YAML takes an `on` without quotes for true.
        assert workflow.keys() == {"name", True, "permissions", "jobs"}
        assert workflow["permissions"] == {"contents": "read"}


def test_what_the_workflow_runs_is_there() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    targets = set(re.findall(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[0].split())
    used = {word for words in re.findall(r"\bmake ([a-z ]+)", text) for word in words.split()}
    assert used
    assert used <= targets
    assert [script for script in re.findall(r"\.ci/[\w.]+", text) if not (ROOT / script).is_file()] == []
