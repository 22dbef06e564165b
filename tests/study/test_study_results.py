"""Lines of results: kept whole, found by what they are of, and never of another run than is asked for."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_study import cells, part, study

from benchmarks.study.budget import Budget, table
from benchmarks.study.cells import Cell, Planned, expand
from benchmarks.study.recipes import recipe_of
from benchmarks.study.results import Results, append, contents_of
from hf_dwt.sections import RecipeError


def a_cell(**own: Any) -> Cell:
    return cells(part(arms={"alone": own}))[0]


def line(cell: Cell, loss: float = 1.0, **own: Any) -> dict[str, Any]:
    recipe = recipe_of(study(), cell)
    return {"cell": cell.to_dict(), "recipe": recipe, "final": {"loss": loss}, "seconds": 3.0, "cores": 1, **own}


def test_a_line_is_found_again_by_its_choices_from_the_file_of_its_part(tmp_path: Path) -> None:
    cell, twin = a_cell(), cells(part("other", arms={"twin": {}}))[0]
    Results(tmp_path).add(line(cell, 1.25))
    assert (tmp_path / "part.jsonl").is_file()
    again = Results(tmp_path)
    assert again.loss_of(cell.choices) == 1.25
    found = again.find(twin)
    assert found is not None, "the same run, for another part"
    assert found["cell"]["id"] == cell.id
    assert again.find(a_cell(steps=11)) is None


def test_a_line_that_was_cut_off_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl"
    append(path, {"number": 1})
    with path.open("a") as file:
        file.write('{"number": 2, "los')
    assert contents_of(path) == [{"number": 1}]
    append(path, {"number": 3})
    assert [json.loads(text) for text in path.read_text().splitlines()] == [{"number": 1}, {"number": 3}]


def test_a_broken_line_in_the_middle_is_told(tmp_path: Path) -> None:
    (tmp_path / "part.jsonl").write_text('{"number": 1}\n{"num\n{}\n')
    with pytest.raises(RecipeError, match=r"part.jsonl, line 2, is no JSON"):
        Results(tmp_path)


def test_a_cell_whose_choices_have_changed_is_refused(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(line(a_cell()))
    results.refuse_changes(a_cell(), recipe_of(study(), a_cell()))
    changed = a_cell(steps=11)
    with pytest.raises(RecipeError, match=r"`part/alone/seed-1` has a result of another run .*`steps` was 10, now 11"):
        results.refuse_changes(changed, recipe_of(study(), changed))


def test_a_cell_whose_recipe_has_changed_is_refused_too_but_not_for_the_folder_of_its_student(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(line(a_cell()))
    recipe = recipe_of(study(), a_cell())
    elsewhere = {**recipe, "arguments": {**recipe["arguments"], "output_dir": "./elsewhere"}}
    results.refuse_changes(a_cell(), elsewhere)
    other = {**recipe, "arguments": {**recipe["arguments"], "warmup_steps": 0.3}}
    with pytest.raises(RecipeError, match=r"`arguments.warmup_steps` was None, now 0.3"):
        results.refuse_changes(a_cell(), other)


# The budget


def test_a_cell_of_several_parts_is_counted_once(tmp_path: Path) -> None:
    own = study()
    shares = {each.part: each for each in Budget(own, Results(tmp_path)).shares(expand(own, lambda _: None))}
    assert {part: (each.num_done, each.num_missing) for part, each in shares.items()} == {
        "teachers": (0, 2),
        "first": (0, 2),
        "second": (0, 1),
    }


def test_what_is_done_counts_as_measured_and_gives_the_rate_for_what_is_missing(tmp_path: Path) -> None:
    own = study(parts=[part(arms={"alone": {}, "longer": {"steps": 1000}})])
    alone, longer = [each.cell for each in expand(own, lambda _: None)][2:]
    results = Results(tmp_path)
    by_constant = Budget(own, results)
    assert by_constant.seconds(longer) == 1 + by_constant.operations(longer) / 1e9
    results.add({**line(alone), "seconds": 1 + by_constant.operations(alone) / 5e6})
    budget = Budget(own, results)
    assert budget.seconds(longer) == pytest.approx(1 + by_constant.operations(longer) / 5e6)
    (share,) = budget.shares([Planned(alone), Planned(longer)])
    assert (share.num_done, share.num_missing) == (1, 1)
    assert share.done == pytest.approx(results.lines[0]["seconds"] / 3600)
    assert share.missing == pytest.approx(budget.seconds(longer) / 3600)
    with (console := Console()).capture() as shown:
        console.print(table([share]))
    assert shown.get().splitlines()[-1].split()[:4] == ["all", "2", "1", "1"]


def test_evaluations_and_the_teacher_are_in_the_budget(tmp_path: Path) -> None:
    budget = Budget(study(), Results(tmp_path))
    alone, taught = cells(part(arms={"alone": {}, "taught": {"teacher": "weak"}}))
    training = budget.operations(cells(part(arms={"longer": {"steps": 20}}))[0]) - budget.operations(alone)
    assert budget.operations(alone) > 1.1 * training, "of as many steps again"
    assert budget.operations(taught) > budget.operations(alone)
