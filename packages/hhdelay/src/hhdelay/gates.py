"""Opening and closing rates of the three gates, from Hodgkin and Huxley 1952 (J. Physiol. 117, 500), Part II.

Their equations 12, 13, 20, 21, 23 and 24 with today's sign of the voltage and rest near -65 mV:

    a_m = 0.1 (V + 40) / (1 - exp(-(V + 40) / 10))    b_m = 4 exp(-(V + 65) / 18)
    a_h = 0.07 exp(-(V + 65) / 20)                    b_h = 1 / (1 + exp(-(V + 35) / 10))
    a_n = 0.01 (V + 55) / (1 - exp(-(V + 55) / 10))   b_n = 0.125 exp(-(V + 65) / 80)

a_m at -40 mV and a_n at -55 mV are 0/0 as written; `ramp` is their common shape and is smooth there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NEAR_ZERO = 1e-3  # below it `ramp` is its series; the first term left out is x**6 / 30240


class Rates(NamedTuple):
    """Rates in 1/ms, each of the shape of the voltage."""

    a_m: Array
    b_m: Array
    a_h: Array
    b_h: Array
    a_n: Array
    b_n: Array


def ramp(x: Array) -> Array:
    """x / (1 - exp(-x)), which is 1 at 0: near 0 the series 1 + x/2 + x^2/12 - x^4/720."""
    near = np.abs(x) < NEAR_ZERO
    away = np.where(near, 1.0, x)
    return np.where(near, 1.0 + x / 2 + x * x / 12 - x**4 / 720, away / -np.expm1(-away))


def rates_per_ms(V_mV: Array) -> Rates:
    """All six rates at a voltage of any shape, in 1/ms at 6.3 degrees C."""
    return Rates(
        a_m=ramp((V_mV + 40.0) / 10.0),
        b_m=4.0 * np.exp(-(V_mV + 65.0) / 18.0),
        a_h=0.07 * np.exp(-(V_mV + 65.0) / 20.0),
        b_h=1.0 / (1.0 + np.exp(-(V_mV + 35.0) / 10.0)),
        a_n=0.1 * ramp((V_mV + 55.0) / 10.0),
        b_n=0.125 * np.exp(-(V_mV + 65.0) / 80.0),
    )


def steady(V_mV: Array) -> tuple[Array, Array, Array]:
    """m, h and n where the gates have had time to settle: a / (a + b)."""
    r = rates_per_ms(V_mV)
    return r.a_m / (r.a_m + r.b_m), r.a_h / (r.a_h + r.b_h), r.a_n / (r.a_n + r.b_n)
