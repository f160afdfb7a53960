"""A sweep as the figures read it: its axes in ascending order, its recipe, the maxima of its rows."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import xarray as xr

from hhdelay.analysis.laws import Law, law_of
from hhdelay.analysis.peaks import NORMAL, Peak, find_peaks
from hhdelay.config.errors import ConfigError, need
from hhdelay.config.recipe import Recipe
from hhdelay.config.schema import build, flatten
from hhdelay.config.synapse import Synapse
from hhdelay.gates import Array
from hhdelay.measure.coherence import student
from hhdelay.plot.style import label_of, value_of

DELAY, DELAY_E, NOISE = "motif.delay_ms", "motif.delay_e_ms", "noise.D_uA2_ms_cm4"
LOGARITHMIC = (NOISE,)      # settings that span decades


class Axis(NamedTuple):
    """One dimension of a sweep."""

    dim: str
    setting: str        # "motif.delay_ms"; several between commas where the axis moves them together
    values: Array       # ascending; 0, 1, 2, ... where the axis moves several settings or a text

    @property
    def single(self) -> bool:
        """Whether `values` are those of one setting."""
        return "," not in self.setting and self.setting.rpartition(".")[2] == self.dim

    @property
    def label(self) -> str:
        """Of a drawn axis, with the unit."""
        return label_of(self.setting) if self.single else f"place in {self.dim}"

    @property
    def logarithmic(self) -> bool:
        """Whether it is drawn so."""
        return self.setting in LOGARITHMIC and bool((self.values > 0).all())

    def value(self, k: int) -> str:
        """One value for a legend."""
        return value_of(self.setting if self.single else self.dim, float(self.values[k]))


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A sweep over one axis or two; of two, y comes first, and x is the delay if there is one."""

    data: xr.Dataset
    recipe: Recipe
    x: Axis
    y: Axis | None

    def __getitem__(self, name: str) -> Array:
        """A variable, [X] or [Y, X]; ConfigError where the sweep has none of that name."""
        need(name in self.data, f"the sweep holds no {name}", fix="give a store written by hhdelay sweep")
        return np.asarray(self.data[name].values, dtype=np.float64)

    @property
    def done(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which cells have been run."""
        return np.isfinite(self["rate_Hz"])

    def row(self, k: int) -> Grid:
        """One value of y: a sweep over x, its recipe set to that value."""
        assert self.y is not None, "a sweep over one axis has no rows"
        recipe = self.recipe
        if self.y.single:
            table, _, name = self.y.setting.partition(".")
            held = getattr(recipe, table)
            recipe = replace(recipe, **{table: replace(held, **{name: self.y.values[k].item()})})
        return Grid(self.data.isel({self.y.dim: k}), recipe, self.x, None)


def grid_of(data: xr.Dataset) -> Grid:
    """The sweep behind a dataset of `hhdelay.store`; ConfigError where it is none."""
    store = "give a store written by hhdelay sweep"
    need("R" in data and data["R"].ndim in (1, 2), "the data hold no R over one or two axes", fix=store)
    dims = [str(dim) for dim in data["R"].dims]
    need(all(dim in data.coords for dim in dims), f"the axis {dims[0]} has no values", fix=store)
    data = data.sortby(dims)
    axes = [Axis(dim, str(data[dim].attrs.get("setting", dim)), np.asarray(data[dim].values, np.float64))
            for dim in dims]  # fmt: skip
    last = max(range(len(axes)), key=lambda k: (axes[k].setting == DELAY, k))
    x, y = axes[last], axes[1 - last] if len(axes) == 2 else None
    order = [x.dim] if y is None else [y.dim, x.dim]
    return Grid(data.transpose(*order, ...), _recipe(data), x, y)


def _recipe(data: xr.Dataset) -> Recipe:
    try:
        return build(dict(flatten(tomllib.loads(str(data.attrs["recipe"])), "in the sweep")))
    except (KeyError, tomllib.TOMLDecodeError):
        fix = "give a store written by hhdelay sweep"
        raise ConfigError(f"the sweep holds no recipe. Fix: {fix}") from None


def peaks_of(row: Grid) -> list[Peak]:
    """Maxima of R of a sweep over one axis."""
    replicas = row.recipe.simulation.replicas
    width = student(replicas - 1) if replicas > 1 else NORMAL
    return find_peaks(row.x.values, row["R"], row["R_low"], row["R_high"], row["mean_ms"], half_width=width)


def law_for(row: Grid) -> Law | None:
    """The law that says where the maxima lie, for a sweep of the delay with the synapse it was fitted to."""
    if row.x.setting != DELAY or row.recipe.synapse != Synapse():
        return None
    return law_of(row.recipe.motif)


def title_of(grid: Grid) -> str:
    """What was swept, and where the settings that matter stand."""
    recipe, swept = grid.recipe, {grid.x.setting, grid.y.setting if grid.y else ""}
    held = {
        DELAY: recipe.motif.delay_ms, "motif.g_mS_cm2": recipe.motif.g_mS_cm2,
        DELAY_E: recipe.motif.delay_e_ms, NOISE: recipe.noise.D_uA2_ms_cm4,
        "neuron.I_uA_cm2": recipe.neuron.I_uA_cm2,
    }  # fmt: skip
    neurons, kind = recipe.motif.neurons, recipe.motif.kind
    if neurons == 1:
        held = {name: value for name, value in held.items() if not name.startswith("motif.")}
    if not (kind == "EI" and recipe.motif.delay_e_ms):
        held.pop(DELAY_E, None)
    kind = "one neuron" if neurons == 1 else kind
    kind = f"Delay-tuned coherence: {kind}" if grid.x.setting == DELAY else kind
    size = f", N = {neurons}" if neurons > 2 and "motif.neurons" not in swept else ""
    return ", ".join([kind + size, *(value_of(k, v) for k, v in held.items() if k not in swept)])
