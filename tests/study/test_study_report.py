"""The report: all that it must hold, from made-up lines, as Markdown and as one page that loads nothing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from study_lines import arm, content, lines, written

from benchmarks.study import sections
from benchmarks.study.config import Part
from benchmarks.study.lines import read_lines
from benchmarks.study.report import write
from benchmarks.study.sections import conditional_on
from benchmarks.study.weakness import standings

SEEDS = {1: 0.50, 2: 0.52, 3: 0.54}
PARTS = [
    Part("tuning", "Rates", (101,), {}, {"alone": {}}),
    Part("quality", "1. Teacher quality", (1, 2, 3), {}, {"alone": {}, "weak": {}, "never": {}}),
    Part("growth", "4. Growth & teaching", (1, 2, 3), {}, {"grown": {}}),
    Part("headline", "Headline", (1, 2, 3), {}, {"grown": {}}),
]


def moved(by, wobble=0.001):
    return {seed: loss + by + wobble * (seed - 2) for seed, loss in SEEDS.items()}


def study():
    contents = [
        content(f"rate-{rate:g}", 101, loss, part="tuning", learning_rate=rate)
        for rate, loss in ((1e-3, 0.5), (2e-3, 0.6))
    ]
    contents += [*arm("alone", SEEDS), *arm("weak", moved(-0.05), teacher="weak", teacher_loss=0.8)]
    contents += arm("bad", moved(0.05), teacher="bad", teacher_loss=1.5, fingerprint="bbbb")
    contents += arm("grown", moved(-0.1), part="growth", start="exact", grown_from="weak")
    contents += arm("grown-taught", moved(-0.08, 0.02), part="growth", start="exact", grown_from="weak", teacher="weak")
    for share, by in ((20, 0.2), (30, 0.1), (40, -0.02)):
        contents += arm(
            f"grown/share-{share}", moved(by), part="headline", start="exact", grown_from="weak", steps=share
        )
    return contents


@pytest.fixture
def report(tmp_path) -> tuple[str, str, Path]:
    markdown, page, _ = write(written(tmp_path / "lines", study()), PARTS, tmp_path / "out")
    return markdown.read_text(), page.read_text(), tmp_path / "out"


class Page(HTMLParser):
    """Notes what a page loads, which ids it has, and whether its elements are closed in order."""

    EMPTY = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.tags.append(tag)
        self.ids += [named["id"]] if "id" in named else []
        sources = ["src", "srcset", "data", "poster", "xlink:href", *(["href"] if tag != "a" else [])]
        self.loaded += [named[key] for key in sources if key in named]
        self.loaded += re.findall(r"url\(([^)]*)\)", " ".join(value or "" for value in named.values()))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page: str) -> Page:
    found = Page()
    found.feed(page)
    return found


def section(markdown: str, heading: str) -> str:
    return re.split(r"\n#+ ", markdown.split(f"# {heading}\n", 1)[1])[0]


def test_the_page_loads_nothing_and_is_closed_in_order(report):
    page = parsed(report[1])
    assert page.open == []
    assert "script" not in page.tags
    assert [each for each in page.loaded if not each.strip("'\"").startswith("#")] == []
    assert not re.search(r"@import|url\((?!#)", report[1])


def test_marks_of_markdown_become_elements_one_inside_of_the_other(report):
    text = "".join(re.split(r"<style.*?</style>|<svg.*?</svg>", report[1], flags=re.DOTALL))
    assert "`" not in text
    assert "**" not in text
    assert "<strong>molecules 4x128: the cheapest recipe, <code>grown</code>," in text


def test_a_page_that_loads_something_is_noticed():
    for source in (
        '<img src="https://a.b/c.png"/>',
        '<link href="https://a.b/c.css"/>',
        '<p style="background: url(x)">',
    ):
        assert parsed(source).loaded


def test_the_page_is_wellformed_without_an_id_twice(report):
    ids = parsed(report[1]).ids
    assert len(ids) == len(set(ids)) > 0
    ElementTree.fromstring(report[1].split("\n", 1)[1])


def test_references_inside_of_figures_lead_somewhere(report):
    page = parsed(report[1])
    assert {each.strip("'\"").removeprefix("#") for each in page.loaded} <= set(page.ids)


def test_the_page_is_made_for_phones_and_for_those_who_do_not_see_it(report):
    page = report[1]
    assert 'name="viewport"' in page
    assert page.count("<svg") == page.count('role="img"') == page.count("<title>") - 1 > 0
    assert page.count("<table>") == page.count("<caption>") == page.count('class="table"')


def test_markdown_links_figures_that_are_there(report):
    markdown, _, folder = report
    linked = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", markdown)
    assert {Path(path).stem for _, path in linked} >= {
        "differences-quality",
        "quality-quality-constant-1",
        "curves-molecules-4x128",
    }
    assert all((folder / path).is_file() for _, path in linked)
    assert len(list((folder / "study_figures").iterdir())) == len(linked)


def test_the_same_lines_make_the_same_bytes(report, tmp_path):
    contents = list(reversed(study()))
    write(written(tmp_path / "again", contents), PARTS, tmp_path / "out2")
    first = {path.relative_to(tmp_path / "out"): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    second = {path.relative_to(tmp_path / "out2"): path.read_bytes() for path in (tmp_path / "out2").rglob("*.*")}
    assert first == second


def test_verdicts_are_those_of_the_intervals(report):
    told = section(report[0], "Part quality")
    assert re.search(r"`weak` against `alone`.*\*\*helps\*\*, -0\.0500", told)
    assert re.search(r"`bad` against `alone`.*\*\*hurts\*\*, \+0\.0500", told)
    assert "'helps' for teachers of q from 0.811 to 0.811" in told
    assert "'hurts' for teachers of q from 0.338" in told


def test_the_first_section_tells_what_helps_and_what_hurts(report):
    told = section(report[0], "In short")
    outcome = r"\*\*helps\*\* `weak` -0\.0500 \[-[^;]+; \*\*hurts\*\* `bad` \+0\.0500 \[\+"
    assert re.search(rf"`quality`, less the student alone from a random start: {outcome}", told)
    assert "`growth`, less the same start alone: **no difference shown** `grown-taught` +0.0200 [-" in told


def test_each_policy_has_a_threshold_of_its_own(tmp_path):
    contents = study()
    for teacher, by in (("weak", 0.03), ("bad", 0.06)):
        contents += arm(f"linear-{teacher}", moved(by), teacher=teacher, weighting="linear", teacher_loss=0.8)
    markdown, *_ = write(written(tmp_path / "two", contents), PARTS, tmp_path / "out6")
    told = re.findall(r"By teacher quality, weights (.+?): (.+)", section(markdown.read_text(), "Part quality"))
    assert len(told) == 2
    assert "'helps' for teachers of q" in dict(told)["constant 1"]
    assert all("'helps' came out for no teacher" in text for weights, text in told if weights != "constant 1")


def test_other_lines_make_another_report(tmp_path, report):
    contents = study()
    for each in contents:
        if each["cell"]["arm"] == "weak":
            each["final"]["loss"] += 0.2
    markdown, *_ = write(written(tmp_path / "other", contents), PARTS, tmp_path / "out3")
    assert re.search(r"`weak` against `alone`.*\*\*hurts\*\*, \+0\.1500", section(markdown.read_text(), "Part quality"))


def test_the_models_that_a_part_rests_on_are_named(report):
    for part in ("quality", "growth"):
        assert "weak (trained by the study, seed 0)" in section(report[0], f"Part {part}")
    published = [*arm("alone", SEEDS), *arm("taught", moved(0.1), teacher="albert", training_operations=None)]
    assert (
        conditional_on("quality", lines(published))
        == "Conditional on these models, one of each name: albert (published)."
    )


def test_missing_cells_are_marked(report):
    markdown = report[0]
    assert "`quality/never/seed-1`, `quality/never/seed-2`" in section(markdown, "Part quality")
    assert "Missing" not in section(markdown, "Part growth")


def test_the_plan_tells_what_is_missing_and_what_parts_share(tmp_path):
    wanted = [*arm("twin", SEEDS, part="growth"), content("lacking", 1, part="growth", steps=77)]
    folder = written(tmp_path / "lines", study())
    markdown, *_ = write(folder, PARTS, tmp_path / "out", planned=[each["cell"] for each in [*study(), *wanted]])
    told = section(markdown.read_text(), "Part growth")
    assert "**Missing cells**, 1: `growth/lacking/seed-1`" in told
    assert re.search(r"\| twin \| 0\.5200 \| 0\.0200 \| 3 ", told)
    assert "never" not in section(markdown.read_text(), "Part quality").split("Missing")[-1]


def test_every_section_names_its_command(report):
    for part in ("quality", "growth"):
        assert f"`python -m benchmarks.study --only {part}`" in section(report[0], f"Part {part}")
    assert "`python -m benchmarks.study --only headline`" in report[0]


def test_the_headline_names_target_recipe_and_cost(report):
    told = section(report[0], "Part headline")
    assert "Target: 0.5200 nats" in told
    assert "`grown`" in told
    assert "at or below the aim of 0.40" in told
    assert "https://arxiv.org/abs/2405.15319" in report[0]


def test_the_summary_has_what_documents_quote_of_rates_and_of_the_headline(tmp_path):
    *_, path = write(written(tmp_path / "lines", study()), PARTS, tmp_path / "out")
    summary = json.loads(path.read_text())
    rates = {"rate 0.001, loss": 0.5, "rate 0.002, loss": 0.6}
    assert summary["tuning"] == {"molecules 4x128, random, alone, 100 steps": rates}
    grown = summary["headline"]["headline"]["grown"]
    assert grown["seeds"] == grown["seeds that reach it"] == 3
    losses = {share: grown[f"{share:g} of the budget"]["loss"] for share in (0.2, 0.3, 0.4)}
    assert losses == pytest.approx({0.2: 0.72, 0.3: 0.62, 0.4: 0.5})
    assert grown["0.4 of the budget"]["difference of loss"] == pytest.approx(-0.02)


def test_rules_say_how_far_the_lines_keep_them(tmp_path, report):
    assert "no seed that tuned is used elsewhere, and none that screened confirms" in report[0]
    assert "highest share of clipped steps of a run: molecules 0.00 %;" in report[0]
    clipped = content("clipped", 1, 0.5, part="confirmation_larger", clipped=0.25)
    contents = [*study(), content("alone", 101, 0.5), content("fresh", 11, 0.5, part="confirmation"), clipped]
    markdown, *_ = write(written(tmp_path / "broken", contents), PARTS, tmp_path / "out4")
    assert "broken by seed 101, which tuned too and broken by seed 1, which screened too" in markdown.read_text()
    assert "highest share of clipped steps of a run: molecules 25.00 %;" in markdown.read_text()


def test_the_curve_of_the_student_alone_is_of_the_seeds_that_have_a_teacher(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sections, "draw_curves", lambda alone, *_: drawn.append({line.seed for line in alone}))
    monkeypatch.setattr(sections, "as_svg", lambda *_: "<svg/>")
    found = lines([*study(), content("alone", 11, 0.4, part="confirmation")])
    sections.places(standings(found), found)
    assert drawn == [set(SEEDS)]


def test_learning_rates_show_the_grid_the_choice_and_an_edge(report):
    told = section(report[0], "Learning rates")
    assert "| 0.5000 | 0.6000 | 0.001 (at the edge of the grid) | 0.001 |" in told


def test_a_grid_that_is_not_whole_is_told(tmp_path):
    contents = [*study(), content("grown-rate", 101, 0.4, part="tuning", start="exact", grown_from="weak")]
    markdown, *_ = write(written(tmp_path / "lines", contents), PARTS, tmp_path / "out")
    assert "| 0.4000 | not run | 0.001 (others were not run) | 0.001 |" in section(
        markdown.read_text(), "Learning rates"
    )


def test_an_empty_folder_makes_a_report_that_says_so(tmp_path):
    (tmp_path / "lines").mkdir()
    markdown, page, _ = write(tmp_path / "lines", PARTS, tmp_path / "out")
    assert "Nothing of this part was run yet." in markdown.read_text()
    assert "No part asks for several budgets." in markdown.read_text()
    assert parsed(page.read_text()).open == []


def test_a_part_that_asks_for_budgets_without_a_target_says_so(tmp_path):
    planned = [content("grown", 1, part="headline", steps=steps)["cell"] for steps in (40, 100)]
    (tmp_path / "lines").mkdir()
    markdown, *_ = write(tmp_path / "lines", PARTS, tmp_path / "out", planned=planned)
    assert "there is no target" in section(markdown.read_text(), "Part headline")


def test_two_lines_of_one_cell_are_refused(tmp_path):
    folder = written(tmp_path / "lines", [content(), content()])
    with pytest.raises(ValueError, match=r"more than one line of quality/alone/seed-1: keep the one that counts"):
        read_lines(folder)


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    folder = written(tmp_path / "lines", [content()])
    with (folder / "quality.jsonl").open("a") as file:
        file.write(json.dumps(content(seed=2))[:-9])
    assert [line.seed for line in read_lines(folder)] == [1]


def test_a_recipe_of_a_model_that_is_no_weak_teacher_is_told(report, tmp_path):
    told = "`grown-near`: `near` is not weak beside the 4x128 student over 100 steps, see below."
    contents = [*study(), *arm("near", moved(-0.01), teacher="near", teacher_loss=0.51)]
    contents += arm("grown-near", moved(-0.1), part="headline", start="exact", grown_from="near", steps=40)
    markdown, *_ = write(written(tmp_path / "near", contents), PARTS, tmp_path / "out7")
    assert told in section(markdown.read_text(), "Part headline")
    assert "not weak beside" not in report[0]


def test_where_a_teacher_stands_beside_students_with_dropout_is_not_told_of_those_without(tmp_path):
    contents = [*study(), *arm("alone", {1: 0.79}, part="dropout", dropout=0.1)]
    contents += arm("weak", {1: 0.7}, part="dropout", dropout=0.1, teacher="weak", teacher_loss=0.8)
    folder = written(tmp_path / "lines", contents)
    assert {each.verdict for each in standings(read_lines(folder)) if each.baseline.dropout} == {"not weak"}
    markdown, *_ = write(folder, PARTS, tmp_path / "out8")
    assert "not weak beside" not in markdown.read_text()


def test_a_run_that_two_parts_share_is_counted_once(tmp_path):
    contents = [*study(), content("dropped", 1, 0.79, part="dropout", dropout=0.1)]
    twin = content("dropped", 1, 0.79, part="growth", dropout=0.1)
    planned = [each["cell"] for each in [*contents, twin]]
    markdown, *_ = write(written(tmp_path / "lines", contents), PARTS, tmp_path / "out", planned=planned)
    assert f"(1 of {len(contents)} runs have some)" in markdown.read_text()


def test_figures_for_documents_are_those_of_the_report(report):
    markdown, _, out = report
    found = json.loads((out / "study.json").read_text())
    assert set(found) == {"quality", "growth", "teachers", "headline", "tuning"}
    weak = found["quality"]["weak"]
    assert (weak["loss"], weak["seeds"], weak["verdict"]) == (pytest.approx(0.47), 3, "helps")
    low, mean, high = (weak[f"{which}difference of loss"] for which in ("lowest ", "", "highest "))
    assert f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" in section(markdown, "Part quality")
    assert "difference of loss" not in found["quality"]["alone"]
    assert found["teachers"]["molecules 4x128, 100 steps"]["weak"]["loss behind"] == pytest.approx(0.28)
    taught = found["growth"]["grown-taught"]
    assert taught["from the same start alone"]["difference of loss"] == pytest.approx(0.02)
    assert taught["difference of loss"] == pytest.approx(-0.08)
    told = found["headline"]["headline"]
    assert told["target loss"] == pytest.approx(0.52)
    assert f"{told['grown']['operations']:.3f}" in section(markdown, "Part headline")


def test_a_headline_whose_smaller_budgets_were_not_run_is_told_as_a_bound(report, tmp_path):
    told = "**These are upper bounds**: smaller budgets of `grown` were not run."
    contents = [each for each in study() if each["cell"]["arm"] != "grown/share-30"]
    markdown, *_ = write(written(tmp_path / "fewer", contents), PARTS, tmp_path / "out5")
    assert told in markdown.read_text()
    assert told not in report[0]
