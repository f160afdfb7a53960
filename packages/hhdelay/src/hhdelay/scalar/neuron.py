"""The right-hand side of one neuron without noise and synapses, compiled: twin of `gates` and `membrane`."""

from __future__ import annotations

from math import exp
from typing import NamedTuple

from hhdelay.compiled import compiled
from hhdelay.config.neuron import Neuron
from hhdelay.gates import NEAR_ZERO

E_5_HALVES, E_1, E_3 = exp(2.5), exp(1.0), exp(3.0)  # exp of (65 - 40) / 10, (65 - 55) / 10, (65 - 35) / 10
Slopes = tuple[float, float, float, float]


class Membrane(NamedTuple):
    """`hhdelay.config.neuron.Neuron` as compiled code takes it, the bias apart."""

    C: float
    g_Na: float
    g_K: float
    g_leak: float
    E_Na: float
    E_K: float
    E_leak: float
    rate_factor: float


def membrane_of(neuron: Neuron) -> Membrane:
    """The constants of `neuron`."""
    conductances = neuron.g_Na_mS_cm2, neuron.g_K_mS_cm2, neuron.g_leak_mS_cm2
    reversals = neuron.E_Na_mV, neuron.E_K_mV, neuron.E_leak_mV
    return Membrane(neuron.C_uF_cm2, *conductances, *reversals, neuron.rate_factor)


@compiled
def ramp(x: float, e: float) -> float:
    """x / (1 - e) for e = exp(-x), as `hhdelay.gates.ramp`."""
    if abs(x) < NEAR_ZERO:
        square = x * x
        return 1.0 + 0.5 * x + square * (1.0 / 12.0 - square / 720.0)
    return x / (1.0 - e)


@compiled
def slopes(k: Membrane, state: Slopes, inflow_uA_cm2: float) -> Slopes:
    """d(V, m, h, n)/dt under a current of bias and synapses.

    Two exponentials: with u = V + 65, exp(-u/20) and exp(-u/10) are powers of exp(-u/80), and the shifts to
    -40, -55 and -35 mV are constant factors.
    """
    V, m, h, n = state
    u = V + 65.0
    e80 = exp(u * (-1.0 / 80.0))
    e40 = e80 * e80
    e20 = e40 * e40
    e10 = e20 * e20
    a_m = ramp(0.1 * (V + 40.0), E_5_HALVES * e10)
    b_m = 4.0 * exp(u * (-1.0 / 18.0))
    a_h = 0.07 * e20
    b_h = 1.0 / (1.0 + E_3 * e10)
    a_n = 0.1 * ramp(0.1 * (V + 55.0), E_1 * e10)
    b_n = 0.125 * e80
    ionic = k.g_Na * m * m * m * h * (V - k.E_Na) + k.g_K * (n * n) * (n * n) * (V - k.E_K)
    return (
        (inflow_uA_cm2 - ionic - k.g_leak * (V - k.E_leak)) / k.C,
        k.rate_factor * (a_m * (1.0 - m) - b_m * m),
        k.rate_factor * (a_h * (1.0 - h) - b_h * h),
        k.rate_factor * (a_n * (1.0 - n) - b_n * n),
    )
