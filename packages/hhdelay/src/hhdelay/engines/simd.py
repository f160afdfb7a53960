"""The fast engine: blocks of cells side by side in the processor's vector lanes, compiled by Numba.

Cells are put into blocks by their delays, since lanes of one delay read their signals from one place. Each
lane does the same operations whatever the others hold, so a cell's bits do not depend on its block.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hhdelay.compiled import as_array, compiled, inlined, stack_floats
from hhdelay.engines import lanes
from hhdelay.engines.lanes import (
    BIAS,
    INFLOW,
    LANES,
    NEURON_ROWS,
    ONE,
    SCRATCH,
    THREE,
    TWO,
    ZERO,
    Numbers,
    Offset,
    U,
)
from hhdelay.engines.protocol import Snapshot, start_s
from hhdelay.gates import Array
from hhdelay.measure.spikes import LONG_AGO_MS, REFRACTORY_MS, Spikes, no_spikes
from hhdelay.network import Batch, Integers, Wiring, neuron_signs
from hhdelay.noise import Words

GROUP = U(8)                            # lanes that may read their signals in one go
GROUPS = LANES // GROUP
WIDTH, SCRATCH_FLOATS = int(LANES), int(SCRATCH)
FOUR_ROWS = U(4) * LANES
STATE = lanes.V, lanes.M, lanes.H, lanes.N, lanes.S
COLUMNS = tuple(int(row) // WIDTH for row in STATE)     # of a neuron's rows, those of a Snapshot


class Kind(NamedTuple):
    """What all cells share, apart from the numbers of the equations."""

    dt: float
    threshold: bool         # s = H(V) at once
    of_5_mV: bool           # K is 5 mV, so that release is a power like the rates
    gaussian: bool
    noisy: bool             # some cell has D > 0
    quiet_from_step: np.uint64


class Synapses(NamedTuple):
    """Rates of each neuron's s, and each link's reversal potential."""

    rise_dt_N: Array
    decay_dt_N: Array
    E_L: Array


class Blocks(NamedTuple):
    """What differs between cells; B blocks of W lanes, a lane beyond the last cell repeats that one."""

    cell_BW: Integers       # the batch's cell in each lane, -1 for a repetition
    seed_BW: Words
    number_BW: Words        # the cell's number in the noise
    replica_BW: Words
    bias_BW: Array
    kick_mV_BW: Array       # of noise of variance 1 in a step
    back_BLW: Words         # the delay in places of the history
    together_BLG: NDArray[np.bool_] # whether a group of lanes has one delay
    g_BLW: Array


class Memory(NamedTuple):
    """What changes."""

    state_B: Array          # [B, N * NEURON_ROWS], see `engines.lanes`
    history_B: Array        # [B, H * S * W]: signals of step k in row k % H
    last_ms_CN: Array


class SimdEngine:
    """Numba, one core, vector instructions."""

    name = "simd"

    def start(self, batch: Batch) -> SimdRun:
        """A run at step 0."""
        return SimdRun(batch)


class SimdRun:
    """A batch in blocks."""

    def __init__(self, batch: Batch) -> None:
        self.dt_ms, self.step, self.wiring = batch.dt_ms, 0, batch.wiring
        self.shape = C, _ = batch.cells, batch.neurons
        self._lane_of_C = np.empty(C, dtype=np.int64)
        order = np.lexsort(batch.delay_steps.T) if batch.delay_steps.size else np.arange(C)
        self._lane_of_C[order] = np.arange(C)
        who = order[np.minimum(np.arange(-(-C // WIDTH) * WIDTH), C - 1)].reshape(-1, WIDTH)
        self.kind, self.numbers, self.synapses = _kind(batch), _numbers(batch), _synapses(batch)
        self.blocks = _blocks(batch, who)
        self.memory = _memory(batch, who)

    def advance(self, steps: int) -> Spikes:
        """Do `steps` more and return their spikes."""
        spikes = no_spikes(*self.shape, steps, self.dt_ms)
        span = self.step, self.step + steps
        shared = self.kind, self.numbers, self.synapses
        _advance(shared, self.wiring, self.blocks, self.memory, spikes, span)
        self.step += steps
        return spikes

    def snapshot(self) -> Snapshot:
        """A copy of the state."""
        _, neurons = self.shape
        rows = self.memory.state_B.reshape(-1, neurons, int(NEURON_ROWS) // WIDTH, WIDTH)
        by_lane = np.moveaxis(rows, 3, 1).reshape(-1, *rows.shape[1:3])     # [B * W, N, rows]
        return Snapshot._make(by_lane[self._lane_of_C, :, column] for column in COLUMNS)


def _kind(batch: Batch) -> Kind:
    return Kind(
        dt=batch.dt_ms,
        threshold=batch.synapse.form == "threshold",
        of_5_mV=batch.synapse.K_mV == 5.0,
        gaussian=batch.law == "gaussian",
        noisy=bool((batch.D_uA2_ms_cm4 > 0.0).any()),
        quiet_from_step=U(batch.quiet_from_step),
    )


def _synapses(batch: Batch) -> Synapses:
    synapse, dt = batch.synapse, batch.dt_ms
    excites = neuron_signs(batch.wiring) > 0
    return Synapses(
        rise_dt_N=dt * np.where(excites, synapse.exc_rise_per_ms, synapse.inh_rise_per_ms),
        decay_dt_N=dt * np.where(excites, synapse.exc_decay_per_ms, synapse.inh_decay_per_ms),
        E_L=np.where(batch.wiring.link_sign > 0, synapse.exc_E_mV, synapse.inh_E_mV),
    )


def _numbers(batch: Batch) -> Numbers:
    neuron, synapse = batch.neuron, batch.synapse
    return Numbers(
        g_Na=neuron.g_Na_mS_cm2,
        g_K=neuron.g_K_mS_cm2,
        g_leak=neuron.g_leak_mS_cm2,
        E_Na=neuron.E_Na_mV,
        E_K=neuron.E_K_mV,
        E_leak=neuron.E_leak_mV,
        dt_over_C=batch.dt_ms / neuron.C_uF_cm2,
        dt_gates=batch.dt_ms * neuron.rate_factor,
        V_half=synapse.V_half_mV,
        per_256_K=1.0 / (256.0 * synapse.K_mV),
        shift=exp((synapse.V_half_mV + 65.0) / 5.0),
    )


def _blocks(batch: Batch, who_BW: Integers) -> Blocks:
    cell = who_BW.copy()
    cell.reshape(-1)[batch.cells :] = -1
    kick_mV_C = np.sqrt(2.0 * batch.D_uA2_ms_cm4 * batch.dt_ms) / batch.neuron.C_uF_cm2
    delay_BLW = np.moveaxis(batch.delay_steps[who_BW], 2, 1)
    by_group = delay_BLW.reshape(*delay_BLW.shape[:2], int(GROUPS), int(GROUP))
    places = WIDTH * len(batch.wiring.source_size)
    return Blocks(
        cell_BW=cell,
        seed_BW=batch.keys.seed[who_BW],
        number_BW=batch.keys.cell[who_BW],
        replica_BW=batch.keys.replica[who_BW],
        bias_BW=batch.I_uA_cm2[who_BW],
        kick_mV_BW=kick_mV_C[who_BW],
        back_BLW=np.ascontiguousarray(delay_BLW * places).astype(np.uint64),
        together_BLG=np.asarray((by_group == by_group[..., :1]).all(axis=3)),
        g_BLW=np.ascontiguousarray(np.moveaxis(batch.g_mS_cm2[who_BW], 2, 1)),
    )


def _memory(batch: Batch, who_BW: Integers) -> Memory:
    B, C, neurons = len(who_BW), batch.cells, batch.neurons
    state = np.zeros((B, neurons, int(NEURON_ROWS) // WIDTH, WIDTH))
    for column, field in zip(COLUMNS, (*np.moveaxis(batch.start, 2, 0), start_s(batch)), strict=True):
        state[:, :, column] = np.swapaxes(field[who_BW], 1, 2)
    return Memory(
        state_B=state.reshape(B, -1),
        history_B=np.zeros((B, batch.history_steps * len(batch.wiring.source_size) * WIDTH)),
        last_ms_CN=np.full((C, neurons), LONG_AGO_MS),
    )


@compiled
def _advance(
    shared: tuple[Kind, Numbers, Synapses], wiring: Wiring, blocks: Blocks, memory: Memory, spikes: Spikes,
    span: tuple[int, int],
) -> None:
    """All blocks from step span[0] to span[1]. No array is taken from a tuple or cut inside the loop over
    steps: each time would count a reference.
    """
    kind, k, (rise_dt_N, decay_dt_N, E_L) = shared
    source_of_N, source_size_S, link_source_L, link_target_L, _ = wiring
    neurons, links, width = U(len(source_of_N)), U(len(link_target_L)), U(len(source_size_S)) * LANES
    last_ms_CN, first = memory.last_ms_CN, U(span[0])
    x = as_array(stack_floats(SCRATCH_FLOATS), SCRATCH_FLOATS)
    for block in range(len(blocks.cell_BW)):
        b, history = memory.state_B[block], memory.history_B[block]
        cell_W, back_LW = blocks.cell_BW[block], blocks.back_BLW[block]
        together_LG, g_LW = blocks.together_BLG[block], blocks.g_BLW[block]
        seed_W, number_W, replica_W = blocks.seed_BW[block], blocks.number_BW[block], blocks.replica_BW[block]
        bias_W, kick_mV_W = blocks.bias_BW[block], blocks.kick_mV_BW[block]
        for lane in range(LANES):
            x[BIAS + lane], x[lanes.KICK_SIZE + lane] = bias_W[lane], kick_mV_W[lane]
        here = (first * width) % U(len(history))
        for step in range(first, U(span[1])):
            if kind.noisy and (step == first or step & THREE == ZERO or step == kind.quiet_from_step):
                if step >= kind.quiet_from_step:
                    _silence(b, neurons)
                else:
                    _noise(kind.gaussian, x, b, (seed_W, number_W, replica_W), step, neurons)
            _remember(b, history, here, source_of_N, source_size_S)
            link = ZERO
            for i in range(neurons):
                o = i * NEURON_ROWS
                _begin(x, b, o + lanes.Z + (step & THREE) * LANES)
                while link < links and U(link_target_L[link]) == i:
                    present = here + U(link_source_L[link]) * LANES
                    _look_back(x, history, present, link, back_LW, together_LG)
                    _feel(x, b, o, (g_LW, link), E_L[link])
                    link += ONE
                if _step(kind, k, x, b, o, (rise_dt_N[i], decay_dt_N[i])):
                    _report(b, o, step, kind.dt, i, (cell_W, spikes, last_ms_CN))
            here = here + width if here + width < U(len(history)) else ZERO


@inlined
def _noise(
    gaussian: bool, x: Array, b: Array, keys: tuple[Words, Words, Words], step: Offset, neurons: Offset
) -> None:
    """The noise of the four steps that hold `step`."""
    for i in range(neurons):
        at = i * NEURON_ROWS + lanes.Z
        lanes.four_words(x, step >> TWO, i, keys)
        if gaussian:
            lanes.two_normals(x, lanes.WORD_0, b, at)
            lanes.two_normals(x, lanes.WORD_2, b, at + TWO * LANES)
        else:
            lanes.two_triangular(x, lanes.WORD_0, b, at)
            lanes.two_triangular(x, lanes.WORD_2, b, at + TWO * LANES)


@inlined
def _silence(b: Array, neurons: Offset) -> None:
    """No noise."""
    for i in range(neurons):
        at = i * NEURON_ROWS + lanes.Z
        for lane in range(FOUR_ROWS):
            b[at + lane] = 0.0


@inlined
def _remember(
    b: Array, history: Array, at: Offset, source_of_N: Integers, source_size_S: Integers
) -> None:
    """The mean of s over each source's neurons, into the history at `at`. Neurons come source by source."""
    i, neurons = ZERO, U(len(source_of_N))
    for source in range(U(len(source_size_S))):
        to, o = at + source * LANES, i * NEURON_ROWS + lanes.S
        for lane in range(LANES):
            history[to + lane] = b[o + lane]
        i += ONE
        while i < neurons and U(source_of_N[i]) == source:
            o = i * NEURON_ROWS + lanes.S
            for lane in range(LANES):
                history[to + lane] += b[o + lane]
            i += ONE
        if source_size_S[source] > 1:
            size = np.float64(source_size_S[source])
            for lane in range(LANES):
                history[to + lane] /= size


