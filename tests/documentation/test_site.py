"""The site is built with warnings as errors, holds what it says, and needs nothing from elsewhere to be read."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from stand_ins import ROOT

import hf_dwt
import hf_dwt.data
import hf_dwt.plots
from hf_dwt.course import Course
from hf_dwt.evaluation.held_out import held_out_metrics
from hf_dwt.training_log import _GAP, _STUDENT, _TEACHER

LOGS = (ROOT / "docs/logs.md").read_text()
COMMANDS = ("train", "assess", "grow", "evaluate", "demo")


def build(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    own = {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(source), "NO_COLOR": "1"}
    run = {"cwd": source, "env": os.environ | own, "capture_output": True, "text": True, "timeout": 240}
    return subprocess.run(command, check=False, **run)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of each page of the built site."""
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")} | {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.css")
    }


# The built site


@pytest.mark.parametrize("package", [hf_dwt, hf_dwt.data, hf_dwt.plots], ids=lambda package: package.__name__)
def test_every_exported_name_has_a_place_in_the_reference(package: ModuleType, site: dict[str, str]) -> None:
    pages = "".join(text for name, text in site.items() if name.startswith("api/"))
    names = [name for name in package.__all__ if name != "__version__"]
    assert [name for name in names if f'id="{package.__name__}.{name}"' not in pages] == []


@pytest.mark.parametrize(
    "name", ["finetuning.cells.Cell", "finetuning.runs.Progress", "teacher.Origin", "weighting.Policy"]
)
def test_what_users_are_handed_has_a_place_in_the_reference(name: str, site: dict[str, str]) -> None:
    assert any(f'id="hf_dwt.{name}"' in text for page, text in site.items() if page.startswith("api/"))


def test_nothing_is_fetched_to_read_it(site: dict[str, str]) -> None:
    elsewhere = re.compile(
        r'<(?:script|img|iframe|source)[^>]+src="?(?:https?:)?//|<link[^>]+(?:stylesheet|preconnect)'
    )
    local = re.compile(r'<link rel="?stylesheet"? href="?(?!https?:|//)')
    for name, text in site.items():
        found = [each[0] for each in elsewhere.finditer(local.sub("", text))]
        assert found == [], name
        assert not re.search(r"url\([\"']?(https?:)?//|@import", text) or not name.endswith(".css"), name


def test_examples_of_docstrings_are_code_and_not_quotations(site: dict[str, str]) -> None:
    pages = {name: text for name, text in site.items() if name.startswith("api/")}
    assert all("<blockquote>" not in text for text in pages.values())
    assert sum("&gt;&gt;&gt;" in text for text in pages.values()) >= 6


def test_every_comment_that_asks_for_something_is_answered(site: dict[str, str], building: ModuleType) -> None:
    asked = re.compile(r"<!-- \w+\b.* -->")
    assert [name for name, text in site.items() if asked.search(text)] == []
    assert sum(len(building._DIRECTIVE.findall(path.read_text())) for path in ROOT.glob("docs/**/*.md")) >= 12


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_page_on_the_command_line_shows_what_help_prints(command: str, site: dict[str, str]) -> None:
    text = unescape(re.sub(r"<[^>]+>", "", site["cli.html"]))
    asked = [sys.executable, "-m", "hf_dwt.cli", *command.split(), "--help"]
    plain = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(asked, env=plain, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() in text


def test_configurations_and_results_can_be_opened_there(site: dict[str, str]) -> None:
    assert 'href="files/trainer_configs/deepspeed/zero3.json"' in site["scaling.html"]
    assert 'href="../files/benchmarks/results/cache-error.json"' in site["howto/teacher.html"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "line", "told"),
    [
        ("index.md", "[Nowhere](nowhere.md)", "nowhere.md"),
        ("speed.md", "9.99<!-- step-cpu.json/masked/alone/ratio -->", "docs/speed.md quotes old figures"),
    ],
    ids=["link", "figure"],
)
def test_a_page_that_is_wrong_fails_the_build(page: str, line: str, told: str, tmp_path: Path) -> None:
    for name in ("hf_dwt", "CHANGELOG.md", "trainer_configs", "benchmarks", "mkdocs.yml"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / page).open("a") as written:
        written.write(f"\n{line}\n")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    assert told in built.stdout + built.stderr


