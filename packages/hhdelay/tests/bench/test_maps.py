"""The same map by ours and by Brian2: what each is given, and that they agree."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from hhdelay.bench import find
from hhdelay.bench.ours import Map, make_map, neuron_steps, rate_per_s
from hhdelay.bench.peer import Brian2Map, compare, job_of, log_correlation, open_ms, spikes_of
from hhdelay.bench.plan import Grid, full, quick
from hhdelay.config.errors import HHDelayError
from hhdelay.engines import ENGINES, engine
from hhdelay.simulate import simulate

ROOT = Path(__file__).resolve().parents[4]
TINY = Grid(delays_ms=(2.0, 9.0), strengths_mS_cm2=(1.0, 2.0, 3.0), duration_ms=300.0, warmup_ms=100.0)


def test_the_plans_are_what_is_promised() -> None:
    plan = full()
    assert (plan.grid.cells, plan.grid.duration_ms, plan.turns, plan.workers) == (400, 10_000.0, 3, 2)
    assert plan.large and (len(plan.large.delays_ms), len(plan.large.strengths_mS_cm2)) == (141, 16)
    assert plan.large.duration_ms == 12_000.0
    assert neuron_steps(plan.grid) == 400 * 2 * 1_050_000, "warm-up included"
    assert quick().large is None and quick(5).turns == 5


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_a_map_is_that_of_single_cells_whoever_works(workers: int) -> None:
    found = make_map(engine(), TINY, workers)
    last = simulate(TINY.recipes()[-1], cell=TINY.cells - 1).coherence
    assert found.R.shape == (6,) and found.R[-1] == last.R[0] and found.intervals[-1] == last.intervals[0] > 0
    assert found.wall_s > 0 and found.cpu_s > 0


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_a_rate(name: str) -> None:
    assert rate_per_s(engine(name), "gaussian", 0.01) > 0


def test_the_job_holds_the_same_network() -> None:
    job = job_of(TINY, 2)
    assert job["source"] == [k ^ 1 for k in range(12)], "each listens to the other of its pair"
    assert job["delay_ms"][:2] == [2.0, 0.0] and job["delay_ms"][6:8] == [9.0, 0.0], "inhibition is delayed"
    assert job["E_syn_mV"] == [-80.0, 0.0] * 6
    assert job["g_mS_cm2"] == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0] * 2
    assert job["total_ms"] == 400.0 and job["constants"]["D"] == 1.0 and job["constants"]["I"] == 5.0
    assert (job["openmp_threads"], job_of(TINY, 1)["openmp_threads"]) == (2, 0)


def test_a_spike_opens_the_synapse_for_about_a_millisecond() -> None:
    assert 0.9 < open_ms(TINY.recipes()[0]) < 1.3


def test_spikes_come_cell_by_cell_without_the_warm_up() -> None:
    neuron = np.array([3, 0, 3, 0, 11, 3])
    t_ms = np.array([50.0, 120.0, 130.0, 110.0, 399.0, 100.0])
    spikes = spikes_of(neuron, t_ms, TINY)
    assert spikes.counts.tolist() == [[2, 0], [0, 2], [0, 0], [0, 0], [0, 0], [0, 1]]
    assert spikes.time_ms[0, 0].tolist() == [110.0, 120.0] and spikes.time_ms[1, 1].tolist() == [100.0, 130.0]
    silent = spikes_of(np.zeros(0, dtype=np.int64), np.zeros(0), TINY)
    assert silent.counts.sum() == 0 and silent.time_ms.shape == (6, 2, 1)


def test_log_correlation() -> None:
    a = np.array([1.0, 2.0, 4.0, 8.0])
    assert log_correlation(a, a) == pytest.approx(1.0)
    assert log_correlation(a, 5 * a**2) == pytest.approx(1.0), "a power is a line in logarithms"
    assert log_correlation(a, 1 / a) == pytest.approx(-1.0)
    assert np.isnan(log_correlation(a[:2], a[:2])) and np.isnan(log_correlation(a, np.ones(4)))


def test_only_points_with_intervals_enough_are_compared() -> None:
    R = np.array([1.0, 2.0, 4.0, 8.0, np.nan])
    ours = Map(R, np.array([50.0, 50.0, 50.0, 50.0, 0.0]), 1.0, 1.0)
    theirs = Map(2 * R, np.array([50.0, 50.0, 50.0, 29.0, 50.0]), 1.0, 1.0)
    assert compare(ours, theirs) == (pytest.approx(1.0), 2.0, 3)


@pytest.fixture
def brian2() -> Path:
    """The Python that has Brian2."""
    found = find(None, ROOT)
    if found is None:
        pytest.skip("no .venv-brian2 in the repository's root; `make bench` makes it")
    return found


def test_brian2_makes_the_same_map(brian2: Path, tmp_path: Path) -> None:
    """Too short to correlate where cycles are skipped: delays that differ most, the strongest coupling."""
    grid = Grid(delays_ms=(3.0, 6.0, 9.0, 18.0), strengths_mS_cm2=(2.0, 4.0), duration_ms=3000.0)
    with Brian2Map(brian2, grid, 2, tmp_path / "build") as peer:
        assert peer.build_s > 0
        first, second = peer.run(), peer.run()
    assert (first.R == second.R).all() and first.wall_s > 0 and first.cpu_s > 0
    correlation, factor, points = compare(make_map(engine(), grid, 2), first)
    assert points == 8 and correlation > 0.9 and 0.6 < factor < 1.6, (correlation, factor)


def test_a_program_that_fails_is_one_line_with_its_last_words(tmp_path: Path) -> None:
    """A Python without Brian2 ends at once."""
    with pytest.raises(HHDelayError, match=r"^Brian2's program ended with status 1: .*brian2.*Fix: [^\n]*$"):
        Brian2Map(Path(sys.executable), TINY, 2, tmp_path / "build")
