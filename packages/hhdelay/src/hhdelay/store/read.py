"""A store as an xarray.Dataset."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hhdelay.config.errors import ConfigError, plain
from hhdelay.store.schema import VARIABLES
from hhdelay.store.tiles import DAMAGE, DONE, TABLE, Store, damaged, open_store


def open_sweep(path: str | Path, only: Collection[str] | None = None) -> xr.Dataset:
    """A finished or unfinished sweep, in memory: NaN and 0 where a tile is not done.

    only        names of variables to read; default: all of `hhdelay.store.schema`
    returns     the variables over the swept axes, with units and long_name; attrs hold recipe (TOML),
                engine, version, axes and persistence (JSON), identity
    raises      ConfigError where there is no store, or a damaged one
    """
    store = open_store(Path(path))
    missing = set(store.missing())
    done = [block for number, block in enumerate(store.layout.blocks()) if number not in missing]
    names = [name for name in VARIABLES if only is None or name in only]
    _check_chunks(store, done, names)
    try:
        with xr.open_dataset(store.path, engine="zarr", consolidated=False, chunks=None,
                             drop_variables=[*(set(VARIABLES) - set(names)), DONE]) as lazy:  # fmt: skip
            found = {name: _loaded(store, lazy, name) for name in [*map(str, lazy.coords), *names]}
            dataset = lazy.assign(found)[names]
    except (*DAMAGE, OSError) as error:
        raise damaged(store.path, TABLE, error) from None
    for number, block in enumerate(store.layout.blocks()):
        if number in missing:
            _blank(dataset, store.layout.region(block))
    return dataset


def _loaded(store: Store, lazy: xr.Dataset, name: str) -> xr.Variable:
    """A variable in memory; ConfigError that names the first tile whose chunk cannot be read."""
    try:
        return lazy.variables[name].load()
    except (*DAMAGE, OSError) as error:
        if name not in VARIABLES:
            raise damaged(store.path, f"{name}/c/0", error) from None
        array, bad = store.array(name), next(store.layout.blocks())
        for block in store.layout.blocks():
            bad = block
            try:
                array.get_block_selection((*block, *(0 for _ in VARIABLES[name].extra)))
            except (*DAMAGE, OSError):
                break
        raise _lost(store, name, bad, "damaged") from None


def _check_chunks(store: Store, done: Sequence[tuple[int, ...]], names: Sequence[str]) -> None:
    """Every chunk of a tile that is done is there: zarr would read a lost one as empty."""
    for name in names:
        if not (store.path / name / TABLE).is_file():
            raise damaged(store.path, f"{name}/{TABLE}", FileNotFoundError())
    for block in done:
        for name in names:
            if not _chunk(store, name, block).is_file():
                raise _lost(store, name, block, "lost")


def _chunk(store: Store, name: str, block: tuple[int, ...]) -> Path:
    extra = VARIABLES[name].extra if name in VARIABLES else ()
    return store.path.joinpath(name, "c", *map(str, block), *("0" for _ in extra))


def _lost(store: Store, name: str, block: tuple[int, ...], what: str) -> ConfigError:
    mark = plain(str(_chunk(store, DONE, block)))
    fix = f"remove {mark}, then hhdelay resume runs this tile again"
    return ConfigError(f"{plain(str(_chunk(store, name, block)))} is {what}. Fix: {fix}")


def _blank(dataset: xr.Dataset, region: Sequence[slice]) -> None:
    """A tile that was cut short may have written some of its variables: show none."""
    for name in dataset.data_vars:
        values: Any = dataset[name].values
        values[tuple(region)] = np.nan if values.dtype.kind == "f" else 0
