"""Intervals are Student's, differences are paired by seed."""

import numpy as np
import pytest
from scipy import stats

from hf_dwt.finetuning.statistics import paired_difference, summarise

SCORES = [0.71, 0.74, 0.69, 0.75, 0.72]


def test_mean_deviation_and_interval_are_those_of_scipy() -> None:
    summary = summarise(SCORES)
    low, high = stats.t.interval(0.95, len(SCORES) - 1, loc=np.mean(SCORES), scale=stats.sem(SCORES))
    assert summary.mean == pytest.approx(np.mean(SCORES))
    assert summary.deviation == pytest.approx(np.std(SCORES, ddof=1))
    assert summary.interval == pytest.approx((low, high))


def test_a_difference_is_paired_and_so_narrower_than_its_parts() -> None:
    better = {seed: score + 0.01 + 0.0001 * seed for seed, score in enumerate(SCORES)}
    difference = paired_difference(better, dict(enumerate(SCORES)))
    assert difference is not None
    assert difference.interval is not None
    assert 0 < difference.interval[0] < 0.0102 < difference.interval[1] < 0.011


def test_only_shared_seeds_are_compared() -> None:
    difference = paired_difference({0: 0.5, 1: 0.9}, {1: 0.8, 2: 0.1})
    assert difference is not None
    assert (difference.num_seeds, difference.mean) == (1, pytest.approx(0.1))
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5, 0.5]])
def test_one_seed_or_seeds_that_agree_get_no_interval(scores: list[float]) -> None:
    assert summarise(scores).interval is None
