"""Every known value, one test each."""

from __future__ import annotations

import pytest

from hhdelay.check import Row, bifurcation_rows, firing_rows, rest_rows, scheme_rows


@pytest.mark.parametrize("some", [rest_rows, bifurcation_rows, firing_rows, scheme_rows])
def test_every_value_is_found_again(some) -> None:
    found = list(some())
    assert len(found) >= 7
    wrong = [row for row in found if not row.passes]
    assert not wrong, wrong


def test_a_row_fails_beyond_its_tolerance_and_at_nan() -> None:
    assert Row("x", 1.0, 1.1, 0.2).passes
    assert not Row("x", 1.0, 1.3, 0.2).passes
    assert not Row("x", 1.0, float("nan"), 0.2).passes
