"""Which runs are compared, and what is said of pairs that are not alike."""

from inspect import signature

import pytest
from study_lines import arm, content, lines

from benchmarks.study.cells import choices_of
from benchmarks.study.contrasts import (
    ALONE,
    DEFAULT_START,
    DEFAULT_WEIGHTING,
    arms_of,
    at_equal_cost,
    contrasts_of,
    cost_ratio,
    interactions_of,
)
from benchmarks.study.lines import as_planned, policy_in_words
from hf_dwt import DWTTrainingArguments, from_weak_teacher

LOSSES = {1: 0.50, 2: 0.52, 3: 0.54}


def moved(by, losses=LOSSES, wobble=0.001):
    """Losses of other runs of the same seeds, so much apart, with some spread."""
    return {seed: loss + by + wobble * (seed - 2) for seed, loss in losses.items()}


def contrast(contents, factor, name=None):
    found = [each for each in contrasts_of("quality", lines(contents)) if each.factor == factor]
    return found[0] if name is None else next(each for each in found if each.arm == name)


def test_an_arm_is_compared_with_the_student_alone_of_the_same_everything():
    contents = [*arm("alone", LOSSES), *arm("taught", moved(-0.05), teacher="small")]
    for decoy in ({"steps": 200}, {"size": "4x256"}, {"dropout": 0.1}, {"part": "tuning"}, {"inputs": "speeches"}):
        contents += arm(f"decoy {decoy}", moved(9), **decoy)
    found = contrast(contents, ALONE, "taught")
    assert found.paired.difference.mean == pytest.approx(-0.05)
    assert found.against == "alone"
    assert found.flags == ()


def test_dropout_is_compared_with_dropout():
    contents = [*arm("alone", LOSSES), *arm("alone-dropout", moved(0.1), dropout=0.1)]
    contents += arm("taught-dropout", moved(0.05), teacher="small", dropout=0.1)
    assert contrast(contents, ALONE, "taught-dropout").paired.difference.mean == pytest.approx(-0.05)


def test_the_reference_may_have_been_run_for_another_part():
    contents = [*arm("alone", LOSSES, part="base"), *arm("taught", moved(-0.05), teacher="small")]
    assert contrast(contents, ALONE).against == "base/alone"


def test_seeds_that_only_another_part_has_are_no_gap():
    contents = [*arm("alone", {**LOSSES, 11: 0.5, 12: 0.5}, part="base"), *arm("taught", moved(-0.05), teacher="small")]
    assert contrast(contents, ALONE).flags == ()


def test_crossings_that_nobody_asked_for_are_no_comparisons():
    linear = arm("linear", LOSSES, teacher="small", weighting="linear")
    contents = [*linear, *arm("four", LOSSES, teacher="small", soft_loss_weight=4.0)]
    assert [each.factor for each in contrasts_of("quality", lines(contents))] == [ALONE, ALONE]


def test_weights_and_temperatures_are_compared_with_constant_one_and_temperature_one():
    contents = [*arm("alone", LOSSES), *arm("constant", moved(0.1), teacher="small")]
    contents += arm("linear", moved(0.07), teacher="small", weighting="linear", soft_loss_weight=4.0)
    contents += arm("warm", moved(0.13), teacher="small", temperature=2.0)
    assert contrast(contents, "weighting").paired.difference.mean == pytest.approx(-0.03)
    assert contrast(contents, "temperature").paired.difference.mean == pytest.approx(0.03)
    assert [each.arm for each in contrasts_of("quality", lines(contents)) if each.factor == "weighting"] == ["linear"]


def test_weights_and_starts_are_compared_with_the_defaults_too():
    contents = [*arm("alone", LOSSES), *arm("constant", moved(0.1), teacher="small")]
    contents += arm("inheritance", moved(-0.05), teacher="small", weighting="inheritance")
    contents += arm("handover", moved(-0.01), teacher="small", weighting="handover")
    contents += arm("exact", moved(-0.06), start="exact", grown_from="small")
    contents += arm("aki", moved(-0.09), start="aki", grown_from="small")
    of_weights = [each for each in contrasts_of("quality", lines(contents)) if each.factor == DEFAULT_WEIGHTING]
    assert [(each.arm, each.against) for each in of_weights] == [("handover", "inheritance")]
    assert of_weights[0].paired.difference.mean == pytest.approx(0.04)
    of_starts = [each for each in contrasts_of("quality", lines(contents)) if each.factor == DEFAULT_START]
    assert [(each.arm, each.against) for each in of_starts] == [("aki", "exact")]
    assert of_starts[0].paired.difference.mean == pytest.approx(-0.03)


def test_the_defaults_are_those_of_the_package():
    assert policy_in_words({"weighting": DWTTrainingArguments("unused").weighting}) == "inheritance"
    assert signature(from_weak_teacher).parameters["method"].default == "exact"


def test_p_values_are_adjusted_within_a_factor_only():
    contents = [*arm("alone", LOSSES), *arm("a", moved(0.1, wobble=0.05), teacher="a")]
    contents += arm("b", moved(0.1, wobble=0.05), teacher="b", temperature=2.0)
    contents += arm("b-cold", moved(0.1, wobble=0.05), teacher="b")
    family = [each for each in contrasts_of("quality", lines(contents)) if each.factor == ALONE]
    assert [each.adjusted for each in family] == pytest.approx([3 * each.paired.p for each in family])
    assert [each.factor for each in contrasts_of("quality", lines(contents))].count("temperature") == 1


