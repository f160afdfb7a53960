"""A sweep: a recipe, the axes over it, and the rectangles of its grid that are run and stored as one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

from hhdelay.config.errors import ConfigError, choose_from, need, plain
from hhdelay.config.load import to_toml
from hhdelay.config.recipe import Recipe
from hhdelay.config.schema import build, flatten, leaves
from hhdelay.engines.choose import ENGINES
from hhdelay.network import DELAYS, VARIES
from hhdelay.store.layout import Coordinate, Layout
from hhdelay.sweep.axes import Axis
from hhdelay.sweep.tile import QUIET_MS, Given, Tile, at

TILE_WORK = 3e8         # neuron-steps: 3 s at 1e8 a second
TILE_CELLS = 8          # points times replicas, so that an engine can run cells side by side
MOST_POINTS = 10_000_000
NOISE_DEFINITION = 1    # of hhdelay.noise: raise it when the same keys give other numbers
UNITS = {               # by the end of a setting's name, the longest first
    "_uA2_ms_cm4": "uA2 ms/cm4", "_mS_cm2": "mS/cm2", "_uA_cm2": "uA/cm2", "_uF_cm2": "uF/cm2",
    "_per_ms": "1/ms", "_mV": "mV", "_ms": "ms",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A grid of points, the last axis fastest. A point's flat place in it is the cell that selects its noise.

    recipe          of every point, but for what the axes say
    axes            one or two
    engine          by name; engines differ in the last bits, so it is part of the identity
    persistence     whether the noise is stopped after the measurement, to see whether firing goes on
    raises          ConfigError where one of the points is no valid recipe
    """

    recipe: Recipe
    axes: tuple[Axis, ...]
    engine: str = ENGINES[0]
    persistence: bool = True

    def __post_init__(self) -> None:
        need(len(self.axes) in (1, 2), f"{len(self.axes)} axes are given", fix="give one or two --over")
        settings = [name for axis in self.axes for name in axis.settings]
        names = [axis.name for axis in self.axes]
        need(len({*settings}) == len(settings) and len({*names}) == len(names),
             f"two axes move the same setting, {plain(', '.join(settings))}",
             fix="give each axis a setting of its own")  # fmt: skip
        need(self.engine in ENGINES, f"no engine {plain(self.engine)}", fix=choose_from(self.engine, ENGINES))
        need(self.points <= MOST_POINTS, f"the grid has {self.points} points",
             fix=f"shorten its axes to {MOST_POINTS} points or fewer")  # fmt: skip
        for point in range(self.points):
            at(self.recipe, self.given(point))

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def points(self) -> int:
        """Points of the whole grid."""
        return prod(self.shape)

    def given(self, point: int) -> Given:
        """What the axes set at a point, by its flat place."""
        found: dict[str, Any] = {}
        for axis in reversed(self.axes):
            point, place = divmod(point, len(axis))
            found = axis.given(place) | found
        return found

    def layout(self, tile_points: int | None = None) -> Layout:
        """How the results lie in a store, in tiles of about tile_points points (None: a few seconds)."""
        return Layout(
            coordinates=tuple(_coordinate(axis) for axis in self.axes),
            tile=tile_shape(self, tile_points),
            replicas=self.recipe.simulation.replicas,
            decides={
                "recipe": to_toml(self.recipe),
                "axes": json.dumps([_as_json(axis) for axis in self.axes]),
                "engine": self.engine,
                "persistence": json.dumps(self.persistence),
                "noise": str(NOISE_DEFINITION),
            },
        )

    def tile(self, region: Sequence[slice]) -> Tile:
        """The work of a rectangle of the grid: all that a worker needs to know."""
        places = list(product(*(range(one.start, one.stop) for one in region)))
        cells = [_flat(place, self.shape) for place in places]
        return Tile(
            recipe=self.recipe,
            engine=self.engine,
            persistence=self.persistence,
            shape=tuple(one.stop - one.start for one in region),
            cells=tuple(cells),
            given=tuple(self.given(cell) for cell in cells),
        )


def sweep_of(decides: Mapping[str, str], where: str) -> Sweep:
    """The sweep that a store holds. ConfigError where its description has been changed by hand."""
    try:
        axes = tuple(
            Axis(name=one["name"], settings=tuple(one["settings"]), values=tuple(map(_tuples, one["values"])))
            for one in json.loads(decides["axes"])
        )
        recipe = build(dict(flatten(tomllib.loads(decides["recipe"]), f"in {where}")))
        persistence = bool(json.loads(decides["persistence"]))
        return Sweep(recipe=recipe, axes=axes, engine=decides["engine"], persistence=persistence)
    except (KeyError, TypeError, ValueError) as error:
        what = f"the description of the sweep in {where} is damaged ({error.__class__.__name__})"
        raise ConfigError(f"{what}. Fix: start the sweep again in a new store") from None


def tile_shape(sweep: Sweep, points: int | None = None) -> tuple[int, ...]:
    """Points of a tile along each axis: first along strengths, noise and bias, then along delays.

    Cells of one delay run best side by side, and what cannot share a batch gains nothing from sharing a tile.
    It does not depend on the workers, so that a store has the same files whoever fills it.
    """
    need(points is None or points >= 1, f"--tile {points} is no number of points", fix="give 1 or more")
    wanted = points or _points_of(sweep)
    shape = [1] * len(sweep.axes)
    for k in sorted(range(len(sweep.axes)), key=lambda k: (_rank(sweep.axes[k]), -k)):
        room = max(1, wanted // prod(shape))
        pieces = ceil(len(sweep.axes[k]) / room)
        shape[k] = ceil(len(sweep.axes[k]) / pieces)
    return tuple(shape)


def _points_of(sweep: Sweep) -> int:
    """Points that make TILE_WORK, by the dearest point, and at least TILE_CELLS cells."""
    most = 1.0
    for point in {0, sweep.points - 1, *range(0, sweep.points, max(1, sweep.points // 100))}:
        recipe = at(sweep.recipe, sweep.given(point))
        run = recipe.simulation
        time_ms = run.warmup_ms + run.duration_ms + (QUIET_MS if sweep.persistence else 0.0)
        most = max(most, recipe.motif.neurons * run.replicas * time_ms / run.dt_ms)
    return max(ceil(TILE_CELLS / sweep.recipe.simulation.replicas), round(TILE_WORK / most), 1)


def _rank(axis: Axis) -> int:
    """0: cells differ in numbers only, 1: in delays, 2: they cannot share a batch."""
    return max(0 if name in VARIES else 1 if name in DELAYS else 2 for name in axis.settings)


def _flat(place: Sequence[int], shape: Sequence[int]) -> int:
    flat = 0
    for k, n in zip(place, shape, strict=True):
        flat = flat * n + k
    return flat


def _as_json(axis: Axis) -> dict[str, Any]:
    return {"name": axis.name, "settings": list(axis.settings), "values": list(axis.values)}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _coordinate(axis: Axis) -> Coordinate:
    attrs = {"setting": ", ".join(axis.settings)}
    if not axis.numeric:
        points = [" ".join(f"{k}={_text(v)}" for k, v in axis.given(p).items()) for p in range(len(axis))]
        attrs |= {"long_name": "setting", "units": "1", "points": json.dumps(points)}
        return Coordinate(axis.name, tuple(range(len(axis))), attrs)
    name = axis.settings[0]
    units = next((unit for end, unit in UNITS.items() if name.endswith(end)), "1")
    long_name = str(leaves()[name].field.metadata["help"])
    return Coordinate(axis.name, axis.values, attrs | {"long_name": long_name, "units": units})


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
