"""Time to target: only runs annealed to a budget count, and costs are counted by hand here."""

from dataclasses import replace
from math import inf, log

import pytest
from study_lines import content, lines

from benchmarks.study.costs import training_operations
from benchmarks.study.crossing import crossing, share_of
from benchmarks.study.headline import headlines_of, parts_of_headlines
from benchmarks.study.lines import StepTime
from benchmarks.study.time_to_target import best_sentence, headline_blocks
from benchmarks.study.weakness import standings

SHARES = {0.2: 20, 0.3: 30, 0.4: 40, 0.55: 55, 0.75: 75, 1.0: 100}


def runs(losses, seed=1, **changes):
    """A taught recipe's runs, by the share that each was annealed to."""
    changes = {"part": "headline", "teacher": "small", **changes}
    return [
        content(f"taught/share-{share:g}", seed, loss, steps=SHARES[share], **changes) for share, loss in losses.items()
    ]


def alone(seed=1, loss=0.5, **changes):
    return content("alone/share-1", seed, loss, **{"part": "headline", **changes})


def headline(contents, times=()):
    (found,) = headlines_of("headline", lines(contents), times)
    return found


def taught(contents, times=()):
    (found,) = [each for each in headline(contents, times).recipes if each.choices.teacher]
    return found


# Crossings


def test_the_smallest_share_that_reaches_the_target_is_interpolated_in_log_loss():
    found = crossing({0.2: 0.8, 0.3: 0.6, 0.4: 0.4, 0.55: 0.3}, 0.5)
    assert found.share == 0.4
    assert found.interpolated == pytest.approx(0.3 + 0.1 * log(0.6 / 0.5) / log(0.6 / 0.4))


def test_a_share_that_meets_the_target_exactly_reaches_it():
    found = crossing({0.75: 0.6, 1.0: 0.5}, 0.5)
    assert (found.share, found.interpolated) == (1.0, pytest.approx(1.0))


def test_nothing_is_made_up_below_the_smallest_share():
    found = crossing({0.2: 0.4, 0.3: 0.3}, 0.5)
    assert (found.share, found.interpolated, found.at_most) == (0.2, 0.2, True)


def test_a_missing_neighbour_is_told_and_not_bridged():
    found = crossing({0.2: 0.8, 0.4: 0.4}, 0.5)
    assert (found.share, found.interpolated, found.missing) == (0.4, 0.4, 0.3)


def test_a_target_that_is_not_reached_is_infinitely_far():
    assert crossing({0.2: 0.8, 1.0: 0.51}, 0.5).share == inf


def test_a_larger_budget_that_misses_the_target_is_told():
    assert crossing({0.3: 0.6, 0.4: 0.4, 0.55: 0.55}, 0.5).fails_above == (0.55,)


def test_steps_that_are_no_share_of_the_budget_are_none():
    assert share_of(549, 1000) == 0.55
    assert share_of(500, 1000) is None


# Recipes


def test_a_curve_that_dips_below_the_target_in_mid_run_does_not_count():
    dipping = [content("taught/share-1", 1, 0.6, part="headline", teacher="small", curve=[(20, 0.1), (100, 0.6)])]
    found = taught([alone(), *dipping])
    assert found.mean.share == inf
    assert not found.num_reached
    # The same loss at the end of a run annealed to that budget does.
    assert taught([alone(), *dipping, *runs({0.2: 0.1})]).mean.share == 0.2


def test_costs_are_operations_relative_to_the_whole_stand_alone_run():
    found = taught([alone(), *runs({0.3: 0.6, 0.4: 0.5})])
    # 40 steps of 300 + 40 operations to 100 of 300; the teacher took 6,000.
    assert found.costs.operations == pytest.approx(40 * 340 / 30_000)
    assert found.costs.with_training == pytest.approx(40 * 340 / 30_000 + 6_000 / 30_000)


