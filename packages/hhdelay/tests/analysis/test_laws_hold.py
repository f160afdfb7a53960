"""What the laws say of simulated pairs, at the working point: fast synapse, I = 5, g = 2, D = 1."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from hhdelay.analysis.laws import Spacing, fit_offset, law_of, spacing
from hhdelay.analysis.peaks import Peak, find_peaks
from hhdelay.config.load import load_recipe
from hhdelay.engines import engine
from hhdelay.measure import Coherence, coherence
from hhdelay.measure.coherence import student
from hhdelay.network import assemble, observed
from hhdelay.simulate import measure

REPLICAS, SECONDS = 8, 20.0    # cycles are skipped now and then: shorter runs put maxima of EI 1 ms off
LONGEST_MS = {("ei", 0.0): 48, ("ei", 4.0): 31, ("ii", 0.0): 38}  # three, two and four maxima inside


@cache
def scan(kind: str, delay_e_ms: float = 0.0) -> tuple[np.ndarray, Coherence, list[Peak]]:
    """R over the delay, in steps of 1 ms."""
    delays = np.arange(1.0, LONGEST_MS[kind, delay_e_ms] + 1.0)
    given = ["simulation.dt_ms=0.02", "simulation.warmup_ms=400",
             f"simulation.duration_ms={1e3 * SECONDS}", f"simulation.replicas={REPLICAS}",
             f"motif.delay_e_ms={delay_e_ms}"]  # fmt: skip
    recipes = [load_recipe(kind, [*given, f"motif.delay_ms={delay}"]) for delay in delays]
    batch, run = assemble(recipes), recipes[0].simulation
    tally = measure(engine().start(batch), batch, run.warmup_steps, run.duration_steps)
    found = coherence(tally, run.duration_ms, REPLICAS, observed(recipes[0].motif))
    peaks = find_peaks(delays, found.R, found.R_low, found.R_high, found.mean_ms,
                       half_width=student(REPLICAS - 1))  # fmt: skip
    return delays, found, peaks


@pytest.mark.parametrize(
    ("kind", "ratio", "tolerance", "maxima"), [("ei", 1.0, 0.05, 3), ("ii", 0.5, 0.03, 4)]
)
def test_maxima_are_a_period_or_half_a_period_apart(
    kind: str, ratio: float, tolerance: float, maxima: int
) -> None:
    found: Spacing = spacing(scan(kind)[2])
    assert found.maxima >= maxima, scan(kind)[2]
    assert found.ratio == pytest.approx(ratio, abs=tolerance)
    assert found.period_ms == pytest.approx(17.0, abs=0.6)


@pytest.mark.parametrize("kind", ["ei", "ii"])
def test_the_offset_is_that_of_the_law(kind: str) -> None:
    peaks, law = scan(kind)[2], law_of(load_recipe(kind).motif)
    assert law is not None
    found = fit_offset(peaks, law, spacing(peaks).period_ms)
    assert found.offset_ms == pytest.approx(law.offset_ms, abs=1.3)
    assert max(abs(one) for one in found.residuals_ms) < 2.0


def test_ii_fires_in_antiphase_and_in_phase_by_turns() -> None:
    delays, found, peaks = scan("ii")
    at = [int(np.argmin(np.abs(delays - one.position_ms))) for one in peaks]
    assert len(at) >= 4
    apart = [abs((found.phase[k, 0] - (0.5, 0.0)[n % 2] + 0.5) % 1.0 - 0.5) for n, k in enumerate(at)]
    assert max(apart) < 0.1 and found.locking[at, 0].min() > 0.7
    assert found.locking[:, 0].min() < 0.3, "between maxima there is no phase"


def test_only_the_sum_of_both_delays_matters_in_ei() -> None:
    """4 ms of excitatory delay move every maximum 4 ms down."""
    here = [one.position_ms for one in scan("ei")[2] if not one.edge]
    there = [one.position_ms + 4.0 for one in scan("ei", 4.0)[2] if not one.edge]
    assert len(there) == 2 and here[:2] == pytest.approx(there, abs=1.3)
