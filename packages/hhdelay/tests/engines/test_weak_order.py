"""Expectations under the scheme come near those of the equations like the step: weak order one."""

from __future__ import annotations

import numpy as np
import pytest

from hhdelay.config.load import load_recipe
from hhdelay.gates import Array
from hhdelay.measure import Coherence, Tally
from hhdelay.measure.coherence import student
from hhdelay.membrane import derivative
from hhdelay.network import Batch, assemble
from hhdelay.noise import normals
from hhdelay.simulate import simulate

FINE_MS, FINE_STEPS, PATHS = 0.0025, 1600, 2000
COARSER = (4, 8, 16, 32)    # 0.01 to 0.08 ms


def ends_mV(batch: Batch, z_TC: Array, dt_ms: float) -> Array:
    """The last voltages [C] of Euler-Maruyama along given increments; test_engines.py holds engines to it."""
    state, scale = batch.start[:, 0].copy(), (2 * batch.D_uA2_ms_cm4 * dt_ms) ** 0.5
    for z_C in z_TC:
        state = state + dt_ms * derivative(batch.neuron, state, batch.I_uA_cm2)
        state[:, 0] += scale * z_C
    return np.asarray(state[:, 0])


@pytest.mark.parametrize("name", ["square", "exponential"])
def test_weak_order_one(name: str) -> None:
    """Bias of E f(V) after 4 ms below the threshold, against the finest step.

    Coarse steps go along the Brownian paths of the fine ones, increments added up, so that the difference
    varies from path to path by its strong error alone, and its mean stands out.
    """
    given = ("noise.D_uA2_ms_cm4=0.5", "neuron.I_uA_cm2=0", f"simulation.replicas={PATHS}")
    batch = assemble([load_recipe("single", given)])
    rest_mV = batch.start[0, 0, 0]

    def f(V_mV: Array) -> Array:
        away = V_mV - rest_mV
        return away**2 if name == "square" else np.exp(away / 5.0)

    z_TC = normals(batch.keys, 1, 0, FINE_STEPS)[:, :, 0]
    summed = {k: z_TC.reshape(-1, k, PATHS).sum(axis=1) / k**0.5 for k in (1, *COARSER)}
    values = {k: f(ends_mV(batch, summed[k], FINE_MS * k)) for k in summed}
    apart = {k: values[k] - values[1] for k in COARSER}
    for k, each in apart.items():
        assert abs(each.mean()) > 6 * each.std() / PATHS**0.5, f"the bias at {k} fine steps drowns in noise"
    per_step = np.log2([apart[k].mean() / (k - 1) for k in COARSER])    # the finest step has a bias as well
    slope = np.polyfit(np.log2(COARSER), per_step, 1)[0]
    assert abs(slope) < 0.15, f"weak order {1 + slope:.3f}"


def firing(dt_ms: float, motif: str, delay_ms: float) -> tuple[Coherence, Tally]:
    """A pair between two maxima of R, where no rare long interval rules R."""
    given = (f"motif.delay_ms={delay_ms}", f"simulation.dt_ms={dt_ms}", "simulation.replicas=8",
             "simulation.duration_ms=10000")  # fmt: skip
    outcome = simulate(load_recipe(motif, given))
    return outcome.coherence, outcome.tally


@pytest.mark.parametrize(("motif", "delay_ms"), [("ei", 18.0), ("ii", 6.0)])
def test_a_firing_network_does_not_feel_the_step(motif: str, delay_ms: float) -> None:
    """Mean interval and R at 0.02 and 0.01 ms, each within the sum of both halves of their 95 % intervals."""
    (coarse, coarse_tally), (fine, fine_tally) = (firing(dt_ms, motif, delay_ms) for dt_ms in (0.02, 0.01))
    assert min(coarse.intervals[0], fine.intervals[0]) > 3000
    assert coarse.R_low[0] < fine.R_high[0] and fine.R_low[0] < coarse.R_high[0]
    assert fine.R_high[0] / fine.R_low[0] < 1.2, "so wide an interval says nothing"
    means = [tally.mean_ms[:, 0] for tally in (coarse_tally, fine_tally)]   # of neuron 0 in each replica
    half_ms = [student(7) * one.std(ddof=1) / 8**0.5 for one in means]
    assert abs(means[0].mean() - means[1].mean()) < sum(half_ms) < 0.05 * means[1].mean()
