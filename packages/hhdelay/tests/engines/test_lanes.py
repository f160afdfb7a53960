"""What the vector loops rest on: a polynomial for exp, and lanes that know nothing of one another."""

from __future__ import annotations

import numpy as np
import pytest

from hhdelay.config.load import load_recipe
from hhdelay.engines import engine
from hhdelay.engines.lanes import EXPM1, LANES, WIDEST
from hhdelay.network import Batch, assemble

WIDTH = int(LANES)


def test_the_polynomial_is_exp_less_1() -> None:
    y = np.linspace(-WIDEST, WIDEST, 20_000)
    np.testing.assert_allclose(y * np.polyval(EXPM1[::-1], y), np.expm1(y), rtol=6e-15)
    far = np.array([-0.4, 0.4])     # 288 mV from rest: beyond, ever less exact, but never wild
    np.testing.assert_allclose(far * np.polyval(EXPM1[::-1], far), np.expm1(far), rtol=1e-9)


@pytest.mark.parametrize("V_mV", [-40.0, -55.0, -40.0 + 9e-4, -55.0 - 9e-3, -40.0 + 1e-11, -200.0, 90.0])
def test_rates_are_right_where_they_could_be_0_over_0_and_far_out(V_mV: float) -> None:
    given = ("motif.g_mS_cm2=0", "noise.D_uA2_ms_cm4=0", f"simulation.start_V_mV={V_mV!r}",
             "simulation.replicas=1")  # fmt: skip
    batch = assemble([load_recipe("ei", given)])
    states = []
    for name in ("reference", "simd"):
        run = engine(name).start(batch)
        run.advance(1)
        states.append(run.snapshot())
    for name, plain, quick in zip(states[0]._fields, *states, strict=True):
        np.testing.assert_allclose(quick, plain, rtol=1e-12, atol=1e-13, err_msg=name)


def test_every_lane_computes_the_same() -> None:
    """The same cell in many places of full blocks and of one that is not, beside other cells."""
    C = 69      # blocks of 32, 32 and 5
    given = "neuron.I_uA_cm2=8", "simulation.replicas=1"
    each = [(f"motif.delay_ms={1 + k}", f"motif.g_mS_cm2={2 + k}", *given) for k in (0, 1, 2)]
    kinds = [load_recipe("ii", words) for words in each]
    recipes = kinds * (C // 3)
    numbers = [k % 3 for k in range(C)]
    for order in (np.arange(C), np.argsort(np.sin(np.arange(C)))):
        run = engine("simd").start(assemble([recipes[k] for k in order], [numbers[k] for k in order]))
        spikes = run.advance(3001)
        for field in (*run.snapshot(), spikes.time_ms, spikes.counts):
            for kind in range(3):
                rows = field[[int(k) % 3 == kind for k in order]]
                assert (rows == rows[0]).all()
    assert spikes.counts.sum() > C


def test_blocks_are_by_delay_and_every_cell_comes_back_to_its_place() -> None:
    delays = np.array([7.0, 1.0, 3.0] * WIDTH)
    recipes = [load_recipe("ei", [f"motif.delay_ms={d}", f"neuron.I_uA_cm2={4 + k / 100}",
                                  "simulation.replicas=1"]) for k, d in enumerate(delays)]  # fmt: skip
    run = engine("simd").start(batch := assemble(recipes))
    assert run.blocks.together_BLG.all(), "lanes of one delay lie together"  # type: ignore[attr-defined]
    assert (run.snapshot().V_mV == batch.start[..., 0]).all()


@pytest.mark.parametrize("K_mV", [0.05, 1.0, 5.0, 40.0])
def test_any_width_of_the_release_sigmoid(K_mV: float) -> None:
    plain, quick = (after_20_ms(name, K_mV) for name in ("reference", "simd"))
    np.testing.assert_allclose(quick, plain, rtol=0, atol=1e-9)
    assert plain.max() > 0.1


def after_20_ms(name: str, K_mV: float) -> np.ndarray:
    """s of an EI pair that fires, at every millisecond."""
    given = (f"synapse.K_mV={K_mV}", "simulation.dt_ms=0.02", "simulation.replicas=1", "neuron.I_uA_cm2=9",
             "simulation.start_V_mV=0,-65")  # fmt: skip
    batch: Batch = assemble([load_recipe("ei", given)])
    run = engine(name).start(batch)
    rows = []
    for _ in range(20):
        run.advance(50)
        rows.append(run.snapshot().s[0])
    return np.array(rows)


def test_a_step_that_is_too_large_ends_in_no_finite_voltage_and_no_crash() -> None:
    batch = assemble([load_recipe("ei", ["simulation.dt_ms=5"])])
    run = engine("simd").start(batch)
    run.advance(400)
    assert not (np.abs(run.snapshot().V_mV) < 1000.0).all()
