"""Paired differences, intervals and adjusted p values of the study, against values worked out elsewhere."""

from math import exp, log

import pytest

from benchmarks.study.statistics import holm, p_value, paired, verdict
from hf_dwt.finetuning.statistics import Summary


def test_the_interval_is_that_of_students_table():
    losses = {seed: 1 + seed / 100 for seed in (1, 2, 3, 4, 5)}
    found = paired(losses, dict.fromkeys(losses, 1.0))
    # Of 4 degrees of freedom the table has 2.776; the standard deviation of 1 to 5 is 1.5811.
    reach = 2.776 * 0.015811 / 5**0.5
    assert found.difference.mean == pytest.approx(0.03)
    assert found.difference.interval == pytest.approx((0.03 - reach, 0.03 + reach), abs=1e-5)


def test_p_is_that_of_the_paired_t_test():
    from scipy.stats import ttest_rel

    losses, reference = [0.51, 0.48, 0.55, 0.50], [0.50, 0.49, 0.50, 0.47]
    found = paired(dict(enumerate(losses)), dict(enumerate(reference)))
    assert found.p == pytest.approx(ttest_rel(losses, reference).pvalue)
    # The same losses unpaired tell another story.
    assert found.p != pytest.approx(p_value([a - b for a, b in zip(losses, reversed(reference), strict=True)]))


def test_log_ratios_are_of_losses_of_one_seed():
    found = paired({1: 0.2, 2: 0.8}, {1: 0.1, 2: 0.2})
    assert found.ratio == pytest.approx(exp((log(2) + log(4)) / 2))


def test_a_seed_without_a_partner_is_left_out_and_named():
    found = paired({1: 0.5, 2: 0.6, 9: 100.0}, {1: 0.4, 2: 0.4, 7: 0.0001})
    assert found.seeds == (1, 2)
    assert found.unpaired == (7, 9)
    assert found.difference.mean == pytest.approx(0.15)


def test_recipes_without_a_common_seed_are_not_compared():
    assert paired({1: 0.5}, {2: 0.5}) is None


@pytest.mark.parametrize("losses", [{1: 0.5}, {1: 0.5, 2: 0.5}])
def test_one_seed_or_no_spread_has_neither_interval_nor_p(losses):
    found = paired(losses, dict.fromkeys(losses, 0.4))
    assert found.difference.interval is None
    assert found.p is None


def test_holm_adjusts_as_in_the_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_differs_from_bonferroni_and_stays_below_one():
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.01, 0.02]) == pytest.approx([0.02, 0.02])


def test_a_missing_p_is_no_comparison_to_adjust_for():
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]


@pytest.mark.parametrize(
    ("interval", "told"),
    [((-0.2, -0.1), "helps"), ((0.1, 0.2), "hurts"), ((-0.1, 0.1), "no difference shown"), (None, "no interval")],
)
def test_the_verdict_is_the_intervals(interval, told):
    assert verdict(Summary(-0.15, 0.1, interval, 3)) == told
