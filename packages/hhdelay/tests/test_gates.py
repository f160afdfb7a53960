"""The rates of Hodgkin and Huxley, and their points 0/0."""

from __future__ import annotations

import numpy as np
import pytest

from hhdelay.gates import NEAR_ZERO, ramp, rates_per_ms, steady
from hhdelay.scalar.neuron import ramp as scalar_ramp


def test_the_rates_are_those_of_the_textbook() -> None:
    V = np.linspace(-100.0, 60.0, 321) + 0.03   # not on a point 0/0
    rates = rates_per_ms(V)
    textbook = (
        0.1 * (V + 40) / (1 - np.exp(-(V + 40) / 10)), 4 * np.exp(-(V + 65) / 18),
        0.07 * np.exp(-(V + 65) / 20), 1 / (1 + np.exp(-(V + 35) / 10)),
        0.01 * (V + 55) / (1 - np.exp(-(V + 55) / 10)), 0.125 * np.exp(-(V + 65) / 80),
    )  # fmt: skip
    for found, expected in zip(rates, textbook, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_the_singular_points_are_smooth() -> None:
    rates = rates_per_ms(np.array([-40.0, -55.0]))
    assert rates.a_m[0] == pytest.approx(1.0, abs=1e-15)
    assert rates.a_n[1] == pytest.approx(0.1, abs=1e-16)
    for middle in (-40.0, -55.0):
        V = middle + np.linspace(-0.1, 0.1, 2001)
        for rate in rates_per_ms(V):
            assert np.abs(np.diff(rate, 2)).max() < 1e-9, "a kink"


def test_the_series_and_the_quotient_meet() -> None:
    x = np.array([-1, 1]) * NEAR_ZERO
    inside, outside = ramp(x * (1 - 1e-12)), ramp(x * (1 + 1e-12))
    np.testing.assert_allclose(inside, outside, rtol=1e-14)
    for one in (*x * 0.9, *x * 1.1, 0.0, 3.0, -3.0):
        assert scalar_ramp(one, float(np.exp(-one))) == pytest.approx(float(ramp(np.asarray(one))), rel=1e-12)


def test_settled_gates_stand_still() -> None:
    V = np.linspace(-90.0, 40.0, 27)
    m, h, n = steady(V)
    r = rates_per_ms(V)
    for x, a, b in ((m, r.a_m, r.b_m), (h, r.a_h, r.b_h), (n, r.a_n, r.b_n)):
        np.testing.assert_allclose(a * (1 - x), b * x, rtol=1e-12)
        assert ((x > 0) & (x < 1)).all()
