"""The measure of the report's claim, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from fathom.reproduce.relative_error import compare, last_half, smoothed


def test_the_average_begins_at_the_first_loss():
    assert smoothed([4.0, 2.0, 2.0]) == pytest.approx([4.0, 3.8, 3.62])
    assert smoothed([]) == []


def test_the_last_half_holds_the_middle_of_an_odd_number():
    assert last_half([1, 2, 3, 4]) == [3, 4]
    assert last_half([1, 2, 3]) == [2, 3]
    assert last_half([1]) == [1]


def test_errors_are_shares_of_the_smoothed_reference():
    """Smoothed: 4, 3.8, 3.62, 3.458 against 4, 4, 4, 4."""
    apart = compare([4.0, 2.0, 2.0, 2.0], [4.0] * 4)
    assert apart.error == pytest.approx([0.0, 0.05, 0.095, 0.1355])
    assert apart.mean == pytest.approx((0.095 + 0.1355) / 2)
    assert apart.largest == pytest.approx(0.1355)
    assert apart.signed == pytest.approx(-(0.095 + 0.1355) / 2), "the run is better than its reference"


def test_signs_cancel_only_where_they_are_asked_for():
    """Smoothed run: 2, 2.1, 1.99; reference 2 throughout."""
    apart = compare([2.0, 3.0, 1.0], [2.0] * 3)
    assert apart.mean == pytest.approx((0.05 + 0.005) / 2)
    assert apart.signed == pytest.approx((0.05 - 0.005) / 2)


def test_a_run_against_itself_has_no_error():
    losses = [7.0, 5.5, 4.25, 4.5]
    assert compare(losses, losses).error == [0.0] * 4


@pytest.mark.parametrize("lost", [[4.0, 4.0], [4.0, 4.0, math.nan, 4.0], [4.0, math.inf, 4.0, 4.0]])
def test_a_run_that_broke_off_is_infinitely_far(lost):
    apart = compare(lost, [4.0] * 4)
    assert math.isinf(apart.mean) and math.isinf(apart.largest) and math.isinf(apart.signed)
    assert apart.error[0] == 0.0
