"""What is counted online is what NumPy finds in the whole list of spikes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hhdelay.measure import Recorder, Spikes, Tally, coherence, merge
from hhdelay.measure.coherence import skipped_per_interval, student
from hhdelay.measure.tally import BIN_MS, BINS


def trains(cells: int = 3, neurons: int = 2, seed: int = 5) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [[np.cumsum(rng.gamma(20.0, 0.8, 200)) for _ in range(neurons)] for _ in range(cells)]


def as_spikes(lists: list[list[np.ndarray]], low: float, high: float) -> Spikes:
    chosen = [[t[(t >= low) & (t < high)] for t in row] for row in lists]
    K = max(len(t) for row in chosen for t in row) + 1
    shape = (len(lists), len(lists[0]))
    out = Spikes(np.zeros((*shape, K)), np.zeros(shape, dtype=np.int64))
    for c, row in enumerate(chosen):
        for j, times in enumerate(row):
            out.time_ms[c, j, : len(times)] = times
            out.counts[c, j] = len(times)
    return out


def tally_of(lists: list[list[np.ndarray]], edges: list[float]) -> Tally:
    recorder = Recorder(len(lists), len(lists[0]))
    for low, high in pairwise(edges):
        recorder.feed(as_spikes(lists, low, high))
    return recorder.tally


def same_bits(a: Tally, b: Tally) -> bool:
    return all((x == y).all() for x, y in zip(a, b, strict=True))


def test_the_counts_are_those_of_the_whole_list() -> None:
    lists = trains()
    tally = tally_of(lists, [0.0, 1e9])
    for c, row in enumerate(lists):
        for j, times in enumerate(row):
            gaps = np.diff(times)
            assert tally.spikes[c, j] == len(times) and tally.intervals[c, j] == len(gaps)
            assert tally.mean_ms[c, j] == pytest.approx(gaps.mean(), rel=1e-13)
            assert tally.m2_ms2[c, j] == pytest.approx(gaps.var() * len(gaps), rel=1e-11)
            assert (tally.shortest_ms[c, j], tally.longest_ms[c, j]) == (gaps.min(), gaps.max())
            expected, _ = np.histogram(gaps, np.arange(BINS + 1) * BIN_MS)
            assert (tally.histogram[c, j] == expected).all()


def test_pieces_leave_no_trace() -> None:
    lists = trains()
    whole = tally_of(lists, [0.0, 1e9])
    assert same_bits(whole, tally_of(lists, [0.0, 10.0, 10.5, 700.0, 701.0, 3000.0, 1e9]))
    assert same_bits(whole, tally_of(lists, list(np.arange(0.0, 4000.0, 7.0))))


def test_long_intervals_go_to_the_last_bin() -> None:
    tally = tally_of([[np.array([1.0, 1000.0, 1002.2])]], [0.0, 1e9])
    assert tally.histogram[0, 0, BINS - 1] == 1 and tally.histogram[0, 0, 4] == 1


@pytest.mark.parametrize("lag", [0.0, 0.25, 0.5, 0.9])
def test_a_fixed_lag_is_found(lag: float) -> None:
    beats = 10.0 + 16.0 * np.arange(100)
    found = coherence(tally_of([[beats, beats + 16.0 * lag]], [0.0, 33.0, 400.0, 1e9]), 1610.0, 1)
    assert abs((found.phase[0, 0] - lag + 0.5) % 1.0 - 0.5) < 1e-12
    assert found.locking[0, 0] == pytest.approx(1.0, abs=1e-12)


def test_unrelated_neurons_are_not_locked() -> None:
    found = coherence(tally_of(trains(cells=8), [0.0, 1e9]), 3200.0, 8)
    assert found.locking[0, 0] < 0.2


def test_only_the_first_spike_of_an_interval_has_a_lag() -> None:
    tally = tally_of([[np.array([10.0, 20.0, 30.0]), np.array([5.0, 12.0, 17.0, 30.0])]], [0.0, 15.0, 1e9])
    assert tally.lags[0, 1] == 1
    assert np.arctan2(tally.lag_sin[0, 1], tally.lag_cos[0, 1]) == pytest.approx(2 * np.pi * 0.2)


def test_merging_is_the_tally_of_both() -> None:
    first, second = trains(seed=1), trains(seed=2)
    both = merge([tally_of(first, [0.0, 1e9]), tally_of(second, [0.0, 1e9])])
    gaps = np.concatenate([np.diff(first[1][0]), np.diff(second[1][0])])
    assert both.intervals[1, 0] == len(gaps)
    assert both.mean_ms[1, 0] == pytest.approx(gaps.mean(), rel=1e-13)
    assert both.m2_ms2[1, 0] == pytest.approx(gaps.var() * len(gaps), rel=1e-11)
    nothing = Recorder(3, 2).tally
    assert same_bits(merge([both, nothing]), both)


def test_coherence_pools_neurons_and_replicas() -> None:
    lists = trains(cells=6)
    found = coherence(tally_of(lists, [0.0, 1e9]), 3500.0, 3)
    for point in (0, 1):
        gaps = np.concatenate([np.diff(t) for row in lists[3 * point : 3 * point + 3] for t in row])
        assert found.R[point] == pytest.approx(gaps.mean() / gaps.std(), rel=1e-12)
        assert found.mean_ms[point] == pytest.approx(gaps.mean(), rel=1e-13)
        assert found.rate_Hz[point] == pytest.approx(1e3 * 1200 / (3500.0 * 6), rel=1e-12)
        assert found.R_low[point] < found.R[point] < found.R_high[point]


def test_a_point_has_the_same_bits_in_any_company() -> None:
    lists = trains(cells=6)
    whole, part = (coherence(tally_of(some, [0.0, 1e9]), 3500.0, 2) for some in (lists, lists[2:4]))
    for name in ("R", "R_low", "R_high", "mean_ms", "phase", "locking", "skipped"):
        assert (getattr(whole, name)[1:2] == getattr(part, name)).all()


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """R of gamma intervals of shape 20 is sqrt(20); 95 % of 200 intervals would be 190 of them."""
    found = coherence(tally_of(trains(cells=1600, neurons=1), [0.0, 1e9]), 3200.0, 8)
    covered = ((found.R_low < 20**0.5) & (found.R_high > 20**0.5)).sum()
    assert 178 <= covered <= 200


def test_nothing_said_of_nothing() -> None:
    found = coherence(Recorder(2, 2).tally, 100.0, 2)
    assert found.spikes[0] == 0 and found.rate_Hz[0] == 0.0
    for name in ("R", "R_low", "mean_ms", "sd_ms", "skipped", "phase", "longest_ms"):
        assert np.isnan(getattr(found, name)[0]).all(), name
    equal = coherence(tally_of([[np.arange(10.0) * 16.0]], [0.0, 1e9]), 160.0, 1)
    assert equal.R[0] == np.inf and np.isnan(equal.R_low[0])


def test_skipped_cycles() -> None:
    histogram = np.zeros(BINS, dtype=np.int64)
    histogram[[33, 34, 35]] = 30, 40, 20        # cycles of about 17 ms
    histogram[[68, 103]] = 8, 2                 # one left out, two left out
    assert skipped_per_interval(histogram) == pytest.approx((8 * 1 + 2 * 2) / 100)
    histogram[-1] = 5       # of 200 ms and more: never the commonest, and few of them are taken as 200 ms
    assert 0.1 < skipped_per_interval(histogram) < 1.0
    histogram[-1] = 50
    assert np.isnan(skipped_per_interval(histogram)), "most of it unknown"


def test_student() -> None:
    assert (student(1), student(7), student(30)) == (12.706, 2.365, 2.042)
    assert student(60) == pytest.approx(2.000, abs=2e-3)
