"""Fill a store with a sweep, or with what is missing of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from hhdelay.config.errors import HHDelayError, need
from hhdelay.engines import engine
from hhdelay.store.tiles import TABLE, Store, create, open_store
from hhdelay.sweep.cluster import run_cluster
from hhdelay.sweep.local import processors, run_local
from hhdelay.sweep.plan import Sweep, sweep_of
from hhdelay.sweep.tile import Tile


class Told(NamedTuple):
    """How far a sweep is."""

    done: int               # tiles, those of earlier runs included
    total: int
    neuron_steps: float     # of this run
    seconds: float


Progress = Callable[[Told], None]


def run_sweep(
    sweep: Sweep, path: str | Path, *, workers: int | None = None, scheduler: str | None = None,
    tile: int | None = None, progress: Progress | None = None,
) -> Told:
    """Run a sweep into a store; what the store already holds of it is kept and not run again.

    workers     processes of this machine, default one a processor; 1 runs in this process. More than one
                need `if __name__ == "__main__"` in a script, as they import it
    scheduler   address of a dask scheduler, instead of workers
    tile        points of a tile where the store is new; default: a few seconds of work
    progress    is told at the start and after every tile
    raises      ConfigError before anything runs; StepError where a voltage leaves the finite numbers, and
                HHDelayError where workers die again and again: what was finished is kept
    """
    path, layout = Path(path), sweep.layout(tile)
    engine(sweep.engine)    # a missing engine is said before a store is made
    _check_workers(workers, scheduler)
    if (path / TABLE).is_file():
        store = open_store(path)
        store.check_same(layout)
        return _fill(store, sweep, workers, scheduler, progress)
    store = create(path, layout)
    try:
        return _fill(store, sweep, workers, scheduler, progress)
    except HHDelayError:
        if len(store.missing()) == store.layout.tile_count:     # a corrected sweep may take its name
            shutil.rmtree(path, ignore_errors=True)
        raise


def resume(
    path: str | Path, *, workers: int | None = None, scheduler: str | None = None,
    progress: Progress | None = None,
) -> Told:
    """Run the missing tiles of a store; arguments and errors as of `run_sweep`."""
    store = open_store(Path(path))
    sweep = sweep_of(store.layout.decides, str(path))
    store.check_same(sweep.layout())
    _check_workers(workers, scheduler)
    return _fill(store, sweep, workers, scheduler, progress)


def _fill(
    store: Store, sweep: Sweep, workers: int | None, scheduler: str | None, progress: Progress | None
) -> Told:
    blocks, begun = list(store.layout.blocks()), perf_counter()

    def make(number: int) -> Tile:
        return sweep.tile(store.layout.region(blocks[number]))

    with store.writing():
        missing = store.missing()
        told = Told(len(blocks) - len(missing), len(blocks), 0.0, 0.0)
        if progress:
            progress(told)
        if not missing:
            return told
        if scheduler:
            arriving = run_cluster(missing, make, scheduler)
        else:
            arriving = run_local(missing, make, min(workers or processors(), len(missing)))
        with closing(arriving):     # whatever happens here, the workers end
            for number, result in arriving:
                store.write(number, result.arrays)
                steps = told.neuron_steps + result.neuron_steps
                told = Told(told.done + 1, told.total, steps, perf_counter() - begun)
                if progress:
                    progress(told)
    return told


def _check_workers(workers: int | None, scheduler: str | None) -> None:
    need(workers is None or workers >= 1, f"--workers {workers} is below 1", fix="give 1 or more")
    need(workers is None or scheduler is None, "--workers and --scheduler are given",
         fix="give one of them; the workers of a cluster are started there")  # fmt: skip
