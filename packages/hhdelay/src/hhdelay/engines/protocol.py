"""What every engine does: advance a batch by Euler-Maruyama and report the spikes.

From step k (time t_k = k dt) to k + 1, in every cell, all right-hand sides taken at t_k:

    signal[source](t_k) = mean of s(t_k) over the source's neurons, kept for the longest delay
    V += dt / C (I - ionic - sum over links of g signal[source](t_k - d dt) (V - E)) + sqrt(2 D dt) / C z_k
    x += dt rate_factor (a_x (1 - x) - b_x x)                     x = m, h, n
    s += dt (rise H(V) (1 - s) - decay s), with V at t_k; in the form "threshold" s = H(V at t_k+1) instead

with the delay of d steps, signal = 0 before t_0, the start s = 0 (threshold: H(V)), and z_k by
`hhdelay.noise`, 0 from quiet_from_step on. A neuron spikes where V(t_k) < 0 <= V(t_k+1), at the time of the
straight line between the two, unless its last spike is less than REFRACTORY_MS ago.

Engines agree to 1e-9 over 50 ms, but for the rare path that comes so near to threshold that it amplifies
the last bits: some 1e-8 mV. Within one engine a cell's result has the same bits whatever other cells
share its batch, however the steps are divided between calls, and whichever worker runs it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from hhdelay.gates import Array
from hhdelay.measure.spikes import Spikes
from hhdelay.network import Batch
from hhdelay.synapse import release


class Snapshot(NamedTuple):
    """The state at one time, each [C, N]."""

    V_mV: Array
    m: Array
    h: Array
    n: Array
    s: Array


class Run(Protocol):
    """A batch on its way. Where its arrays lie, and how, is the engine's affair."""

    @property
    def step(self) -> int:
        """Steps done so far; the time is step * dt_ms."""
        ...

    def advance(self, steps: int) -> Spikes:
        """Do `steps` more and return their spikes. Voltages that grow without bound are no error here."""
        ...

    def snapshot(self) -> Snapshot:
        """A copy of the state."""
        ...


class Engine(Protocol):
    """Makes runs. Holds no state of its own, so one engine may serve many threads."""

    @property
    def name(self) -> str:
        """As in `--engine`."""
        ...

    def start(self, batch: Batch) -> Run:
        """A run at step 0."""
        ...


def start_s(batch: Batch) -> Array:
    """s at step 0, [C, N]."""
    V_mV = batch.start[..., 0]
    if batch.synapse.form == "threshold":
        return release(V_mV, batch.synapse.V_half_mV, batch.synapse.K_mV)
    return np.zeros_like(V_mV)
