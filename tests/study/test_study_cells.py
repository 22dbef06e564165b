"""Cells: what a study's file expands to, which of them are the same run, and whose learning rate they take."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import CONTENT, cells, content, part, planned, study

from benchmarks.study.cells import Cell, expand
from benchmarks.study.config import make_study, read_study
from benchmarks.study.recipes import growing_of, recipe_of
from benchmarks.study.results import Results
from hf_dwt.cli.recipe import make_recipe
from hf_dwt.sections import RecipeError

ROOT = Path(__file__).parents[2]
STUDY, PAPER = ROOT / "benchmarks/study.yaml", ROOT / "trainer_configs/studies/paper.yaml"
RATES = [1e-3, 2e-3]


def test_what_varies_is_taken_in_turn_for_each_seed_and_names_the_cell() -> None:
    found = cells(part(seeds=(1, 2), vary={"temperature": [1, 4]}, arms={"taught": {"teacher": "weak"}}))
    assert [cell.id for cell in found] == [
        f"part/taught/temperature-{temperature}/seed-{seed}" for seed in (1, 2) for temperature in (1, 4)
    ]
    assert [(cell.temperature, cell.seed) for cell in found] == [(1.0, 1), (4.0, 1), (1.0, 2), (4.0, 2)]


def test_an_arm_overrides_its_part_and_the_part_the_defaults() -> None:
    (alone, long) = cells(part(steps=20, arms={"alone": {}, "long": {"steps": 30}}))
    assert (alone.steps, long.steps) == (20, 30)


def test_a_share_is_of_the_steps() -> None:
    found = cells(part(steps=1000, vary={"share": [0.2, 0.55, 1]}, arms={"alone": {}}))
    assert [cell.steps for cell in found] == [200, 550, 1000]


def test_a_cell_alone_has_no_weights_and_a_random_one_no_origin() -> None:
    alone, taught, grown = cells(part(arms={"alone": {}, "taught": {"teacher": "weak"}, "grown": {"start": "exact"}}))
    assert (alone.weighting, alone.temperature, alone.grown_from) == (None, None, None)
    assert (taught.weighting, taught.soft_loss_weight, taught.temperature, taught.grown_from) == ("linear", 4, 1, None)
    assert (grown.teacher, grown.grown_from) == (None, "weak")


def test_the_same_choices_are_the_same_run_whatever_part_names_them() -> None:
    one, other, third = cells(part("one", arms={"a": {}}), part("other", arms={"b": {}, "c": {"dropout": 0.1}}))
    assert one.choices == other.choices != third.choices
    assert one.id != other.id


def test_teachers_are_cells_of_their_own_and_come_first() -> None:
    first, second, *_ = expand(study(), lambda _: None)
    assert [first.cell.id, second.cell.id] == ["teachers/weak/seed-7", "teachers/other/seed-8"]
    assert recipe_of(study(), first.cell)["arguments"]["output_dir"] == "./teachers/weak"


# Learning rates


def tuning(**own: Any) -> dict[str, Any]:
    return part(
        "tuning", (101,), vary={"learning_rate": RATES}, arms={"alone": {}, "taught": {"teacher": "weak"}}, **own
    )


TUNED = part("tuned", (1,), learning_rate="tuned", arms={"alone": {}, "taught": {"teacher": "other"}})
LOSSES = {f"tuning/alone/learning-rate-{rate:g}/seed-101": loss for rate, loss in zip(RATES, (2.0, 1.5), strict=True)}


def test_a_tuned_rate_is_the_one_with_the_lowest_loss_of_its_family() -> None:
    taught = {f"tuning/taught/learning-rate-{rate:g}/seed-101": loss for rate, loss in zip(RATES, (1, 2), strict=True)}
    *_, alone, taught_cell = planned(tuning(), TUNED, losses={**LOSSES, **taught})
    assert (alone.cell.learning_rate, alone.waits_for) == (2e-3, ())
    assert taught_cell.cell.learning_rate == 1e-3, "of the taught family, whoever teaches"


def test_a_tuned_rate_waits_for_all_of_its_family() -> None:
    *_, alone, taught = planned(tuning(), TUNED, losses=LOSSES)
    assert alone.waits_for == ()
    assert taught.waits_for == tuple(f"tuning/taught/learning-rate-{rate:g}/seed-101" for rate in RATES)
    assert taught.cell.learning_rate is None


def test_a_rate_is_that_of_the_longest_runs_of_its_family() -> None:
    arms = {"half": {"share": 0.5, "vary": {"learning_rate": RATES}}, "alone": {"vary": {"learning_rate": RATES}}}
    half = {f"tuning/half/learning-rate-{rate:g}/seed-101": loss for rate, loss in zip(RATES, (0.1, 3), strict=True)}
    *_, alone = planned(part("tuning", (101,), arms=arms), {**TUNED, "arms": {"alone": {}}}, losses={**half, **LOSSES})
    assert alone.cell.learning_rate == 2e-3
    *_, alone = planned(part("tuning", (101,), arms=arms), {**TUNED, "arms": {"alone": {}}}, losses=LOSSES)
    assert alone.waits_for == (), "the others have only looked where to begin"


def test_a_rate_may_be_tuned_on_another_size_but_not_on_none() -> None:
    other = {**TUNED, "size": "small", "arms": {"alone": {}}}
    *_, found = planned(tuning(), {**other, "tuned_as": {"size": "large"}}, losses=LOSSES)
    assert (found.cell.size, found.cell.learning_rate) == ("small", 2e-3)
    with pytest.raises(
        RecipeError, match="No cell of the part `tuning` tunes the learning rate of `tuned/alone/seed-1`"
    ):
        planned(tuning(), other)


# Recipes


def test_a_cell_is_a_recipe_that_the_command_line_takes() -> None:
    own = study()
    taught = cells(part(arms={"taught": {"teacher": "weak", "dropout": 0.2}}))[0]
    recipe = make_recipe(recipe_of(own, taught))
    assert recipe.teacher is not None
    assert (recipe.teacher.name, recipe.growth) == ("./teachers/weak", None)
    chosen = {name: recipe.arguments[name] for name in ("weighting", "max_steps", "seed", "learning_rate")}
    assert chosen == {"weighting": "linear", "max_steps": 10, "seed": 1, "learning_rate": 1e-3}
    assert recipe.student["attention_probs_dropout_prob"] == recipe.student["hidden_dropout_prob"] == 0.2


def test_a_grown_student_alone_has_a_teacher_that_is_never_asked() -> None:
    recipe = recipe_of(study(), cells(part(arms={"grown": {"start": "stack", "growth": {"noise": 0.2}}}))[0])
    assert recipe["growth"] == {"method": "stack", "noise": 0.2}
    assert (recipe["arguments"]["weighting"], recipe["arguments"]["soft_loss_weight"]) == ("constant", 0)


def test_a_student_grown_from_another_model_than_its_teacher_is_grown_first() -> None:
    own = study()
    cell = cells(part(arms={"grown": {"start": "exact", "teacher": "other"}}))[0]
    recipe, growing = recipe_of(own, cell), growing_of(own, cell)
    assert growing is not None
    assert (growing["teacher"]["name"], growing["growth"]) == ("./teachers/weak", {"method": "exact"})
    assert recipe["teacher"]["name"] == "./teachers/other"
    assert recipe["student"]["name"].endswith("-start")
    assert "growth" not in recipe


def test_further_arguments_of_an_arm_are_in_its_recipe_and_make_it_another_run() -> None:
    plain, warmer = cells(part(arms={"plain": {}, "warmer": {"arguments": {"warmup_steps": 0.3}}}))
    assert recipe_of(study(), warmer)["arguments"]["warmup_steps"] == 0.3
    assert plain.choices != warmer.choices
    assert "arguments" not in plain.to_dict()


# What is refused


WRONG = [
    ({"defaults": {**CONTENT["defaults"], "sized": "large"}}, "has no key `sized`. Did you mean `size`?"),
    ({"inputs": {"molecules": {"objective": "masked"}}}, "`inputs.molecules` has no `data`"),
    ({"seconds_per_cell": "long"}, "`seconds_per_cell` should be a number"),
    ({"parts": {}}, "`parts` should be a list"),
    ({"parts": [part(arms={})]}, "the part `part` has no `arms`"),
    ({"parts": [part(seeds=(), arms={"a": {}})]}, "`seeds` of the part `part`"),
    ({"parts": [part(arms={"a": {"teacher": "week"}})]}, "`week`, which is no teacher. Did you mean `weak`"),
    ({"parts": [part(arms={"a": {"size": "larger"}})]}, "there is no size `larger`"),
    ({"parts": [part(arms={"a": {"start": "exactly"}})]}, "There is no method 'exactly'"),
    ({"parts": [part(arms={"a": {"start": "exact", "grown_from": None}})]}, "has no `grown_from`"),
    ({"parts": [part(arms={"a": {"teacher": "weak", "weighting": "linaer"}})]}, "Did you mean 'linear'"),
    ({"parts": [part(arms={"a": {"teacher": None, "weighting": "step"}})]}, "does not use `weighting`"),
    ({"parts": [part(arms={"a": {"learning_rate": "fast"}})]}, "`learning_rate` is a number or `tuned`"),
    ({"parts": [part(arms={"a": {"vary": {"steps": 3}}})]}, "`vary.steps` of the part `part` should be a list"),
    ({"parts": [part(arms={"a": {}}), part(arms={"a": {}})]}, "Two cells are called `part/a/seed-1`"),
    ({"teachers": {"weak": {"inputs": "molecules", "size": "small"}}}, "is not published and has no `steps`"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_wrong_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        expand(make_study(content(**changes), "wrong"), lambda _: None)


# The shipped studies


def without_rate(cell: Cell) -> str:
    return replace(cell, learning_rate=None).choices


def test_a_quick_study_repeats_cells_of_the_study_so_that_their_numbers_compare() -> None:
    whole, quick = read_study(STUDY), read_study(STUDY, "quick")
    results = Results(ROOT / "benchmarks/results/study")
    planned = expand(whole, results.loss_of)
    known = {each.cell.choices for each in planned if not each.waits_for}
    waiting = {without_rate(each.cell) for each in planned if each.waits_for}
    found = expand(quick, lambda _: None)
    odd = [each.cell for each in found if each.cell.choices not in known]
    strange = [cell.id for cell in odd if without_rate(cell) not in waiting]
    assert strange == [], "of another rate than tuning found, or of no part"
    assert {each.cell.part for each in found} >= {"weighting", "quality", "growth_and_teaching", "budgets", "start"}


@pytest.mark.parametrize("scale", [None, "quick", "smoke"])
def test_each_cell_of_the_study_has_a_recipe(scale: str | None) -> None:
    own = read_study(STUDY, scale)
    for each in expand(own, lambda _: 1.0):
        make_recipe(recipe_of(own, each.cell))
        assert each.waits_for == ()


def test_the_study_of_the_papers_size_has_the_papers_teachers_and_its_cells_are_recipes() -> None:
    own = read_study(PAPER)
    found = [each.cell for each in expand(own, lambda _: 1.0)]
    assert {cell.size for cell in found if cell.part != "teachers"} == {"6x768"}
    assert {cell.size for cell in found if cell.part == "teachers"} == {"4x768", "2x768", "1x768"}
    for cell in found:
        recipe = make_recipe(json.loads(json.dumps(recipe_of(own, cell))))
        assert recipe.arguments["per_device_train_batch_size"] == 16
    examples = 4_687_500 * 16 * own.num_processes
    assert examples == 20 * 30_000_000, "20 epochs of 30 million sentences"
