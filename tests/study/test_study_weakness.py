"""Which teacher is weak, by the study's rule, and where it stands."""

import pytest
from study_lines import UNIGRAM, content, lines

from benchmarks.study.weakness import overtaken_at, standings
from hf_dwt.comparison import Point


def standing(curve, *, loss=0.5, teacher_loss=0.8, **changes):
    taught = content("taught", loss=0.45, teacher="small", teacher_loss=teacher_loss, **changes)
    (found,) = standings(lines([content("alone", loss=loss, curve=curve, **changes), taught]))
    return found


def test_a_teacher_overtaken_early_and_clearly_beaten_is_weak():
    found = standing([(0, 2.0), (20, 1.2), (40, 0.79), (100, 0.5)])
    (place,) = found.places
    assert (place.step, place.share) == (40, 0.4)
    assert place.behind == pytest.approx(0.3)
    assert found.verdict == "weak"


@pytest.mark.parametrize(
    ("curve", "loss"),
    [
        ([(0, 2.0), (50, 0.9), (60, 0.79), (100, 0.5)], 0.5),  # overtaken late
        ([(0, 2.0), (40, 0.79), (100, 0.78)], 0.78),  # beaten by too little
        ([(0, 2.0), (50, 1.2), (100, 0.9)], 0.9),  # never overtaken
    ],
)
def test_a_teacher_is_not_weak_if_one_of_both_conditions_fails(curve, loss):
    assert standing(curve, loss=loss).verdict == "not weak"


def test_half_of_the_budget_and_three_hundredths_are_just_enough():
    assert standing([(50, 0.75), (100, 0.5)], loss=0.75, teacher_loss=0.78125).verdict == "weak"


def test_a_teacher_that_is_weak_beside_some_seeds_only_is_not_called_weak():
    pair = [(seed, curve) for seed, curve in ((1, [(60, 0.7), (100, 0.5)]), (2, [(40, 0.7), (100, 0.5)]))]
    alone = [content("alone", seed, curve=curve) for seed, curve in pair]
    taught = [content("taught", seed, teacher="small") for seed, _ in pair]
    (found,) = standings(lines([*alone, *taught]))
    assert found.verdict == "weak beside 1 of 2 runs, not weak by the rule"


def test_the_level_is_the_mean_of_those_beside_each_run():
    alone = [content("alone", seed, loss=0.5) for seed in (1, 2)]
    taught = [content("taught", seed, teacher="small") for seed in (1, 2)]
    for line, level in zip(taught, (0.75, 0.78125), strict=True):
        line["teacher"]["curve_loss"] = level
    (found,) = standings(lines([*alone, *taught]))
    assert [place.level for place in found.places] == [0.75, 0.78125]
    assert found.level == 0.765625


def test_the_place_is_read_from_the_curves_examples_and_the_margin_from_the_whole_set():
    alone = content("alone", loss=0.5, curve=[(40, 0.7), (100, 0.5)])
    taught = content("taught", teacher="small", teacher_loss=0.8)
    taught["teacher"]["curve_loss"] = 0.6
    (found,) = standings(lines([alone, taught]))
    assert found.places[0].step == 100
    assert found.behind == pytest.approx(0.3)


def test_quality_is_the_share_of_the_way_from_the_unigram_model_to_the_student():
    assert standing([(100, 0.5)]).quality == pytest.approx((UNIGRAM - 0.8) / (UNIGRAM - 0.5))
    assert standing([(100, 0.5)], unigram_loss=None).quality is None


def test_runs_of_other_seeds_sizes_or_budgets_place_no_teacher():
    taught = content("taught", teacher="small")
    others = [content(seed=2), content(size="4x256"), content(steps=50), content(part="tuning"), content(dropout=0.1)]
    for other in others:
        assert standings(lines([other, taught])) == []


def test_overtaken_at_is_the_first_evaluation_at_or_below_the_level():
    curve = [Point(30, 3.0, 0.4), Point(10, 1.0, 0.9), Point(20, 2.0, 0.5)]
    assert overtaken_at(curve, 0.5) == 20
    assert overtaken_at(curve, 0.3) is None
