"""Whole runs: what they find, what leaves them alone, and what stops them."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hhdelay.config.errors import StepError
from hhdelay.config.load import load_recipe
from hhdelay.engines import engine
from hhdelay.measure import Coherence, coherence
from hhdelay.network import assemble, observed
from hhdelay.simulate import measure, simulate, trace


def found(recipe: str, *overrides: str, seconds: float = 4.0) -> Coherence:
    return simulate(load_recipe(recipe, [f"simulation.duration_ms={1e3 * seconds}", *overrides])).coherence


def test_the_engines_give_the_same_statistics() -> None:
    given = ("simulation.duration_ms=150", "simulation.warmup_ms=30", "simulation.dt_ms=0.02")
    recipe = load_recipe("ei", [*given, "simulation.replicas=2", "neuron.I_uA_cm2=8"])
    quick, plain = (simulate(recipe, using=engine(name)).coherence for name in ("numba", "reference"))
    assert quick.spikes[0] == plain.spikes[0] > 15
    np.testing.assert_allclose([quick.R[0], quick.mean_ms[0]], [plain.R[0], plain.mean_ms[0]], rtol=1e-6)


def test_a_single_noisy_neuron_has_the_known_rate_and_coherence() -> None:
    """Known: <T> 15 ms, R 4.75 at I = 5, D = 32, of two neurons, 20 s x 4."""
    one = found("single", seconds=10.0)
    assert one.mean_ms[0] == pytest.approx(15.0, abs=0.5)
    assert one.R[0] == pytest.approx(4.75, rel=0.08)


def test_delay_tunes_coherence() -> None:
    """EI, excitatory neuron, at 9 ms: R 20 to 29, <T> 16.9; at 18 ms: R 4.2, <T> 21.1 ms."""
    on, off = found("ei"), found("ei", "motif.delay_ms=18")
    assert on.R[0] > 14 and on.mean_ms[0] == pytest.approx(16.94, abs=0.15)
    assert off.R[0] == pytest.approx(4.2, rel=0.15) and off.mean_ms[0] == pytest.approx(21.06, abs=0.6)


def test_inhibitory_pairs_fire_in_phase_and_in_antiphase_by_turns() -> None:
    for delay_ms, phase in ((10, 0.0), (18, 0.5)):
        pair = found("ii", f"motif.delay_ms={delay_ms}")
        apart = abs((pair.phase[0, 0] - phase + 0.5) % 1.0 - 0.5)
        assert apart < 0.05 and pair.locking[0, 0] > 0.8


def test_only_the_sum_of_the_delays_matters_in_ei() -> None:
    """A longer delay of excitation and a shorter one of inhibition: the same loop."""
    one, other = found("ei", "motif.delay_ms=18"), found("ei", "motif.delay_ms=10", "motif.delay_e_ms=8")
    assert one.mean_ms[0] == pytest.approx(other.mean_ms[0], rel=0.04)
    assert one.R[0] == pytest.approx(other.R[0], rel=0.2)
    moved = found("ei", "motif.delay_ms=18", "motif.delay_e_ms=8")
    assert moved.R[0] > 2 * one.R[0], "18 + 8 is a maximum, 18 is none"


def test_the_neurons_of_an_inhibitory_pair_are_alike() -> None:
    tally = simulate(load_recipe("ii", ["simulation.duration_ms=4000"])).tally
    means = tally.mean_ms.mean(axis=0)
    assert means[0] == pytest.approx(means[1], rel=0.01)
    assert abs(tally.spikes[:, 0].sum() - tally.spikes[:, 1].sum()) <= 8


def test_without_noise_an_excitable_neuron_is_silent() -> None:
    assert found("single", "noise.D_uA2_ms_cm4=0").spikes[0] == 0


def test_swapping_an_inhibitory_pair_swaps_its_numbers() -> None:
    """Exactly: started apart and without noise, so that nothing but the wiring tells 0 from 1."""
    given = ["noise.D_uA2_ms_cm4=0", "neuron.I_uA_cm2=12", "simulation.duration_ms=300"]
    one, other = (simulate(load_recipe("ii", [*given, f"simulation.start_V_mV={start}"])).tally
                  for start in ("-70,-50", "-50,-70"))  # fmt: skip
    assert (one.spikes == other.spikes[:, ::-1]).all() and one.spikes.min() > 5
    assert (one.mean_ms == other.mean_ms[:, ::-1]).all()


@pytest.mark.parametrize("dt_ms", [0.5, 0.1])
def test_a_step_too_large_says_so(dt_ms: float) -> None:
    message = rf"simulation.dt_ms={dt_ms} is too large. Fix: set simulation.dt_ms to 0.02"
    with pytest.raises(StepError, match=message) as caught:
        found("ei", f"simulation.dt_ms={dt_ms}", "neuron.g_Na_mS_cm2=1200")
    assert "\n" not in str(caught.value)


def test_kept_spikes_are_those_that_were_counted() -> None:
    told: list[float] = []
    recipe = load_recipe("ii", ["simulation.duration_ms=600"])
    outcome = simulate(recipe, keep_spikes=True, progress=told.append)
    assert [[len(t) for t in row] for row in outcome.spikes] == outcome.tally.spikes.tolist()
    assert all(t.min() >= 500.0 and t.max() < 1100.0 for row in outcome.spikes for t in row)
    assert told == sorted(told) and told[-1] == 1.0


def test_a_trace_begins_at_the_start_and_shows_what_follows() -> None:
    lines = trace(load_recipe("single", ["simulation.start_V_mV=20", "noise.D_uA2_ms_cm4=0"]), 10.0)
    assert lines["t_ms"].tolist()[:2] == [0.0, 0.01] and len(lines["t_ms"]) == 1001
    assert lines["V_mV"].shape == (1001, 1) and lines["V_mV"][0, 0] == 20.0
    assert lines["V_mV"].min() < -70.0
    assert all(((lines[x] >= 0) & (lines[x] <= 1)).all() for x in "mhns")


def test_step_and_law_of_the_noise_do_not_show() -> None:
    """Weak order 1: T and R are the same within their errors at half the step and with triangular noise."""
    base = found("single", seconds=10.0)
    for other in ("simulation.dt_ms=0.02", "noise.law=triangular", "simulation.seed=2"):
        one = found("single", other, seconds=10.0)
        assert one.mean_ms[0] == pytest.approx(base.mean_ms[0], rel=0.03), other
        assert one.R[0] == pytest.approx(base.R[0], rel=0.1), other


def test_threads_side_by_side_change_nothing() -> None:
    def spikes(delay_ms: float) -> list[list[list[float]]]:
        recipe = load_recipe("ii", [f"motif.delay_ms={delay_ms}", "simulation.duration_ms=400"])
        return [[t.tolist() for t in row] for row in simulate(recipe, keep_spikes=True).spikes]

    delays = (2.0, 6.0, 10.0, 14.0)
    with ThreadPoolExecutor(max_workers=4) as pool:
        assert list(pool.map(spikes, delays)) == [spikes(one) for one in delays]


def test_the_rhythm_outlives_the_noise() -> None:
    """Self-sustained firing at the working point, of known periods; one neuron alone falls silent."""
    given = ("noise.off_after_ms=600", "simulation.warmup_ms=1300")
    for kind, delay_ms, period_ms in (("ei", 9, 17.0), ("ei", 18, 26.7), ("ii", 2, 18.0), ("ii", 6, 27.4)):
        kept = found(kind, f"motif.delay_ms={delay_ms}", *given, seconds=0.3)
        assert kept.mean_ms[0] == pytest.approx(period_ms, abs=0.1)
    assert found("single", "noise.D_uA2_ms_cm4=1", *given, seconds=0.3).spikes[0] == 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "expected", "tolerance"), [("ei", 1.0, 0.05), ("ii", 0.5, 0.03)])
def test_spacing_laws(kind: str, expected: float, tolerance: float) -> None:
    """Maxima of R: one period apart in EI, half a period in II (g = 2, D = 1)."""
    delays = np.arange(5.0, 50.1, 1.0)
    recipes = [load_recipe(kind, [f"motif.delay_ms={d}", "simulation.replicas=4"]) for d in delays]
    batch = assemble(recipes)
    tally = measure(engine().start(batch), batch, 50_000, 600_000)
    scan = coherence(tally, 6000.0, 4, observed(recipes[0].motif))
    tops = [k for k in range(3, len(delays) - 3) if scan.R[k] == scan.R[k - 3 : k + 4].max()]
    spacing = (delays[tops[-1]] - delays[tops[0]]) / (len(tops) - 1)
    assert len(tops) == (3 if kind == "ei" else 5), delays[tops]
    assert spacing / scan.mean_ms[tops].mean() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("given", "blamed", "mended"), [
    ("noise.D_uA2_ms_cm4=1000", "_cm4=1000 drives it too far. Fix: set noise.D_uA2_ms_cm4 to 50",
     "noise.D_uA2_ms_cm4=50"),
    ("motif.g_mS_cm2=1000", "too strong for simulation.dt_ms=0.01. Fix: set simulation.dt_ms to 0.0005",
     "simulation.dt_ms=0.0005"),
])  # fmt: skip
def test_noise_and_coupling_are_blamed_for_what_they_do_and_the_fix_helps(
    given: str, blamed: str, mended: str
) -> None:
    short = (given, "simulation.duration_ms=200", "simulation.warmup_ms=100", "simulation.replicas=4")
    with pytest.raises(StepError, match=re.escape(blamed)):
        simulate(load_recipe("ei", short))
    assert simulate(load_recipe("ei", (*short, mended))).tally.spikes.sum() > 0