@inlined
def _back(here: Offset, way: Offset, ring: Offset) -> Offset:
    """The place `way` before `here` on a ring."""
    return here - way if here >= way else here + ring - way


@inlined
def _begin(x: Array, b: Array, noise: Offset) -> None:
    """INFLOW = BIAS and KICK of the row `noise`."""
    for lane in range(LANES):
        x[INFLOW + lane] = x[BIAS + lane]
        x[lanes.KICK + lane] = x[lanes.KICK_SIZE + lane] * b[noise + lane]


@inlined
def _look_back(
    x: Array, history: Array, present: Offset, link: Offset, back_LW: Words, together_LG: NDArray[np.bool_]
) -> None:
    """SIGNAL = the delayed signal of a link. present: where the signal is now"""
    ring = U(len(history))
    for group in range(GROUPS):
        first = group * GROUP
        if together_LG[link, group]:
            then = _back(present, back_LW[link, first], ring) + first
            for lane in range(GROUP):
                x[lanes.SIGNAL + first + lane] = history[then + lane]
        else:
            for lane in range(GROUP):
                then = _back(present, back_LW[link, first + lane], ring) + first
                x[lanes.SIGNAL + first + lane] = history[then + lane]


@inlined
def _feel(x: Array, b: Array, o: Offset, strength: tuple[Array, Offset], E_mV: float) -> None:
    """INFLOW less the current of a link. o: the neuron; strength: g_LW, the link"""
    g_LW, link = strength
    for lane in range(LANES):
        x[INFLOW + lane] -= g_LW[link, lane] * x[lanes.SIGNAL + lane] * (b[o + lanes.V + lane] - E_mV)


