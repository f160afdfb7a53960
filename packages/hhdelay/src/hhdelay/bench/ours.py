"""A map by our engine: half of the cells in each of two threads, as the machine has cores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from hhdelay.bench.plan import Grid
from hhdelay.config.recipe import Recipe
from hhdelay.engines import Engine, Run
from hhdelay.gates import Array
from hhdelay.measure import Tally, coherence
from hhdelay.network import Batch, assemble, observed
from hhdelay.simulate import measure

RATE_CELLS = 128        # of one batch, for rates: several blocks of any engine, and in the cache
REFERENCE_CELLS = 16    # enough for NumPy to be timed


class Map(NamedTuple):
    """A map, and what it took."""

    R: Array                # [cells]
    intervals: Array        # [cells]
    wall_s: float
    cpu_s: float            # of all threads


def neuron_steps(grid: Grid) -> int:
    """Of the whole map, warm-up included."""
    run = grid.recipes()[0].simulation
    return grid.cells * 2 * (run.warmup_steps + run.duration_steps)


def make_map(engine: Engine, grid: Grid, workers: int) -> Map:
    """From recipes to R, all of it timed."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    recipes = grid.recipes()
    parts = [part for part in np.array_split(np.arange(grid.cells), workers) if len(part)]
    with ThreadPoolExecutor(workers) as pool:
        tallies = list(pool.map(lambda part: _part(engine, recipes, part.tolist()), parts))
    found = [summary(tally, recipes[0]) for tally in tallies]
    return Map(
        R=np.concatenate([R for R, _ in found]),
        intervals=np.concatenate([intervals for _, intervals in found]),
        wall_s=time.perf_counter() - wall_s,
        cpu_s=time.process_time() - cpu_s,
    )


def summary(tally: Tally, recipe: Recipe) -> tuple[Array, Array]:
    """R and the number of intervals of each cell, of the excitatory neuron."""
    found = coherence(tally, recipe.simulation.duration_ms, 1, observed(recipe.motif))
    return found.R, found.intervals.astype(np.float64)


def rate_per_s(engine: Engine, law: str, seconds: float) -> float:
    """Neuron-steps a second of one thread, about `seconds` long; compiled code is loaded before."""
    cells = REFERENCE_CELLS if engine.name == "reference" else RATE_CELLS
    delays_ms = tuple(float(d) for d in range(1, 1 + cells // 8))
    strengths = tuple(0.5 * g for g in range(1, 9))
    grid = Grid(delays_ms=delays_ms, strengths_mS_cm2=strengths, duration_ms=1.0, law=law)
    batch = assemble(grid.recipes())
    run, steps = engine.start(batch), 100
    _timed(run, batch, steps)
    while (took_s := _timed(run, batch, steps)) < seconds:
        steps = round(steps * min(10.0, 1.2 * seconds / took_s))
    return batch.cells * batch.neurons * steps / took_s


def _timed(run: Run, batch: Batch, steps: int) -> float:
    start_s = time.perf_counter()
    measure(run, batch, 0, steps)
    return time.perf_counter() - start_s


def _part(engine: Engine, recipes: Sequence[Recipe], cells: Sequence[int]) -> Tally:
    """The tally of some cells, which keep their place in the whole map."""
    run_for = recipes[0].simulation
    batch = assemble([recipes[c] for c in cells], cells)
    return measure(engine.start(batch), batch, run_for.warmup_steps, run_for.duration_steps)
