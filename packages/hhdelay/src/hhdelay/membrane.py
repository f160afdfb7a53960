"""The equations of one neuron without noise and synapses: derivative, rest, Jacobian, Hopf points.

    C dV/dt = I - g_Na m^3 h (V - E_Na) - g_K n^4 (V - E_K) - g_leak (V - E_leak)
    dx/dt   = rate_factor (a_x(V) (1 - x) - b_x(V) x),   x = m, h, n

A state is [..., 4]: V in mV, then m, h, n.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hhdelay.config.errors import need
from hhdelay.config.neuron import Neuron
from hhdelay.gates import Array, rates_per_ms, steady

WIDEST_V_mV = (-200.0, 200.0)  # where a rest is looked for


def ionic_uA_cm2(neuron: Neuron, V_mV: Array, m: Array, h: Array, n: Array) -> Array:
    """Outward ionic current."""
    return (
        neuron.g_Na_mS_cm2 * m**3 * h * (V_mV - neuron.E_Na_mV)
        + neuron.g_K_mS_cm2 * n**4 * (V_mV - neuron.E_K_mV)
        + neuron.g_leak_mS_cm2 * (V_mV - neuron.E_leak_mV)
    )


def derivative(neuron: Neuron, state: Array, I_uA_cm2: float | Array) -> Array:
    """d(V, m, h, n)/dt in mV/ms and 1/ms, under the current I (neuron.I_uA_cm2 is not read)."""
    V, m, h, n = np.moveaxis(state, -1, 0)
    r, speed = rates_per_ms(V), neuron.rate_factor
    dV = (I_uA_cm2 - ionic_uA_cm2(neuron, V, m, h, n)) / neuron.C_uF_cm2
    dm = speed * (r.a_m * (1 - m) - r.b_m * m)
    dh = speed * (r.a_h * (1 - h) - r.b_h * h)
    dn = speed * (r.a_n * (1 - n) - r.b_n * n)
    return np.stack([dV, dm, dh, dn], axis=-1)


def settled(V_mV: Array) -> Array:
    """The state with the given voltage and settled gates. [...] -> [..., 4]"""
    return np.stack([V_mV, *steady(V_mV)], axis=-1)


def rest(neuron: Neuron, I_uA_cm2: float) -> Array:
    """The steady state [4] under the current I; the lowest one, should the constants allow several.

    Steady states are the roots of the steady current-voltage curve, found on a grid of 0.1 mV and halved
    to the last bit.
    """

    def surplus(V_mV: Array) -> Array:
        return ionic_uA_cm2(neuron, V_mV, *steady(V_mV)) - I_uA_cm2

    grid = np.arange(WIDEST_V_mV[0], WIDEST_V_mV[1], 0.1)
    rising = np.flatnonzero((surplus(grid[:-1]) <= 0) & (surplus(grid[1:]) > 0))
    need(rising.size > 0, f"the neuron has no rest at I_uA_cm2={I_uA_cm2:g} between -200 and 200 mV",
         fix="bring the bias nearer to 0 or raise neuron.g_leak_mS_cm2")  # fmt: skip
    below_mV = float(grid[rising[0]])
    return settled(np.asarray(halve(lambda V: float(surplus(np.asarray(V))), below_mV, below_mV + 0.1)))


def jacobian(neuron: Neuron, state: Array, I_uA_cm2: float) -> Array:
    """[4, 4] by central differences; exact to about 1e-9 of its largest entry."""
    step = np.array([1e-4, 1e-6, 1e-6, 1e-6])
    shifts = np.diag(step)
    up, down = (derivative(neuron, state + sign * shifts, I_uA_cm2) for sign in (1, -1))
    slopes: Array = (up - down) / (2 * step[:, None])
    return slopes.T


def leading_eigenvalue_per_ms(neuron: Neuron, I_uA_cm2: float) -> complex:
    """Of the complex pair of the Jacobian at rest with the largest real part, the one above the real axis."""
    values = np.linalg.eigvals(jacobian(neuron, rest(neuron, I_uA_cm2), I_uA_cm2))
    oscillating = [complex(v) for v in values if v.imag > 1e-12]
    assert oscillating, f"no complex pair at I={I_uA_cm2}: {values}"
    return max(oscillating, key=lambda v: v.real)


def hopf_uA_cm2(neuron: Neuron, low: float, high: float) -> float:
    """The current between `low` and `high` at which the leading pair crosses the imaginary axis."""
    return halve(lambda bias: leading_eigenvalue_per_ms(neuron, bias).real, low, high, digits=1e-10)


def halve(f: Callable[[float], float], low: float, high: float, digits: float = 0.0) -> float:
    """A root of `f` by bisection, to `digits` or to the last bit; the signs at both ends must differ."""
    side = f(low) > 0
    while high - low > digits:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if (f(middle) > 0) == side else (low, middle)
    return 0.5 * (low + high)
