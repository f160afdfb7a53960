"""Run a batch from warm-up to measurement, watch its voltages, and keep what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hhdelay.config.errors import StepError, need
from hhdelay.config.recipe import Recipe
from hhdelay.engines import Engine, Run, Snapshot, engine
from hhdelay.gates import Array
from hhdelay.measure import Coherence, Recorder, Spikes, Tally, coherence
from hhdelay.network import Batch, assemble, observed

PIECE_MS = 100.0        # voltages are looked at, and progress is told, this often
HIGHEST_MV = 1000.0     # far beyond every reversal potential: the integration has failed
MOST_D = 100.0          # D / C^2, (mV)^2/ms: from 200 on runs of 5 s failed, at 100 none did at dt 0.01
MOST_COUPLING = 1.0     # g dt / C, beyond which V overshoots the reversal potential in a step
SAFE_DT_MS = 0.02       # the constants that ship are stable and accurate at this step


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What one recipe gave."""

    coherence: Coherence        # of one point, of its observed neurons
    tally: Tally                # [replicas, N]
    spikes: list[list[Array]]   # ms, by replica and neuron; empty unless kept


def simulate(
    recipe: Recipe, *, using: Engine | None = None, keep_spikes: bool = False, cell: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """All replicas of one recipe.

    cell        selects the noise, as the place in a sweep does
    progress    is told the part done, 0 to 1, now and then
    raises      StepError where a voltage leaves the finite numbers
    """
    batch, run_for = assemble([recipe], [cell]), recipe.simulation
    kept: list[Spikes] = []
    tally = measure(
        (using or engine()).start(batch), batch, run_for.warmup_steps, run_for.duration_steps,
        each=kept.append if keep_spikes else None, progress=progress,
    )
    times = _joined(kept, batch) if keep_spikes else []
    duration_ms = run_for.duration_steps * batch.dt_ms
    found = coherence(tally, duration_ms, batch.cells, observed(recipe.motif))
    return Outcome(coherence=found, tally=tally, spikes=times)


def _joined(kept: list[Spikes], batch: Batch) -> list[list[Array]]:
    """The spikes of all pieces, by cell and neuron."""
    return [
        [np.concatenate([o.time_ms[c, j, : o.counts[c, j]] for o in kept]) for j in range(batch.neurons)]
        for c in range(batch.cells)
    ]


def measure(
    run: Run, batch: Batch, warmup_steps: int, steps: int, *,
    each: Callable[[Spikes], None] | None = None, progress: Callable[[float], None] | None = None,
) -> Tally:
    """Throw away the spikes of warmup_steps, count those of `steps`: a tally [C, N].

    each    is given the counted spikes, piece by piece
    """
    recorder = Recorder(batch.cells, batch.neurons)
    end, first = run.step + warmup_steps + steps, run.step
    for stretch, counts in ((warmup_steps, False), (steps, True)):
        stop = run.step + stretch
        while run.step < stop:
            spikes = run.advance(min(max(1, round(PIECE_MS / batch.dt_ms)), stop - run.step))
            check_voltages(run, batch)
            if counts:
                recorder.feed(spikes)
                if each:
                    each(spikes)
            if progress:
                progress((run.step - first) / (end - first))
    return recorder.tally


def trace(recipe: Recipe, duration_ms: float, *, using: Engine | None = None) -> dict[str, Array]:
    """Voltage, gates and s of the first replica at every step from t = 0. -> t_ms [T], the others [T, N]"""
    one = assemble([recipe], [0])
    run = (using or engine()).start(one)
    rows = [[field[0] for field in run.snapshot()]]
    for _ in range(round(duration_ms / one.dt_ms)):
        run.advance(1)
        rows.append([field[0] for field in run.snapshot()])
    check_voltages(run, one)
    columns, times_ms = np.array(rows), np.arange(len(rows)) * one.dt_ms  # [T, 5, N], [T]
    found: dict[str, Array] = {name: columns[:, k] for k, name in enumerate(Snapshot._fields)}
    return found | {"t_ms": times_ms.astype(np.float64)}


def check_voltages(run: Run, batch: Batch) -> None:
    """Raise StepError, with what to change, where a voltage is not a number or beyond all bounds."""
    V_mV = run.snapshot().V_mV
    bad = np.argwhere(~(np.abs(V_mV) < HIGHEST_MV))
    if not len(bad):
        return
    cell, neuron = (int(k) for k in bad[0])
    where = f"neuron {neuron} in cell {int(batch.keys.cell[cell])}, replica {int(batch.keys.replica[cell])}"
    what = f"the voltage of {where} is {V_mV[cell, neuron]:.3g} mV after {run.step * batch.dt_ms:g} ms"
    why, fix = _blame(batch, cell)
    need(False, f"{what}: {why}", fix=fix, error=StepError)


def _blame(batch: Batch, cell: int) -> tuple[str, str]:
    """What made a cell's voltage leave the finite numbers, and what to do: noise, coupling, or the step."""
    dt_ms, C = batch.dt_ms, batch.neuron.C_uF_cm2
    D, most_D = float(batch.D_uA2_ms_cm4[cell]), MOST_D * C**2
    if most_D < D:
        setting = "noise.D_uA2_ms_cm4"
        return f"{setting}={D:g} drives it too far", f"set {setting} to {most_D / 2:g} or less"
    g = float(np.abs(batch.g_mS_cm2[cell]).max(initial=0.0))
    if g * dt_ms > MOST_COUPLING * C:
        why = f"a coupling of {g:g} mS/cm2 is too strong for simulation.dt_ms={dt_ms:g}"
        return why, f"set simulation.dt_ms to {MOST_COUPLING * C / (2 * g):.1g}, or a weaker coupling"
    better = SAFE_DT_MS if dt_ms > SAFE_DT_MS else dt_ms / 4
    return f"simulation.dt_ms={dt_ms:g} is too large", f"set simulation.dt_ms to {better:g}"
