"""The study's figures and numbers in words."""

from itertools import pairwise
from math import inf

import pytest

from benchmarks.study.plots import apart
from benchmarks.study.words import median_of


def test_labels_are_moved_apart_around_their_middle_and_others_stay():
    assert apart([0.1, 0.5, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.45, 0.55, 0.9])


def test_labels_that_are_pushed_into_others_push_them_too():
    moved = apart([0.3, 0.31, 0.4], 0.1)
    assert [b - a for a, b in pairwise(moved)] == pytest.approx([0.1, 0.1])


def test_a_median_tells_its_range_where_there_is_one():
    assert median_of([40.0, 40.0], ",.0f") == "40"
    assert median_of([1000.0, 2000.0, inf], ",.0f") == "2,000 (1,000 to never)"
