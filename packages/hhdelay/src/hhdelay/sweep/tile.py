"""One tile of a sweep: a pure function from recipes to the variables of the store.

P points of the tile, each with its replicas. A point's numbers have the same bits in whatever tile, process
or order it is run: its noise is chosen by its place in the grid, and its statistics are made for it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hhdelay.config.recipe import Recipe
from hhdelay.engines import Engine, engine
from hhdelay.gates import Array
from hhdelay.measure import Tally, coherence, merge
from hhdelay.measure.coherence import ratio
from hhdelay.measure.tally import BINS
from hhdelay.network import assemble, observed, shared
from hhdelay.simulate import measure
from hhdelay.store.schema import VARIABLES, partner

Given = Mapping[str, Any]       # dotted names and values on top of a recipe
Arrays = dict[str, NDArray[Any]]

SETTLE_MS = 500.0       # after the noise has stopped: what it pushed dies down
LISTEN_MS = 400.0       # then intervals are counted for quiet_ms
LAST_MS = 100.0         # and a replica that still fires here persists
QUIET_MS = SETTLE_MS + LISTEN_MS + LAST_MS


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A rectangle of a grid; small, so that it travels to a worker in another process or machine."""

    recipe: Recipe              # of all points, but for `given`
    engine: str
    persistence: bool
    shape: tuple[int, ...]      # points along each axis
    cells: tuple[int, ...]      # [P] flat places in the whole grid, row by row
    given: tuple[Given, ...]    # [P]


class Result(NamedTuple):
    """What a tile gave."""

    arrays: Arrays          # of every name in VARIABLES, [*shape, *extra]
    neuron_steps: float     # work that was done for it


class Quiet(NamedTuple):
    """What a batch did after the noise had stopped; C cells, N neurons."""

    tally_CN: Tally             # over LISTEN_MS
    fires_CN: NDArray[np.bool_]     # in the last LAST_MS


def at(recipe: Recipe, given: Given) -> Recipe:
    """`recipe` with the settings of one point, checked. Raises ConfigError."""
    tables: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        table, _, key = name.partition(".")
        tables.setdefault(table, {})[key] = value
    changed = {table: replace(getattr(recipe, table), **values) for table, values in tables.items()}
    return replace(recipe, **changed)


def run_tile(tile: Tile) -> Result:
    """Run every point of a tile.

    returns     the variables of `hhdelay.store.schema` and the neuron-steps that they took
    raises      StepError where a voltage leaves the finite numbers
    """
    using = engine(tile.engine)
    recipes = [at(tile.recipe, given) for given in tile.given]
    rows: list[Arrays | None] = [None] * len(recipes)
    steps = 0.0
    for places in _batches(recipes):
        its = [recipes[p] for p in places]
        found = _run(using, its, [tile.cells[p] for p in places], tile.persistence)
        for p, row in zip(places, found.arrays, strict=True):
            rows[p] = row
        steps += found.neuron_steps
    whole = [row for row in rows if row is not None]
    arrays = {}
    for name, variable in VARIABLES.items():
        stacked = np.stack([row[name] for row in whole]).astype(variable.dtype)
        if stacked.dtype.kind == "f":
            stacked[np.isnan(stacked)] = np.nan     # one NaN of the many: files are compared by their bytes
        arrays[name] = stacked.reshape(*tile.shape, *stacked.shape[1:])
    return Result(arrays, steps)


def _batches(recipes: list[Recipe]) -> list[list[int]]:
    """Places of the recipes that can run together."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for place, recipe in enumerate(recipes):
        found.setdefault(shared(recipe), []).append(place)
    return list(found.values())


class _Rows(NamedTuple):
    arrays: list[Arrays]
    neuron_steps: float


def _run(using: Engine, recipes: list[Recipe], cells: list[int], persistence: bool) -> _Rows:
    """One batch, from its start over the measurement to the silence after it."""
    run_for, motif = recipes[0].simulation, recipes[0].motif
    batch = assemble(recipes, cells)
    stops = persistence and recipes[0].noise.off_after_ms == 0.0
    end = run_for.warmup_steps + run_for.duration_steps
    if stops:
        batch = replace(batch, quiet_from_step=end)     # the measurement ends where the noise does
    run = using.start(batch)
    tally = measure(run, batch, run_for.warmup_steps, run_for.duration_steps)
    quiet = None
    if stops:
        settle, listen, last = (round(ms / batch.dt_ms) for ms in (SETTLE_MS, LISTEN_MS, LAST_MS))
        heard = measure(run, batch, settle, listen)
        quiet = Quiet(heard, measure(run, batch, 0, last).spikes > 0)
    chosen, other = observed(motif), partner(motif.kind, motif.neurons)
    duration_ms, replicas = run_for.duration_steps * batch.dt_ms, run_for.replicas
    rows = []
    for point in range(len(recipes)):
        mine = slice(point * replicas, (point + 1) * replicas)
        row = _measured(_cut(tally, mine), duration_ms, chosen, other)
        rows.append(row | _after_noise(quiet, mine, chosen))
    return _Rows(rows, float(run.step) * batch.cells * batch.neurons)


def _cut(tally: Tally, cells: slice) -> Tally:
    return Tally._make(field[cells] for field in tally)


def _measured(tally: Tally, duration_ms: float, chosen: tuple[int, ...], other: int | None) -> Arrays:
    """The variables of one point, but for those of the silence; tally [replicas, N]."""
    replicas = len(tally.spikes)
    found = coherence(tally, duration_ms, replicas, chosen)
    each = merge([Tally._make(field[:, j] for field in tally) for j in chosen])     # [replicas]
    nothing = np.array(np.nan)
    row: Arrays = {name: getattr(found, name)[0] for name in (
        "R", "R_low", "R_high", "spikes", "intervals", "rate_Hz", "mean_ms", "sd_ms", "shortest_ms",
        "longest_ms", "skipped")}  # fmt: skip
    row["phase"] = nothing if other is None else found.phase[0, other - 1]
    row["locking"] = nothing if other is None else found.locking[0, other - 1]
    row["replica_R"] = ratio(each)
    row["histogram"] = each.histogram.sum(axis=0).reshape(BINS)
    return row


def _after_noise(quiet: Quiet | None, cells: slice, chosen: tuple[int, ...]) -> Arrays:
    """persists and quiet_ms of one point; NaN where the noise never stopped or stopped by the recipe."""
    if quiet is None:
        return {"persists": np.array(np.nan), "quiet_ms": np.array(np.nan)}
    fires: NDArray[np.bool_] = np.any(quiet.fires_CN[cells][:, list(chosen)], axis=1)
    heard = _cut(quiet.tally_CN, cells)
    mean_ms: Array = coherence(heard, LISTEN_MS, len(fires), chosen).mean_ms
    return {"persists": np.array(fires.mean()), "quiet_ms": mean_ms[0]}
