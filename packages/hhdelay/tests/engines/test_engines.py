"""One battery for every engine: the same equations, noise and spikes, whatever the company."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hhdelay.config.errors import ConfigError
from hhdelay.config.load import load_recipe
from hhdelay.engines import ENGINES, Run, Snapshot, engine
from hhdelay.gates import Array
from hhdelay.measure import Spikes
from hhdelay.membrane import derivative
from hhdelay.network import Batch, assemble
from hhdelay.noise import normals

FAST = [name for name in ENGINES if name != "reference"]
LINKS = ("motif.kind=links", "motif.neurons=4", "motif.link_from=0,0,1,2,3,1", "motif.link_to=1,2,3,0,1,1",
         "motif.link_sign=1,1,-1,1,-1,-1", "motif.link_delay_ms=0,2.5,7,0.02,3,1",
         "motif.link_g_mS_cm2=1,2,3,1.5,0.5,0.2")  # fmt: skip
NETWORKS = {
    "EI": ("ei",),
    "EI, both delayed": ("ei", "motif.delay_e_ms=3.3"),
    "II": ("ii",),
    "EE, no delay": ("ee", "motif.delay_ms=0"),
    "EI, one step": ("ei", "motif.delay_ms=0.02"),
    "EI, N=6": ("ei", "motif.neurons=6"),
    "II, N=6, slow": ("ii-slow", "motif.neurons=6"),
    "EI, slow": ("ei-slow",),
    "EI, threshold": ("ei-ftm",),
    "links": ("ei", *LINKS),
    "single": ("single",),
    "triangular": ("ei", "noise.law=triangular"),
    "noise ends": ("ei", "noise.off_after_ms=21.3"),
    "seed of two words": ("ei", "simulation.seed=81985529216486895"),
    "other constants": ("ei", "neuron.C_uF_cm2=1.2", "neuron.rate_factor=1.3", "synapse.K_mV=4"),
}  # fmt: skip
LONG = ("EI", "II", "EE, no delay")     # at 0.01 ms; the others at 0.02: the reference is slow


def batch_of(*words: str, replicas: int = 2, bias: float = 8.0) -> Batch:
    given = (f"neuron.I_uA_cm2={bias}", f"simulation.replicas={replicas}")
    return assemble([load_recipe(words[0], [*given, *words[1:]])])


def after(name: str, batch: Batch, ms: float) -> tuple[Snapshot, list[Array]]:
    """The state, and the spikes by cell and neuron."""
    run = engine(name).start(batch)
    spikes = run.advance(round(ms / batch.dt_ms))
    return run.snapshot(), as_lists(spikes)


def as_lists(spikes: Spikes) -> list[Array]:
    C, N = spikes.counts.shape
    return [spikes.time_ms[c, j, : spikes.counts[c, j]] for c in range(C) for j in range(N)]


@pytest.mark.parametrize("fast", FAST)
@pytest.mark.parametrize("network", NETWORKS)
def test_engines_agree_over_50_ms(fast: str, network: str) -> None:
    batch = batch_of(*NETWORKS[network], f"simulation.dt_ms={0.01 if network in LONG else 0.02}")
    (plain, plain_spikes), (quick, quick_spikes) = after("reference", batch, 50.0), after(fast, batch, 50.0)
    for name, a, b in zip(Snapshot._fields, plain, quick, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9, err_msg=name)
    assert sum(map(len, plain_spikes)) >= 2, "nothing fired, so little was compared"
    for a, b in zip(plain_spikes, quick_spikes, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fast", FAST)
@pytest.mark.parametrize("network", ["ei", "ii", "population"])
def test_engines_agree_on_many_paths(fast: str, network: str) -> None:
    """Of 40 replicas some come so near to threshold that they make much of a rounding: in the ten neurons of
    `population` one path in a hundred is then up to 5e-9 mV off with simd.
    """
    batch = assemble([load_recipe(network, ["simulation.replicas=40"])])
    (plain, _), (quick, _) = after("reference", batch, 50.0), after(fast, batch, 50.0)
    apart = np.abs(plain.V_mV - quick.V_mV)
    assert (apart <= 1e-9).mean() >= (0.98 if network == "population" else 1.0)
    assert apart.max() <= 1e-8


@pytest.mark.parametrize("name", ENGINES)
def test_pieces_and_company_leave_no_trace(name: str) -> None:
    recipes = [load_recipe("ii", [f"motif.delay_ms={d}", "neuron.I_uA_cm2=8", "simulation.replicas=2"])
               for d in (2, 5.13, 0)]  # fmt: skip
    together = engine(name).start(assemble(recipes))
    spikes = as_lists(together.advance(1500))
    alone = engine(name).start(assemble([recipes[1]], [1]))
    pieces = [as_lists(alone.advance(steps)) for steps in (1, 2, 700, 1, 796)]
    assert alone.step == together.step == 1500
    for a, b in zip(together.snapshot(), alone.snapshot(), strict=True):
        assert (a[2:4] == b).all()
    assert sum(map(len, spikes)) > 0
    for whole, *parts in zip(spikes[4:8], *pieces, strict=True):
        assert whole.tolist() == np.concatenate(parts).tolist()


@pytest.mark.parametrize("name", ENGINES)
def test_without_coupling_a_pair_is_two_single_neurons(name: str) -> None:
    pair, _ = after(name, batch_of("ei", "motif.g_mS_cm2=0"), 20.0)
    single, _ = after(name, batch_of("single", "noise.D_uA2_ms_cm4=1"), 20.0)
    assert (pair.V_mV[:, 0] == single.V_mV[:, 0]).all()
    assert (pair.V_mV[:, 1] != pair.V_mV[:, 0]).all(), "each neuron has noise of its own"


@pytest.mark.parametrize("name", ENGINES)
def test_the_delay_is_the_time_until_the_other_is_felt(name: str) -> None:
    """Neuron 0 is pushed over the threshold; 1 and its twin without a link part when the delay is over."""
    def started(g: float) -> Run:
        given = ("motif.delay_ms=0", "motif.delay_e_ms=4", "noise.D_uA2_ms_cm4=0", f"motif.g_mS_cm2={g}")
        return engine(name).start(batch_of("ei", *given, "simulation.start_V_mV=20,-65", replicas=1))

    with_link, without = started(2.0), started(0.0)
    for run in (with_link, without):
        run.advance(401)    # s is 0 at step 0, above 0 from step 1 on, and felt in the step after 1 + 400
    assert with_link.snapshot().V_mV[0, 1] == without.snapshot().V_mV[0, 1]
    for run in (with_link, without):
        run.advance(1)
    assert with_link.snapshot().V_mV[0, 1] > without.snapshot().V_mV[0, 1]


@pytest.mark.parametrize("name", ENGINES)
def test_noise_has_the_promised_size_and_end(name: str) -> None:
    given = ("noise.D_uA2_ms_cm4=2", "neuron.C_uF_cm2=1.25", "noise.off_after_ms=0.02")
    batch = batch_of("single", *given, bias=5.0, replicas=3)
    still = batch_of("single", *given[1:], "noise.D_uA2_ms_cm4=0", bias=5.0, replicas=3)
    noisy, quiet = engine(name).start(batch), engine(name).start(still)
    noisy.advance(1)
    quiet.advance(1)
    kick = (2 * 2 * 0.01) ** 0.5 / 1.25 * normals(batch.keys, 1, 0, 1)[0]
    np.testing.assert_allclose(noisy.snapshot().V_mV - quiet.snapshot().V_mV, kick, atol=1e-12)
    noisy.advance(9999)
    assert np.abs(noisy.snapshot().V_mV - quiet.snapshot().V_mV).max() < 1e-3, "the neuron came back to rest"


@pytest.mark.parametrize("name", ENGINES)
def test_a_crossing_within_the_refractory_time_is_the_same_spike(name: str) -> None:
    """With noise so strong that 0 mV is crossed again and again."""
    _, spikes = after(name, batch_of("single", "noise.D_uA2_ms_cm4=20000", bias=0.0, replicas=10), 20.0)
    gaps = np.concatenate([np.diff(one) for one in spikes])
    assert len(gaps) > 3 and gaps.min() >= 2.0


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_follows_its_brownian_path(name: str) -> None:
    """And so does the plain recursion that the next test refines."""
    batch = batch_of("single", "noise.D_uA2_ms_cm4=0.3", "simulation.dt_ms=0.01", bias=0.0, replicas=3)
    run = engine(name).start(batch)
    run.advance(800)
    expected = path_mV(batch, normals(batch.keys, 1, 0, 800)[:, :, 0])
    np.testing.assert_allclose(run.snapshot().V_mV[:, 0], expected, rtol=0, atol=1e-9)


def test_strong_order_one() -> None:
    """Coarse steps along the Brownian paths of fine ones, increments added up; no path has a spike."""
    fine = batch_of("single", "noise.D_uA2_ms_cm4=0.3", "simulation.dt_ms=0.0025", bias=0.0, replicas=100)
    z = normals(fine.keys, 1, 0, 3200)[:, :, 0]
    ends = {k: path_mV(replace(fine, dt_ms=0.0025 * k), z.reshape(-1, k, 100).sum(axis=1) / k**0.5)
            for k in (1, 8, 16, 32)}  # fmt: skip
    errors = [((ends[k] - ends[1]) ** 2).mean() ** 0.5 / (k - 1) for k in (8, 16, 32)]
    orders = np.log2(errors[1:]) - np.log2(errors[:-1]) + 1.0
    assert np.abs(orders - 1.0).max() < 0.15, orders


def path_mV(batch: Batch, z_TC: Array) -> Array:
    """The last voltages [C] of Euler-Maruyama along given increments, by the equations themselves."""
    state, scale = batch.start[:, 0].copy(), (2 * batch.D_uA2_ms_cm4 * batch.dt_ms) ** 0.5
    for z_C in z_TC:
        state = state + batch.dt_ms * derivative(batch.neuron, state, batch.I_uA_cm2)
        state[:, 0] += scale * z_C
        assert state[:, 0].max() < -40.0, "a spike; choose other paths"
    return np.asarray(state[:, 0])


def test_an_unknown_engine_is_one_line_with_the_fix() -> None:
    with pytest.raises(ConfigError, match="no engine cuda. Fix: use one of simd, numba, reference"):
        engine("cuda")