def test_an_interpolated_share_is_paid_for_in_between():
    found = taught([alone(), *runs({0.3: 0.6, 0.4: 0.4})])
    assert found.costs.operations == pytest.approx(found.mean.interpolated * 340 / 300)


def test_what_the_runs_operations_hold_is_what_counts_caches_and_probes_included():
    found = taught([alone(), *runs({0.2: 0.4}, operations=9_000)])
    assert found.costs.operations == pytest.approx(0.3)


def test_one_model_that_teaches_and_is_grown_from_is_trained_once():
    (same,) = lines([content(teacher="small", grown_from="small", start="exact")])
    (two,) = lines([content(teacher="small", grown_from="other", start="exact", parent_fingerprint="bbbb")])
    assert (training_operations(same), training_operations(two)) == (6_000, 12_000)


def test_the_training_of_a_published_teacher_is_not_known_and_not_zero():
    found = taught([alone(), *runs({0.2: 0.4}, training_operations=None)])
    assert found.costs.with_training is None
    assert found.costs.operations > 0


def test_times_are_steps_times_the_time_of_a_step_measured_alone():
    times = [StepTime("4x128", None, "random", 2.0), StepTime("4x128", "small", "random", 2.5)]
    contents = [alone(), *runs({0.2: 0.4})]
    assert taught(contents, times).costs.time == pytest.approx(20 * 2.5 / 200)
    assert taught(contents, times).costs.time_with_training is None
    teacher = content("small", 0, 0.8, part="teachers", size="2x64", steps=50)
    timed = taught([*contents, teacher], [*times, StepTime("2x64", None, None, 1.0)])
    assert timed.costs.time_with_training == pytest.approx(20 * 2.5 / 200 + 50 * 1.0 / 200)
    assert taught(contents, times[:1]).costs.time is None


def test_steps_after_a_handover_cost_as_those_alone():
    handed_over = runs({0.2: 0.4})
    handed_over[0]["run"]["taught_steps"] = 5
    times = [StepTime("4x128", None, None, 2.0), StepTime("4x128", "small", None, 3.0)]
    assert taught([alone(), *handed_over], times).costs.time == pytest.approx((15 * 2 + 5 * 3) / 200)


def test_seeds_have_their_own_targets_and_the_mean_has_the_mean_target():
    contents = [alone(1, 0.5), alone(2, 0.3)]
    contents += [*runs({0.2: 0.6, 0.3: 0.45}, 1), *runs({0.2: 0.6, 0.3: 0.32}, 2)]
    found = taught(contents)
    assert headline(contents).target == pytest.approx(0.4)
    assert [found.crossings[seed].share for seed in (1, 2)] == [0.3, inf]
    assert found.mean.share == 0.3
    assert (found.num_reached, found.median_share) == (1, inf)


def test_a_seed_without_a_stand_alone_run_is_left_out_and_named():
    contents = [alone(1, 0.5), *runs({0.2: 0.6, 0.3: 0.4}, 1), *runs({0.2: 0.01}, 9)]
    found = taught(contents)
    assert (found.mean.share, found.unpaired) == (0.3, [9])
    assert "left out for lack of a stand-alone run: seed 9" in text(contents)


def test_a_share_that_a_seed_lacks_stays_out_of_the_mean_and_is_named():
    contents = [alone(1), alone(2), *runs({0.2: 0.1, 0.3: 0.45}, 1), *runs({0.3: 0.45}, 2)]
    found = taught(contents)
    assert found.mean.share == 0.3
    assert (0.2, 2) in found.missing([1, 2])
    assert "0.2 of seed 2" in text(contents)


def test_the_student_alone_needs_its_own_budget():
    contents = [alone(), content("alone/share-0.75", 1, 0.55, steps=75, part="headline")]
    (found,) = headline(contents).recipes
    assert (found.name, found.mean.share, found.costs.operations) == ("alone", 1.0, pytest.approx(1.0))


