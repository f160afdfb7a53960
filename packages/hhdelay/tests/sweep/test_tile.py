"""A tile is its points, each as `simulate` would have it, whatever shares the tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hhdelay.engines import engine
from hhdelay.measure import coherence
from hhdelay.network import observed
from hhdelay.simulate import simulate
from hhdelay.store.schema import VARIABLES
from hhdelay.sweep.axes import Axis
from hhdelay.sweep.plan import Sweep
from hhdelay.sweep.tile import Arrays, at, run_tile

Make = Callable[..., Sweep]
SILENCE = ("persists", "quiet_ms")


def whole(sweep: Sweep) -> Arrays:
    """The whole grid as one tile."""
    return run_tile(sweep.tile(tuple(slice(0, n) for n in sweep.shape))).arrays


def test_every_variable_has_its_shape_and_type(quick: Make) -> None:
    arrays = whole(quick())
    sizes = {"replica": 2, "bin": 400}
    assert list(arrays) == list(VARIABLES)
    for name, variable in VARIABLES.items():
        assert arrays[name].dtype == variable.dtype
        assert arrays[name].shape == (3, 4, *(sizes[one] for one in variable.extra)), name
    assert (arrays["histogram"].sum(axis=-1) == arrays["intervals"]).all() and arrays["intervals"].sum() > 100


def test_a_point_is_what_simulate_finds_with_its_place_as_cell(quick: Make) -> None:
    for sweep in (quick(), quick("ii", "motif.delay_ms=1,3,9", settings=("motif.neurons=4",))):
        arrays = whole(sweep)
        for cell in (0, sweep.points - 1):
            recipe = at(sweep.recipe, sweep.given(cell))
            outcome = simulate(recipe, using=engine("numba"), cell=cell)
            found, place = outcome.coherence, np.unravel_index(cell, sweep.shape)
            for name in set(VARIABLES) - {*SILENCE, "phase", "locking", "replica_R", "histogram"}:
                np.testing.assert_array_equal(arrays[name][place], getattr(found, name)[0])
            other = recipe.motif.neurons // 2
            np.testing.assert_array_equal(arrays["locking"][place], found.locking[0, other - 1])
            np.testing.assert_array_equal(arrays["phase"][place], found.phase[0, other - 1])
            alone = coherence(outcome.tally, 150.0, 1, observed(recipe.motif))
            np.testing.assert_array_equal(arrays["replica_R"][place], alone.R)


def test_the_silence_after_it_leaves_the_measurement_as_it_is(quick: Make) -> None:
    tested, untested = whole(quick()), whole(quick(persistence=False))
    for name in set(VARIABLES) - set(SILENCE):
        assert tested[name].tobytes() == untested[name].tobytes(), name
    assert all(np.isfinite(tested[name]).any() and np.isnan(untested[name]).all() for name in SILENCE)


def test_pairs_fire_on_without_noise_and_one_neuron_does_not(quick: Make) -> None:
    """Known of EI at 9 ms, g = 2: period 17.0 ms, and weak coupling falls silent."""
    pair = whole(quick("ei", "motif.g_mS_cm2=0.1,2", settings=("motif.delay_ms=9", "noise.D_uA2_ms_cm4=4")))
    assert pair["persists"].tolist() == [0.0, 1.0]
    assert np.isnan(pair["quiet_ms"][0]) and pair["quiet_ms"][1] == pytest.approx(17.0, abs=0.2)
    alone = whole(quick("single", "noise.D_uA2_ms_cm4=4,32"))
    assert (alone["persists"] == 0.0).all() and np.isnan(alone["phase"]).all()
    assert (alone["rate_Hz"] > 0).all()


def test_what_persists_is_the_firing_that_R_is_of(quick: Make) -> None:
    """Above the Hopf point an inhibitory neuron fires alone and holds the excitatory one down for good."""
    given = ("neuron.I_uA_cm2=10", "synapse.inh_decay_per_ms=0.05", "synapse.inh_rise_per_ms=5")
    sweep = quick("ei", "motif.g_mS_cm2=6", settings=given)
    assert whole(sweep)["persists"].tolist() == [0.0]
    later = {"noise.off_after_ms": 0.02, "simulation.duration_ms": 900.0}
    stopped = at(at(sweep.recipe, sweep.given(0)), later)
    held, firing = simulate(stopped).tally.spikes.sum(axis=0)
    assert firing > 20 > held


def test_a_recipe_whose_noise_stops_is_not_tested(quick: Make) -> None:
    arrays = whole(quick("ei", "noise.off_after_ms=0,60"))
    assert np.isfinite(arrays["persists"]).tolist() == [True, False]


def test_tilings_batches_and_company_leave_the_bits_alone(quick: Make) -> None:
    """Nine replicas, so that a sum over them would show in which order it was made."""
    law = Axis(name="setting", settings=("noise.law", "motif.neurons"),
               values=(("gaussian", 2), ("triangular", 2), ("gaussian", 4)))  # fmt: skip
    short = ("simulation.replicas=9", "simulation.duration_ms=80")
    nine = quick("ei", "motif.delay_ms=2,5,7", settings=short)
    sweep = replace(nine, axes=(law, *nine.axes))
    arrays = whole(sweep)
    for shape in ((1, 3), (3, 1), (2, 2)):
        for i in range(0, 3, shape[0]):
            for j in range(0, 3, shape[1]):
                region = (slice(i, min(i + shape[0], 3)), slice(j, min(j + shape[1], 3)))
                part = run_tile(sweep.tile(region)).arrays
                assert all(part[name].tobytes() == arrays[name][region].tobytes() for name in VARIABLES)


def test_the_work_is_counted(quick: Make) -> None:
    result = run_tile(quick("ei", "motif.neurons=2,4").tile((slice(0, 2),)))
    assert result.neuron_steps == (2 + 4) * 2 * (20 + 150 + 1000) / 0.05
