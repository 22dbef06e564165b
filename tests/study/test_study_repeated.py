"""Runs made again beside committed ones."""

from study_lines import arm, content, lines

from benchmarks.study.document import Paragraph, Table
from benchmarks.study.repeated import repeated

COMMITTED = lines(
    [
        *arm("alone", {1: 0.50, 2: 0.52, 3: 0.54}),
        *arm("weak", {1: 0.45, 2: 0.47, 3: 0.50}, teacher="weak"),
        *arm("bad", {1: 0.60, 2: 0.62, 3: 0.65}, teacher="bad"),
    ]
)


def rows(ours):
    (_, table) = repeated(ours, COMMITTED)
    assert isinstance(table, Table)
    return {row[0]: row for row in table.rows}


def test_each_recipe_stands_beside_the_committed_runs_of_the_same_choices_whatever_the_seed():
    ours = [
        content(seed=9, loss=0.51),
        content("weak", 9, 0.44, teacher="weak"),
        content("bad", 9, 0.49, teacher="bad"),
    ]
    found = rows(lines(ours))
    assert found["alone"][1:5] == ["0.5100 (9)", "0.5200", "0.0200", "3"]
    assert found["alone"][5:] == ["not run", "not run", "-"]
    assert found["weak"][5].startswith("-0.0700")
    assert found["weak"][6].startswith("-0.0467 [")
    assert found["weak"][7] == "yes"
    assert found["bad"][7] == "NO", "it helped here, and hurt there"


def test_other_recipes_teachers_and_tuning_have_no_row():
    ours = [content(), content("longer", steps=200), content("alone", 5, part="tuning"), content("t", part="teachers")]
    assert set(rows(lines(ours))) == {"alone"}


def test_that_nothing_can_be_compared_is_told():
    (only,) = repeated(lines([content(steps=7)]), COMMITTED)
    assert isinstance(only, Paragraph)
    assert "No recipe" in only.text
