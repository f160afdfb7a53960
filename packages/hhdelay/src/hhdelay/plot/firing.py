"""Rate against current of one neuron without noise, up from rest and down from firing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from hhdelay.config.neuron import Neuron
from hhdelay.gates import Array
from hhdelay.integrate import runge_kutta
from hhdelay.membrane import rest
from hhdelay.plot.style import COLOURS, GREY, LINE_PT, PAGE_IN, THIN_PT, dress, figure, headline, key

FOLD_uA_cm2, HOPF_uA_cm2 = 6.264, 9.779     # of the constants that ship: `hhdelay check`
LOWEST, HIGHEST, POINTS = 4.0, 16.0, 49     # uA/cm2; where the two branches differ, and some more
DT_MS = 0.02                                # periods are then within 0.1 % of those at 0.01 ms
RAMP_MS, SETTLE_MS, COUNT_MS = 200.0, 1000.0, 300.0    # a sudden step near the fold would end the firing
KICK_mV = 0.2                               # an unstable rest is left by it, a stable one is not


class RateCurve(NamedTuple):
    """Rates at each current, each [I]; 0 where the neuron rests."""

    I_uA_cm2: Array
    up_Hz: Array        # from rest, the current raised step by step
    down_Hz: Array      # from firing, the current lowered step by step


def rate_curve(neuron: Neuron | None = None, currents: Array | None = None) -> RateCurve:
    """Both branches over `currents` [I], ascending, in uA/cm2; default 4 to 16. A second or two."""
    neuron = neuron or Neuron()
    currents = np.linspace(LOWEST, HIGHEST, POINTS) if currents is None else currents
    state, before = rest(neuron, float(currents[0])), float(currents[0])
    found = np.zeros((2, len(currents)))
    for branch, places in enumerate((range(len(currents)), range(len(currents) - 1, -1, -1))):
        for k in places:
            state[0] += KICK_mV
            found[branch, k], state = _rate(neuron, state, (before, float(currents[k])))
            before = float(currents[k])
    return RateCurve(currents, found[0], found[1])


def rate_figure(curve: RateCurve, *, width_in: float = PAGE_IN) -> Figure:
    """The two branches, with the lines between which rest and firing are both stable."""
    made = figure(width_in, 0.3 * width_in + 1.2)
    axes = made.add_subplot()
    axes.axvspan(FOLD_uA_cm2, HOPF_uA_cm2, color=COLOURS[5], alpha=0.15, linewidth=0,
                 label="rest and firing stable")  # fmt: skip
    for at, name, style in ((FOLD_uA_cm2, "fold", (0, (1, 1.5))), (HOPF_uA_cm2, "Hopf", (0, (5, 2)))):
        axes.axvline(at, color=GREY, linewidth=THIN_PT * 1.5, linestyle=style,
                     label=f"{name}, I = {at:g} µA/cm²")  # fmt: skip
    axes.plot(curve.I_uA_cm2, curve.down_Hz, color=COLOURS[1], linewidth=LINE_PT, marker="v", markersize=3.5,
              label="down from firing")  # fmt: skip
    axes.plot(curve.I_uA_cm2, curve.up_Hz, color=COLOURS[0], linewidth=LINE_PT, marker="^", markersize=3.5,
              label="up from rest")  # fmt: skip
    axes.margins(x=0.01)
    axes.set_ylim(bottom=-2.0)
    dress(axes, "bias current I (µA/cm²)", "firing rate (Hz)")
    headline(axes, "one neuron without noise", width_in - 0.6)
    key(axes, loc="lower right")
    return made


def _rate(neuron: Neuron, state: Array, I_uA_cm2: tuple[float, float]) -> tuple[float, Array]:
    """Rate under the second current after it has settled, come from the first; and the state at the end."""
    there = (I_uA_cm2[1], I_uA_cm2[1])
    _, state = runge_kutta(neuron, state, I_uA_cm2, RAMP_MS, DT_MS)
    _, state = runge_kutta(neuron, state, there, SETTLE_MS, DT_MS)
    spikes, state = runge_kutta(neuron, state, there, COUNT_MS, DT_MS)
    return (1e3 / float(np.diff(spikes).mean()) if len(spikes) > 2 else 0.0), state