def test_unpaired_seeds_are_left_out_and_said():
    contents = [*arm("alone", LOSSES), *arm("taught", {1: 0.4, 2: 0.42, 9: 99.0}, teacher="small")]
    found = contrast(contents, ALONE)
    assert found.paired.difference.mean == pytest.approx(-0.1)
    assert "left out, since only one of the two was run: seeds 3, 9" in found.flags


@pytest.mark.parametrize("part", ["tuning", "teachers"])
def test_runs_that_tuned_or_trained_a_teacher_are_no_reference(part):
    found = contrast([*arm("alone", LOSSES, part=part), *arm("taught", moved(-0.05), teacher="small")], ALONE)
    assert found.paired is None


def test_a_missing_reference_is_said_and_nothing_is_compared():
    found = contrast(arm("taught", LOSSES, teacher="small"), ALONE)
    assert found.paired is None
    assert found.flags == ("the reference was not run",)


def test_a_pair_whose_teachers_differ_under_one_name_is_flagged():
    contents = [
        *arm("constant", LOSSES, teacher="small"),
        *arm("linear", moved(-0.1), teacher="small", weighting="linear"),
    ]
    assert contrast(contents, "weighting").flags == ()
    contents[-1]["teacher"]["fingerprint"] = "bbbb"
    flags = contrast(contents, "weighting").flags
    assert "pairs mix different weights under the teacher's name small" in flags
    assert "seeds mix 2 weights of small" in flags


def test_a_pair_on_other_held_out_examples_is_left_out_and_said():
    contents = [*arm("alone", LOSSES), *arm("taught", moved(-0.1), teacher="small")]
    contents[-1]["run"]["held_out"]["examples"] = "others"
    found = contrast(contents, ALONE)
    assert found.paired.seeds == (1, 2)
    assert "left out, since the held-out examples differ: seed 3" in found.flags


def test_equal_cost_needs_a_run_annealed_to_that_cost():
    taught = arm("taught", moved(-0.05), teacher="small")
    base = [*arm("alone", LOSSES), *taught]
    (found,) = [each for each in arms_of(lines(base)) if each.name == "taught"]
    assert cost_ratio(found) == pytest.approx(340 / 300)
    assert at_equal_cost(found, lines(base)) is None
    longer = arm("longer", moved(-0.08), steps=113)
    compared, steps = at_equal_cost(found, lines([*base, *longer]))
    assert steps == 113
    assert compared.difference.mean == pytest.approx(0.03)


def corners(grown_taught, teacher="small"):
    contents = [*arm("random-alone", LOSSES), *arm("random-taught", moved(-0.05), teacher=teacher)]
    contents += arm("grown-alone", moved(-0.10), start="exact", grown_from="small")
    return [*contents, *arm("grown-taught", grown_taught, start="exact", grown_from="small", teacher=teacher)]


def test_the_interaction_is_what_the_teacher_adds_after_growing_less_what_it_adds_before():
    (found,) = interactions_of("quality", lines(corners(moved(-0.09))))
    # +0.01 after growing, -0.05 before; of the wobbles one remains, 0.001 a seed: those of three corners cancel.
    assert found.difference.mean == pytest.approx(0.06)
    assert found.difference.interval is None or found.difference.interval[0] > 0
    assert (found.same_model, found.seeds) == (True, (1, 2, 3))


def test_effects_that_add_up_show_no_interaction():
    (found,) = interactions_of("quality", lines(corners(moved(-0.15, wobble=0.05), teacher="other")))
    low, high = found.difference.interval
    assert low < 0 < high
    assert not found.same_model


def test_a_missing_corner_is_named():
    contents = [each for each in corners(moved(-0.09)) if each["cell"]["arm"] != "random-taught"]
    (found,) = interactions_of("quality", lines(contents))
    assert found.difference is None
    assert found.missing == ("random, taught",)


def test_a_grown_student_is_compared_with_both_its_parents_ways():
    found = {
        each.factor: each
        for each in contrasts_of("quality", lines(corners(moved(-0.09))))
        if each.arm == "grown-taught"
    }
    means = {factor: round(each.paired.difference.mean, 6) for factor, each in found.items()}
    assert means == {ALONE: -0.09, "teaching": 0.01, "start": -0.04}


def test_arms_that_share_a_name_are_told_apart():
    contents = [content("taught", 1, 0.5, teacher="a", id="x"), content("taught", 1, 0.6, teacher="b", id="y")]
    assert [each.name for each in arms_of(lines(contents))] == ["taught (teacher a)", "taught (teacher b)"]


def test_a_run_that_two_parts_ask_for_belongs_to_both():
    run, other = content("alone", 1, 0.5), content("alone", 1, 0.5, part="start")
    placed = as_planned(lines([run]), [run["cell"], other["cell"]])
    assert [(each.part, each.loss) for each in placed] == [("quality", 0.5), ("start", 0.5)]
    assert choices_of(run["cell"]) == choices_of(other["cell"]) != choices_of({**other["cell"], "steps": 7})


def test_policies_are_named_with_their_weights():
    assert policy_in_words({"weighting": "constant"}) == "constant 1"
    assert policy_in_words({"weighting": "constant", "final_soft_loss_weight": 1.0}) == "constant 1"
    linear = {"weighting": "linear", "soft_loss_weight": 4.0, "final_soft_loss_weight": 0.0}
    assert policy_in_words(linear) == "linear 4 to 0"
    assert policy_in_words({"weighting": "handover", "weighting_kwargs": {"gap": 0.1}}) == "handover (gap 0.1)"
