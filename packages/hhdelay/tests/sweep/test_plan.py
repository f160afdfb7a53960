"""The grid, its tiles, and what makes two sweeps the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from hhdelay.config.errors import ConfigError
from hhdelay.config.load import load_recipe
from hhdelay.config.schema import leaves
from hhdelay.network import assemble, shared
from hhdelay.sweep.axes import Axis, parse_axis
from hhdelay.sweep.plan import Sweep, sweep_of, tile_shape
from hhdelay.sweep.tile import at

Make = Callable[..., Sweep]
OTHER = {
    "motif.kind": "II", "motif.neurons": 4, "motif.link_from": (1,), "motif.link_to": (0,),
    "motif.link_sign": (-1,), "motif.link_delay_ms": (1.5,), "motif.link_g_mS_cm2": (1.5,),
    "noise.law": "triangular", "synapse.form": "threshold", "simulation.start_V_mV": (-60.0,),
}  # fmt: skip


def test_points_are_row_by_row(quick: Make) -> None:
    sweep = quick()
    assert sweep.shape == (3, 4) and sweep.points == 12
    assert sweep.given(6) == {"motif.delay_ms": 4.0, "motif.g_mS_cm2": 1.5}
    tile = sweep.tile((slice(1, 3), slice(2, 4)))
    assert tile.cells == (6, 7, 10, 11) and tile.shape == (2, 2) and tile.given[0] == sweep.given(6)


def test_a_tile_is_some_seconds_of_one_delay() -> None:
    recipe = load_recipe("ei")
    delay, g, noise = map(parse_axis, ("motif.delay_ms=0:70:141", "motif.g_mS_cm2=0.25:4:16",
                                       "noise.D_uA2_ms_cm4=log:0.5:96:12"))  # fmt: skip
    assert tile_shape(Sweep(recipe=recipe, axes=(delay, g))) == (1, 16)
    assert tile_shape(Sweep(recipe=recipe, axes=(g, delay))) == (16, 1)
    assert tile_shape(Sweep(recipe=recipe, axes=(delay, g)), 40) == (2, 16)
    assert tile_shape(Sweep(recipe=recipe, axes=(delay, g)), 5) == (1, 4), "16 in even pieces"
    assert tile_shape(Sweep(recipe=recipe, axes=(g, noise))) == (1, 12)
    long = replace(recipe, simulation=replace(recipe.simulation, duration_ms=1e6))
    assert tile_shape(Sweep(recipe=long, axes=(delay, g))) == (1, 2), "8 cells at least"
    with pytest.raises(ConfigError, match="--tile 0 .*Fix: "):
        tile_shape(Sweep(recipe=recipe, axes=(g,)), 0)


def test_a_store_gives_its_sweep_back(quick: Make) -> None:
    values = ((1, "gaussian"), (2, "triangular"))
    several = Axis(name="setting", settings=("motif.g_mS_cm2", "noise.law"), values=values)
    for sweep in (quick(), replace(quick(), axes=(several, parse_axis("motif.neurons=2,4")))):
        layout = sweep.layout()
        again = restored(layout.decides)
        assert again == sweep and again.layout().identity == layout.identity


def test_whatever_decides_the_numbers_is_part_of_the_identity(quick: Make) -> None:
    base = quick()
    others = [
        replace(base, engine="reference"),
        replace(base, persistence=False),
        replace(base, axes=base.axes[::-1]),
        replace(base, axes=base.axes[:1]),
        quick("ei", settings=("simulation.seed=2",)),
    ]
    assert len({one.layout().identity for one in [base, *others]}) == 6
    assert base.layout(1).identity == base.layout(12).identity, "tiles decide nothing"


@pytest.mark.parametrize("name", leaves())
def test_batches_hold_what_assemble_takes(name: str) -> None:
    links = ("motif.kind=links", "motif.link_from=0", "motif.link_to=1", "motif.link_sign=1")
    recipe = load_recipe("ei", links if "link_" in name else ())
    table, _, key = name.partition(".")
    other = at(recipe, {name: OTHER[name] if name in OTHER else getattr(getattr(recipe, table), key) + 1})
    assert other != recipe
    try:
        assemble([recipe, other])
    except ConfigError:
        assert shared(recipe) != shared(other)
    else:
        assert shared(recipe) == shared(other)


BAD = {
    "motif.delay_ms=-1,2": "motif.delay_ms=-1.0 is below 0. Fix: ",
    "motif.delay_ms=0.01,2": "a delay of 0.01 ms is below the step simulation.dt_ms=0.05. Fix: ",
    "motif.neurons=2,3": "does not split into two populations. Fix: ",
    "motif.kind=EI,IE": "motif.kind='IE' is not known. Fix: ",
    "noise.D_uA2_ms_cm4=1,x": "is not a number. Fix: ",
}


@pytest.mark.parametrize("axis", BAD)
def test_every_point_is_checked_before_anything_runs(axis: str, quick: Make) -> None:
    with pytest.raises(ConfigError, match=BAD[axis]):
        quick("ei", axis)


def test_axes_are_one_or_two_and_different(quick: Make) -> None:
    with pytest.raises(ConfigError, match="two axes move the same setting.*Fix: "):
        quick("ei", "motif.delay_ms=1,2", "motif.delay_ms=3,4")
    with pytest.raises(ConfigError, match="3 axes are given. Fix: "):
        quick("ei", "motif.delay_ms=1,2", "motif.g_mS_cm2=3,4", "simulation.seed=1,2")
    with pytest.raises(ConfigError, match="no engine abacus. Fix: "):
        replace(quick(), engine="abacus")


def restored(decides: Mapping[str, str]) -> Sweep:
    return sweep_of(decides, "here")
