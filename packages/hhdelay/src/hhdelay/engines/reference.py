"""The engine to read: NumPy over all cells at once, one line an equation. Slow."""

from __future__ import annotations

import numpy as np

from hhdelay.engines.protocol import Snapshot, start_s
from hhdelay.gates import Array
from hhdelay.measure.spikes import LONG_AGO_MS, REFRACTORY_MS, Spikes, no_spikes
from hhdelay.membrane import derivative
from hhdelay.network import Batch, neuron_signs
from hhdelay.noise import normals
from hhdelay.synapse import release, s_per_ms

NOISE_STEPS = 64  # looked up at a time


class ReferenceEngine:
    """NumPy."""

    name = "reference"

    def start(self, batch: Batch) -> ReferenceRun:
        """A run at step 0."""
        return ReferenceRun(batch)


class ReferenceRun:
    """C cells of N neurons, S sources, L links; history_CSH[:, :, k % H] holds the signals of step k."""

    def __init__(self, batch: Batch) -> None:
        wiring, synapse = batch.wiring, batch.synapse
        C, N = batch.cells, batch.neurons
        self.batch, self.step = batch, 0
        self.state_CN4 = batch.start.copy()
        self.s_CN = start_s(batch)
        self.last_ms_CN = np.full((C, N), LONG_AGO_MS)
        self.history_CSH = np.zeros((C, len(wiring.source_size), batch.history_steps))
        self.E_mV_L = np.where(wiring.link_sign > 0, synapse.exc_E_mV, synapse.inh_E_mV)
        excites = neuron_signs(wiring) > 0
        self.rise_N = np.where(excites, synapse.exc_rise_per_ms, synapse.inh_rise_per_ms)
        self.decay_N = np.where(excites, synapse.exc_decay_per_ms, synapse.inh_decay_per_ms)

    def advance(self, steps: int) -> Spikes:
        """Do `steps` more and return their spikes."""
        C, N, _ = self.state_CN4.shape
        spikes = no_spikes(C, N, steps, self.batch.dt_ms)
        with np.errstate(all="ignore"):  # a step too large overflows; the caller looks at the voltages
            end = self.step + steps
            for first in range(self.step, end, NOISE_STEPS):
                for kick_CN in self._kicks_mV(first, min(NOISE_STEPS, end - first)):
                    before_CN = self.state_CN4[..., 0].copy()
                    self._advance_one(kick_CN)
                    self._report(before_CN, spikes)
                    self.step += 1
        return spikes

    def snapshot(self) -> Snapshot:
        """A copy of the state."""
        return Snapshot._make([*np.moveaxis(self.state_CN4, -1, 0).copy(), self.s_CN.copy()])

    def _advance_one(self, kick_mV_CN: Array) -> None:
        """One step of Euler-Maruyama: everything on the right is of the old time."""
        batch, synapse, dt = self.batch, self.batch.synapse, self.batch.dt_ms
        V_CN = self.state_CN4[..., 0].copy()
        self.history_CSH[:, :, self.step % batch.history_steps] = self._signals()
        inflow_CN = batch.I_uA_cm2[:, None] - self._synaptic_uA_cm2(V_CN)
        self.state_CN4 += dt * derivative(batch.neuron, self.state_CN4, inflow_CN)
        self.state_CN4[..., 0] += kick_mV_CN
        if synapse.form == "threshold":
            self.s_CN = release(self.state_CN4[..., 0], synapse.V_half_mV, synapse.K_mV)
        else:
            H_CN = release(V_CN, synapse.V_half_mV, synapse.K_mV)
            self.s_CN = self.s_CN + dt * s_per_ms(self.s_CN, H_CN, self.rise_N, self.decay_N)

    def _signals(self) -> Array:
        """Mean of s over each source's neurons, [C, S]; every engine adds them in their order."""
        wiring = self.batch.wiring
        sum_CS = np.zeros((self.batch.cells, len(wiring.source_size)))
        for neuron, source in enumerate(wiring.source_of):
            sum_CS[:, source] += self.s_CN[:, neuron]
        return sum_CS / wiring.source_size

    def _synaptic_uA_cm2(self, V_CN: Array) -> Array:
        """Outward current: g s(t - delay) (V - E), summed over the links into each neuron in their order."""
        batch, wiring = self.batch, self.batch.wiring
        then_CL = (self.step - batch.delay_steps) % batch.history_steps
        signal_CL = self.history_CSH[np.arange(batch.cells)[:, None], wiring.link_source, then_CL]
        current_CN = np.zeros_like(V_CN)
        for link, target in enumerate(wiring.link_target):
            driven_C = V_CN[:, target] - self.E_mV_L[link]
            current_CN[:, target] += batch.g_mS_cm2[:, link] * signal_CL[:, link] * driven_C
        return current_CN

    def _kicks_mV(self, first: int, steps: int) -> Array:
        """What the noise adds to the voltages in each of these steps. -> [steps, C, N]"""
        batch = self.batch
        noisy = max(0, min(steps, batch.quiet_from_step - first))
        kicks = np.zeros((steps, batch.cells, batch.neurons))
        if noisy:
            scale_C = np.sqrt(2.0 * batch.D_uA2_ms_cm4 * batch.dt_ms) / batch.neuron.C_uF_cm2
            kicks[:noisy] = scale_C[:, None] * normals(batch.keys, batch.neurons, first, noisy, batch.law)
        return kicks

    def _report(self, before_CN: Array, spikes: Spikes) -> None:
        """Add the spikes of the step from V = before_CN to the present one."""
        after_CN = self.state_CN4[..., 0]
        for c, n in zip(*np.nonzero((before_CN < 0.0) & (after_CN >= 0.0)), strict=True):
            passed = before_CN[c, n] / (before_CN[c, n] - after_CN[c, n])
            time_ms = (self.step + passed) * self.batch.dt_ms
            if time_ms - self.last_ms_CN[c, n] >= REFRACTORY_MS:
                spikes.time_ms[c, n, spikes.counts[c, n]] = time_ms
                spikes.counts[c, n] += 1
                self.last_ms_CN[c, n] = time_ms
