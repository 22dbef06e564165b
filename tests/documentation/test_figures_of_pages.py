"""Figures that pages quote are those of the raw results, and are brought up to date by one command."""

import json
import re
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
from stand_ins import ROOT

from benchmarks.growth_table import count

PAGES = sorted(ROOT.glob("docs/**/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT / "docs").as_posix())
def test_a_page_quotes_what_was_measured(page: Path, figures: ModuleType) -> None:
    text = page.read_text()
    assert text == figures.up_to_date(text), "python docs/_figures.py brings it up to date"
    assert not re.search(r"<!-- \S.*(\.json|\.md)/", figures.without_sources(text)), "no figure stands before a source"


def test_pages_quote_figures_at_all(figures: ModuleType) -> None:
    assert sum(len(figures._QUOTED.findall(page.read_text())) for page in PAGES) > 300


def test_an_old_figure_is_replaced_and_sources_are_left_out(figures: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "benchmarks/results/demo").mkdir(parents=True)
    (tmp_path / "benchmarks/results/step.json").write_text(
        '{"one": {"arms": {"an arm": {"ratio": 0.75319, "lowest": 0.7, "highest": -0.8}}}}'
    )
    (tmp_path / "benchmarks/results/demo/run.json").write_text('{"loss": 1.23456}')
    arm = "step.json/one/an arm"
    text = f"4 to 3<!-- {arm}/ratio --> (-1 to 2.5<!-- {arm}/range -->), 0<!-- demo/run.json/loss -->. <!-- help -->"
    current = figures.up_to_date(text, tmp_path)
    assert figures.without_sources(current) == "4 to 0.75 (0.70 to -0.80), 1.235. <!-- help -->"
    assert figures.up_to_date(current, tmp_path) == current
    with pytest.raises(KeyError):
        figures.up_to_date("1<!-- step.json/two/ratio -->", tmp_path)


def test_several_figures_are_made_one_by_the_word_in_front(figures: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "benchmarks/results"
    results.mkdir(parents=True)
    for seed, (alone, taught) in enumerate([(2.0, 1.5), (2.0, 1.25), (3.0, 2.5)]):
        (results / f"alone{seed}.json").write_text(f'{{"loss": {alone}, "steps": {90 + seed}}}')
        (results / f"taught{seed}.json").write_text(f'{{"loss": {taught}}}')
    (results / "cache.json").write_text(
        '{"a": {"arms": {"early, k = 16": {"soft, %": -20.25}, "late, k = 16": {"soft, %": -58.8}, "late, k = 4": {}}},'
        ' "b": {"arms": {"early": {"other": 1}}}, "average": {"mean": 0.0039}}'
    )
    (results / "sweep.md").write_text(
        "# Sweep\n\n| | |\n|---|---|\n| built | 12 |\n| exact: x2 | 9 |\n| share | 75% |\n"
    )

    def shown(asked: str) -> str:
        return str(figures.figure(asked, tmp_path))

    assert shown("mean: alone*.json/loss minus taught*.json/loss") == "0.58"
    assert shown("deviation: alone*.json/loss minus taught*.json/loss") == "0.14"
    assert shown("largest: cache.json/*/*, k = 16/soft, %") == "58.8"
    assert shown("smallest: cache.json/*/*, k = 16/soft, %") == "20.2"
    assert shown("points: cache.json/average/mean") == "0.4"
    assert shown("alone1.json/steps") == "91"
    assert shown("sweep.md/built") == "12"
    assert shown("sweep.md/built minus sweep.md/exact: x2") == "3"
    with pytest.raises(ValueError, match="too many values"):
        shown("alone*.json/loss")
    with pytest.raises(ValueError, match="shorter than"):
        shown("mean: alone*.json/loss minus taught0.json/loss")
    for nothing in ("mean: nowhere*.json/loss", "largest: cache.json/*/*, k = 8/soft, %", "sweep.md/share"):
        with pytest.raises(KeyError):
            shown(nothing)


def test_the_picture_of_the_policies_is_what_the_policies_say(figures: ModuleType) -> None:
    drawn = figures.policies_as_svg()
    pinned = re.search(r"^matplotlib==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    if pinned is None or pinned[1] != matplotlib.__version__:
        pytest.skip(f"matplotlib {matplotlib.__version__} draws other lines than the pinned one")
    assert drawn == (ROOT / figures.POLICIES).read_text()


def test_the_counts_of_the_growth_sweep_are_those_of_its_lines(figures: ModuleType) -> None:
    lines = (ROOT / "benchmarks/results/growth_sweep.jsonl").read_text().splitlines()
    counts = count([json.loads(line) for line in lines])
    table = figures.content(ROOT / "benchmarks/results/growth_sweep.md")
    assert table == {name: number for name, number in counts.items() if isinstance(number, int)}
    assert table["dense and built tiny"] > 100


def test_figures_of_percent_and_words_with_loss_in_them_have_their_digits(figures: ModuleType) -> None:
    assert re.fullmatch(r"\d\.\d\d", figures.figure("profile-cpu.json/shares/stock/softmax and losses"))
    assert re.fullmatch(r"\d\.\d\d\d", figures.figure("cache-error.json/trained/live/held-out loss"))
