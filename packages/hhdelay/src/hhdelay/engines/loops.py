"""The engine for every day: Numba, one cell after the other, its state in the processor's cache."""

from __future__ import annotations

from math import exp
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hhdelay.compiled import compiled
from hhdelay.engines.protocol import Snapshot, start_s
from hhdelay.gates import Array
from hhdelay.measure.spikes import LONG_AGO_MS, REFRACTORY_MS, Spikes, no_spikes
from hhdelay.network import Batch, Wiring, neuron_signs
from hhdelay.noise import Keys
from hhdelay.scalar.neuron import Membrane, membrane_of, slopes
from hhdelay.scalar.noise import four_kicks


class Constants(NamedTuple):
    """What all cells share; units in `hhdelay.config`."""

    dt: float
    membrane: Membrane
    V_half: float
    per_K: float            # 1 / K
    threshold: bool         # s = H(V) at once
    gaussian: bool
    quiet_from_step: int
    rise_dt_N: Array
    decay_dt_N: Array
    E_syn_L: Array


class Cells(NamedTuple):
    """What differs between cells."""

    keys: Keys
    I_C: Array
    kick_C: Array           # sqrt(2 D dt) / C
    delay_CL: NDArray[np.int64]
    g_CL: Array


class State(NamedTuple):
    """What changes; history_CHS[:, k % H] holds the signals of step k."""

    V_CN: Array
    m_CN: Array
    h_CN: Array
    n_CN: Array
    s_CN: Array
    last_ms_CN: Array
    history_CHS: Array


class LoopEngine:
    """Numba, one core."""

    name = "numba"

    def start(self, batch: Batch) -> LoopRun:
        """A run at step 0."""
        return LoopRun(batch)


class LoopRun:
    """A batch as the compiled loop sees it."""

    def __init__(self, batch: Batch) -> None:
        self.dt_ms, self.step, self.wiring = batch.dt_ms, 0, batch.wiring
        self.constants = _constants(batch)
        self.cells = Cells(
            keys=batch.keys,
            I_C=batch.I_uA_cm2,
            kick_C=np.sqrt(2.0 * batch.D_uA2_ms_cm4 * batch.dt_ms) / batch.neuron.C_uF_cm2,
            delay_CL=batch.delay_steps,
            g_CL=batch.g_mS_cm2,
        )
        gates = (np.ascontiguousarray(batch.start[..., k]) for k in range(4))
        last_ms = np.full((batch.cells, batch.neurons), LONG_AGO_MS)
        history = np.zeros((batch.cells, batch.history_steps, len(batch.wiring.source_size)))
        self.state = State._make([*gates, start_s(batch), last_ms, history])

    def advance(self, steps: int) -> Spikes:
        """Do `steps` more and return their spikes."""
        C, N = self.state.V_CN.shape
        spikes = no_spikes(C, N, steps, self.dt_ms)
        _advance(self.constants, self.wiring, self.cells, self.state, spikes, (self.step, self.step + steps))
        self.step += steps
        return spikes

    def snapshot(self) -> Snapshot:
        """A copy of the state."""
        return Snapshot._make(field.copy() for field in self.state[:5])


def _constants(batch: Batch) -> Constants:
    synapse, dt = batch.synapse, batch.dt_ms
    excites = neuron_signs(batch.wiring) > 0
    return Constants(
        dt=dt,
        membrane=membrane_of(batch.neuron),
        V_half=synapse.V_half_mV,
        per_K=1.0 / synapse.K_mV,
        threshold=synapse.form == "threshold",
        gaussian=batch.law == "gaussian",
        quiet_from_step=batch.quiet_from_step,
        rise_dt_N=dt * np.where(excites, synapse.exc_rise_per_ms, synapse.inh_rise_per_ms),
        decay_dt_N=dt * np.where(excites, synapse.exc_decay_per_ms, synapse.inh_decay_per_ms),
        E_syn_L=np.where(batch.wiring.link_sign > 0, synapse.exc_E_mV, synapse.inh_E_mV),
    )


@compiled
def _signals(wiring: Wiring, s_N: Array, signal_S: Array) -> None:
    """Mean of s over each source's neurons."""
    signal_S[:] = 0.0
    for i in range(len(s_N)):
        signal_S[wiring.source_of[i]] += s_N[i]
    for k in range(len(signal_S)):
        signal_S[k] /= wiring.source_size[k]


@compiled
def _advance(
    k: Constants, wiring: Wiring, cells: Cells, state: State, spikes: Spikes, span: tuple[int, int]
) -> None:
    """All cells from step span[0] to span[1]."""
    C, N = state.V_CN.shape
    H, L = state.history_CHS.shape[1], len(wiring.link_target)
    z_N4 = np.zeros((N, 4))
    for c in range(C):
        V_N, m_N, h_N, n_N, s_N = state.V_CN[c], state.m_CN[c], state.h_CN[c], state.n_CN[c], state.s_CN[c]
        seed, cell, replica = cells.keys.seed[c], cells.keys.cell[c], cells.keys.replica[c]
        history_HS, kick = state.history_CHS[c], cells.kick_C[c]
        now = span[0] % H - 1   # place of the present step in the history
        for step in range(span[0], span[1]):
            now = now + 1 if now + 1 < H else 0
            noisy = kick > 0.0 and step < k.quiet_from_step
            fresh = noisy and (step & 3 == 0 or step == span[0])
            _signals(wiring, s_N, history_HS[now])
            link = 0
            for i in range(N):
                V, m, h, n = V_N[i], m_N[i], h_N[i], n_N[i]
                synaptic = 0.0
                while link < L and wiring.link_target[link] == i:
                    then = now - cells.delay_CL[c, link]
                    signal = history_HS[then if then >= 0 else then + H, wiring.link_source[link]]
                    synaptic += cells.g_CL[c, link] * signal * (V - k.E_syn_L[link])
                    link += 1
                dV, dm, dh, dn = slopes(k.membrane, (V, m, h, n), cells.I_C[c] - synaptic)
                after = V + k.dt * dV
                if fresh:
                    four_kicks(z_N4[i], (np.uint64(step >> 2), np.uint64(i), replica, cell), seed, k.gaussian)
                if noisy:
                    after += kick * z_N4[i, step & 3]
                m_N[i], h_N[i], n_N[i] = m + k.dt * dm, h + k.dt * dh, n + k.dt * dn
                release = 1.0 / (1.0 + exp(-((after if k.threshold else V) - k.V_half) * k.per_K))
                if k.threshold:
                    s_N[i] = release
                else:
                    s_N[i] += k.rise_dt_N[i] * release * (1.0 - s_N[i]) - k.decay_dt_N[i] * s_N[i]
                V_N[i] = after
                if V < 0.0 <= after:
                    time_ms = (step + V / (V - after)) * k.dt
                    if time_ms - state.last_ms_CN[c, i] >= REFRACTORY_MS:
                        spikes.time_ms[c, i, spikes.counts[c, i]] = time_ms
                        spikes.counts[c, i] += 1
                        state.last_ms_CN[c, i] = time_ms