@inlined
def _step(
    kind: Kind, k: Numbers, x: Array, b: Array, o: Offset, rates_dt: tuple[float, float]
) -> bool:
    """One neuron from t_k to t_k+1. -> whether some lane may have spiked

    o: the neuron; rates_dt: rise and decay of s
    """
    lanes.powers(x, b, o, k)
    if not kind.of_5_mV:
        lanes.release_of_any(x, b, o, k)
    lanes.quotients(x, b, o)
    risen = lanes.voltage(x, b, o, k)
    lanes.gates(x, b, o, k)
    if kind.threshold:
        lanes.release_of_any(x, b, o, k)
        lanes.threshold(x, b, o)
    else:
        lanes.kinetic(x, b, o, rates_dt[0], rates_dt[1])
    return risen


@compiled
def _report(
    b: Array, o: Offset, step: Offset, dt: float, i: Offset, into: tuple[Integers, Spikes, Array]
) -> None:
    """Add the spikes of the step to `into`: the lanes' cells, the spikes, the times of the last ones."""
    cell_W, spikes, last_ms_CN = into
    for lane in range(LANES):
        before, after, c = b[o + lanes.BEFORE + lane], b[o + lanes.V + lane], cell_W[lane]
        if c >= 0 and before < 0.0 <= after:
            time_ms = (np.float64(step) + before / (before - after)) * dt
            if time_ms - last_ms_CN[c, i] >= REFRACTORY_MS:
                spikes.time_ms[c, i, spikes.counts[c, i]] = time_ms
                spikes.counts[c, i] += 1
                last_ms_CN[c, i] = time_ms
