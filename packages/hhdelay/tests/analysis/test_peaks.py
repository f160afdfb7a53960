"""Maxima are found where they are, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from hhdelay.analysis.peaks import find_peaks
from hhdelay.config.errors import ConfigError


def hills(x: np.ndarray, at: list[float], height: float = 1.5, width: float = 2.5) -> np.ndarray:
    """R of 4 with a hill in ln R at each place."""
    return 4.0 * np.exp(sum(height * np.exp(-(((x - one) / width) ** 2)) for one in at))


@pytest.mark.parametrize("step_ms", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shift_ms", [0.0, 0.13, 0.5, 0.9])
def test_positions_are_good_to_a_fraction_of_the_grid(step_ms: float, shift_ms: float) -> None:
    at = [9.3 + shift_ms, 26.1 + shift_ms, 43.0 + shift_ms]
    x = np.arange(1.0, 55.0, step_ms)
    found = find_peaks(x, hills(x, at), mean_ms=15.0 + x / 10)
    assert [one.position_ms for one in found] == pytest.approx(at, abs=0.1 * step_ms)
    for one in found:
        assert one.mean_ms == pytest.approx(15.0 + one.position_ms / 10)
        assert pytest.approx(4.0 * np.exp(1.5), rel=0.1) == one.R
        assert one.prominence == pytest.approx(1.5, abs=0.25) and not one.edge


def test_an_uneven_grid_is_no_hindrance() -> None:
    x = np.sort(np.random.default_rng(3).uniform(1.0, 55.0, 120))
    found = find_peaks(x, hills(x, [10.0, 30.0]))
    assert [one.position_ms for one in found] == pytest.approx([10.0, 30.0], abs=0.2)


def test_noise_about_a_level_makes_no_peak() -> None:
    rng, x, error = np.random.default_rng(1), np.arange(60.0), 0.1
    false = 0
    for _ in range(100):
        R = 5.0 * np.exp(error * rng.standard_normal(60))
        wide = np.exp(1.96 * error)
        false += len(find_peaks(x, R, R / wide, R * wide))
    assert false <= 8
    assert len(find_peaks(x, R)) > 3, "without intervals the threshold alone decides"


def test_noise_on_hills_leaves_their_number() -> None:
    rng, x, error = np.random.default_rng(2), np.arange(1.0, 60.0), 0.12
    wide = np.exp(1.96 * error)
    for _ in range(30):
        R = hills(x, [10.0, 27.0, 44.0]) * np.exp(error * rng.standard_normal(len(x)))
        found = find_peaks(x, R, R / wide, R * wide)
        assert [one.position_ms for one in found if not one.edge] == pytest.approx([10, 27, 44], abs=1.5)


def test_few_replicas_make_wide_intervals_that_count_for_less() -> None:
    """4 replicas: half of a 95 % interval is 3.182 standard errors, not 1.96."""
    x = np.arange(1.0, 40.0)
    R = hills(x, [10.0, 27.0], height=0.8)
    wide = np.exp(3.182 * 0.15)
    assert find_peaks(x, R, R / wide, R * wide) == []
    assert len(find_peaks(x, R, R / wide, R * wide, half_width=3.182)) == 2


def test_one_stray_sample_does_not_split_a_maximum() -> None:
    x = np.arange(1.0, 40.0)
    R = hills(x, [20.0], width=5.0)
    R[19] *= 0.75   # at its top
    assert len(find_peaks(x, R)) == 1


def test_nan_and_infinity_are_passed_over() -> None:
    x = np.arange(1.0, 55.0)
    R = hills(x, [10.0, 30.0])
    R[[0, 12, 13, 40]] = np.nan
    R[45] = np.inf
    assert [one.position_ms for one in find_peaks(x, R)] == pytest.approx([10, 30], abs=0.3)
    assert find_peaks(x, np.full(len(x), np.nan)) == []
    assert find_peaks(x[:0], R[:0]) == []


@pytest.mark.parametrize("at", [1.5, 1.8, 53.5])
def test_a_maximum_cut_off_by_the_range_says_so(at: float) -> None:
    x = np.arange(1.0, 55.0)
    found = find_peaks(x, hills(x, [at, 25.0]))
    edges = [one for one in found if one.edge]
    assert len(found) == 2 and len(edges) == 1
    assert edges[0].position_ms == pytest.approx(at, abs=0.6)


def test_a_slope_ends_in_an_edge_and_so_does_a_level() -> None:
    x = np.arange(1.0, 41.0)
    (only,) = find_peaks(x, np.exp(x / 20))
    assert only.edge and only.position_ms == 40.0
    assert all(one.edge for one in find_peaks(x, np.where(x < 35, 5.0, 2.0)))


def test_a_plateau_is_one_maximum_in_its_middle() -> None:
    x = np.arange(1.0, 41.0)
    (only,) = find_peaks(x, np.where((x >= 15) & (x <= 21), 9.0, 3.0))
    assert only.position_ms == pytest.approx(18.0) and pytest.approx(9.0) == only.R


def test_equal_maxima_both_count() -> None:
    x = np.arange(9.0)
    R = np.array([2.0, 2, 8, 2, 2, 2, 8, 2, 2])
    assert [one.position_ms for one in find_peaks(x, R)] == pytest.approx([2, 6])


def test_small_maxima_do_not_count() -> None:
    x = np.arange(1.0, 40.0)
    assert find_peaks(x, hills(x, [12.0, 28.0], height=0.15)) == []
    assert len(find_peaks(x, hills(x, [12.0, 28.0], height=0.15), prominence=0.1)) == 2


def test_wrong_arrays_are_one_line() -> None:
    for x, R in ((np.arange(3.0), np.ones(4)), (np.array([1.0, 1.0]), np.ones(2))):
        with pytest.raises(ConfigError, match="Fix: "):
            find_peaks(x, R)


def test_a_top_with_a_dent_is_one_maximum() -> None:
    """A measured top, EI at g = 4: an estimate with a heavy tail splits it, and both halves lead to 58 ms."""
    R = np.array([5.0, 5.5, 6.5, 7.8, 9.0, 10.2, 16.0, 18.0, 22.9, 22.3, 15.0, 22.3, 22.7, 19.0, 19.9, 19.4,
                  16.9, 13.8, 16.0, 15.0, 12.6, 12.2, 12.1, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0])  # fmt: skip
    x = 52.5 + 0.5 * np.arange(len(R))
    found = find_peaks(x, R, R / 1.05, R * 1.05)
    assert [one.position_ms for one in found] == pytest.approx([58.1], abs=0.4)


def test_one_wild_error_neither_makes_nor_hides_a_maximum() -> None:
    """The error of a sample is the median of five: that of its own and of two on each side."""
    x = np.arange(0.0, 40.0, 0.5)
    R = hills(x, [20.0], height=1.5)
    top = int(np.argmax(R))
    for wild, peaks in ((1, 1), (2, 1), (3, 0)):
        share = np.full(len(x), 1.02)
        share[top : top + wild] = 8.0
        assert len(find_peaks(x, R, R / share, R * share)) == peaks, wild
    share = np.full(len(x), 8.0)
    share[top] = 1.0001     # surely wrong: its neighbours know nothing
    assert find_peaks(x, R, R / share, R * share) == []
