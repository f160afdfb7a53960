"""Fourth-order Runge-Kutta for one neuron without noise: the yardstick of the checks, not of simulations."""

from __future__ import annotations

import numpy as np

from hhdelay.compiled import compiled
from hhdelay.config.neuron import Neuron
from hhdelay.gates import Array
from hhdelay.scalar.neuron import Membrane, Slopes, membrane_of, slopes


def runge_kutta(
    neuron: Neuron, start: Array, I_uA_cm2: tuple[float, float], duration_ms: float, dt_ms: float = 0.01
) -> tuple[Array, Array]:
    """Spike times in ms and the last state [4], from the state `start` [4] at t = 0.

    I_uA_cm2    current at the beginning and at the end, a straight line in between; constant over each step
    spikes      upward crossings of 0 mV by linear interpolation, every one
    """
    steps = round(duration_ms / dt_ms)
    times, state = np.empty(steps // 2 + 2), start.copy()
    found = _run(membrane_of(neuron), state, I_uA_cm2, dt_ms, times, steps)
    return times[:found].copy(), state


@compiled
def _run(k: Membrane, state: Array, current: tuple[float, float], dt: float, times: Array, steps: int) -> int:
    found = 0
    y = (state[0], state[1], state[2], state[3])
    for step in range(steps):
        now = current[0] + (current[1] - current[0]) * (step / steps)
        k1 = slopes(k, y, now)
        k2 = slopes(k, _along(y, k1, 0.5 * dt), now)
        k3 = slopes(k, _along(y, k2, 0.5 * dt), now)
        k4 = slopes(k, _along(y, k3, dt), now)
        mean = _along(_along(_along(k1, k2, 2.0), k3, 2.0), k4, 1.0)
        after = _along(y, mean, dt / 6.0)
        if y[0] < 0.0 <= after[0]:
            times[found] = (step + y[0] / (y[0] - after[0])) * dt
            found += 1
        y = after
    state[0], state[1], state[2], state[3] = y
    return found


@compiled
def _along(y: Slopes, slope: Slopes, dt: float) -> Slopes:
    """y + dt slope."""
    return y[0] + dt * slope[0], y[1] + dt * slope[1], y[2] + dt * slope[2], y[3] + dt * slope[3]
