"""Shares of several parameters are weighted by their entries."""

import pytest

from hf_dwt.remapping.shares import Shares, average


def test_a_large_parameter_counts_for_more_than_a_small_one() -> None:
    found = average([(Shares(1.0, 0.0, 0.0), 30), (Shares(0.0, 0.5, 0.5), 10)])
    assert (found.copied, found.split, found.new) == pytest.approx((0.75, 0.125, 0.125))


def test_the_average_of_equal_shares_is_that_share() -> None:
    share = Shares(0.2, 0.3, 0.5)
    found = average([(share, 1), (share, 1000)])
    assert (found.copied, found.split, found.new) == pytest.approx((0.2, 0.3, 0.5))


def test_pairs_that_are_made_one_by_one_are_read_once() -> None:
    assert average((Shares(1.0, 0.0, 0.0), size) for size in (1, 2)) == Shares(1.0, 0.0, 0.0)


def test_shares_print_as_percentages() -> None:
    assert str(Shares(0.5, 0.25, 0.25)) == "50.0% copied, 25.0% split, 25.0% new"