def test_every_page_has_its_place_in_the_navigation() -> None:
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=yaml.SafeLoader)["nav"]

    def pages(part: object) -> list[str]:
        if isinstance(part, str):
            return [part]
        parts = part.values() if isinstance(part, dict) else part
        return [page for each in parts for page in pages(each)]  # type: ignore[attr-defined]

    assert sorted(pages(nav)) == sorted(
        path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")
    )


# What the pages take from the repository


def test_links_of_an_included_file_lead_to_its_neighbours_or_nowhere(building: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "trainer_configs/deepspeed").mkdir(parents=True)
    (tmp_path / "trainer_configs/deepspeed/zero0.json").write_text("{}")
    text = (
        "# Title\n\n## One\n\n[a](deepspeed/zero0.json) [b](../LICENSE) [c](https://example.org) [d](#two)\n\n## Two\n"
    )
    (tmp_path / "trainer_configs/README.md").write_text(text)
    one = building.included("trainer_configs/README.md", ["One"], "howto/page.md", tmp_path)
    place = "../files/trainer_configs/deepspeed/zero0.json"
    assert one == f"## One\n\n[a]({place}) b [c](https://example.org) [d](#two)"
    assert building.included("trainer_configs/README.md", [], "page.md", tmp_path).startswith("## One")
    with pytest.raises(ValueError, match="has no section 'Three', only One, Two"):
        building.included("trainer_configs/README.md", ["Three"], "page.md", tmp_path)


def test_pages_show_their_part_of_the_study(building: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / building.STUDY
    report.parent.mkdir(parents=True)
    report.write_text("# The study\n\n## The weight of the soft loss\n\n4 to 1.\n\n## Costs\n\nMuch.\n")
    shown = building.filled_in("<!-- study: weight -->", "howto/weighting.md", tmp_path)
    assert shown.startswith("### The weight of the soft loss\n\n4 to 1.")
    assert "Much" not in shown
    assert "Much" in building.filled_in("<!-- study -->", "study.md", tmp_path)
    with pytest.raises(ValueError, match="has no heading with 'start', only The weight of the soft loss, Costs"):
        building.filled_in("<!-- study: start -->", "howto/start.md", tmp_path)


def test_links_out_of_the_pages_fit_the_site(building: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "benchmarks/results"
    results.mkdir(parents=True)
    (results / "step.json").write_text("{}")
    text = (
        "[raw](../../benchmarks/results/step.json) [study](../../benchmarks/results/study.md#costs) "
        "[code](../../setup.py) [page](../text.md) [part](#part)"
    )
    assert building.filled_in(text, "howto/start.md", tmp_path) == (
        "[raw](../files/benchmarks/results/step.json) [study](../study.md#costs) code [page](../text.md) [part](#part)"
    )


# What the pages list


def test_the_page_on_logs_lists_every_key() -> None:
    listed = set(re.findall(r"^\| `(\w+)`", LOGS, flags=re.MULTILINE))
    training = {*_STUDENT, *_TEACHER, *_GAP, "soft_loss_weight"} - {"teacher_positions"}
    source = inspect.getsource(Course)
    probed = set(re.findall(r'"((?:probe|handover)_\w+)":', source)) | {"probe_loss"}
    held_out = set(re.findall(r'"(loss|perplexity|accuracy|agreement)"\]?:? ', inspect.getsource(held_out_metrics)))
    held_out |= {"soft_loss", "teacher_hard_loss", "gap", "agreement", "loss"}
    assert listed == {*training, *probed, *(f"eval_{name}" for name in held_out)}


def test_the_page_on_weighting_lists_every_policy() -> None:
    from hf_dwt.weighting import _policies

    page = (ROOT / "docs/howto/weighting.md").read_text()
    own = {name for name, policy in _policies.items() if policy.__module__ == "hf_dwt.weighting"}
    assert set(re.findall(r"^\| `(\w+)`", page, flags=re.MULTILINE)) == own