def test_a_run_in_the_part_of_tuning_is_no_target():
    assert headlines_of("headline", lines([alone(part="tuning"), *runs({0.2: 0.1})])) == []


def test_a_tuning_run_of_more_steps_does_not_move_the_budget():
    contents = [alone(), alone(part="tuning", steps=200, id="tuning/long"), *runs({0.2: 0.4})]
    assert headline(contents).budget == 100


def test_the_cheapest_recipe_is_named_and_measured_against_the_aim():
    cheap, dear = runs({0.2: 0.4}), runs({0.75: 0.4}, weighting="linear", soft_loss_weight=4.0)
    dear = [{**each, "cell": {**each["cell"], "arm": "dear", "id": "headline/dear/seed-1"}} for each in dear]
    told = best_sentence(headline([alone(), *cheap, *dear]), "molecules 4x128")
    assert "`taught`" in told
    assert "0.227" in told
    assert "at or below the aim of 0.40" in told
    assert "above the aim" in best_sentence(headline([alone(), *dear]), "molecules 4x128")
    assert "no recipe has reached" in best_sentence(headline([alone(), *runs({1.0: 0.6})]), "molecules 4x128")


def test_a_rate_that_was_not_tuned_is_told():
    tuning = [
        content(f"rate-{rate}", 101, loss, part="tuning", learning_rate=rate)
        for rate, loss in ((1e-3, 0.5), (2e-3, 0.6))
    ]
    assert "not shown to be tuned" in text([alone()])
    assert "which ended lowest in its tuning" in text([alone(), *tuning])
    assert "not the best of its tuning" in text([alone(learning_rate=2e-3), *tuning])
    assert "which ended lowest in the tuning of 4x128" in text([alone(size="4x256"), *tuning])


def text(contents):
    read = lines(contents)
    (found,) = headlines_of("headline", read)
    return "\n".join(block.markdown() for block in headline_blocks(found, read, standings(read)))


def test_runs_of_one_recipe_at_two_rates_are_two_recipes():
    slow, fast = runs({0.2: 0.6, 0.3: 0.45}), runs({0.2: 0.4, 0.3: 0.35}, learning_rate=2e-3)
    for each in fast:
        each["cell"]["id"] += "/fast"
    found = [each for each in headline([alone(), *slow, *fast]).recipes if each.choices.teacher]
    assert sorted(each.mean.share for each in found) == [0.2, 0.3]
    assert replace(found[0].choices, steps=0) == replace(found[1].choices, steps=0)


def test_the_cheapest_recipe_may_be_another_one_if_its_teachers_training_counts():
    dear_teacher = runs({0.2: 0.4}, training_operations=15_000)
    cheap_teacher = runs({0.3: 0.4}, teacher="tiny", training_operations=300)
    for each in cheap_teacher:
        each["cell"] |= {"arm": "cheap-teacher", "id": "headline/cheap-teacher/seed-1"}
    told = best_sentence(headline([alone(), *dear_teacher, *cheap_teacher]), "molecules 4x128")
    assert "the cheapest recipe, `taught`" in told
    assert "the teacher's training included the cheapest is `cheap-teacher`, at 0.350" in told


def test_the_target_is_of_the_seeds_of_the_part():
    contents = [alone(11, 0.5), *runs({0.2: 0.4}, 11), content("alone", 1, 0.1, part="screening")]
    assert headline(contents).target == 0.5


def test_a_headline_is_asked_for_by_parts_with_several_budgets():
    contents = [alone(), *runs({0.2: 0.4}), content(), content("small", steps=50, part="tuning")]
    contents += [content("wide", size="4x256", steps=50)]
    assert parts_of_headlines(lines(contents)) == {"headline"}
    planned = [content(steps=steps, part="budgets")["cell"] for steps in (40, 100)]
    assert parts_of_headlines([], planned) == {"budgets"}
