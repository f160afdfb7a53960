"""The fits recover what they are given; the laws say what they are written to say."""

from __future__ import annotations

import numpy as np
import pytest

from hhdelay.analysis.laws import (
    DELTA_MS,
    LAG_MS,
    Law,
    expected_phase,
    fit_offset,
    law_of,
    period,
    resonances,
    spacing,
)  # fmt: skip
from hhdelay.analysis.peaks import Peak
from hhdelay.config.errors import ConfigError
from hhdelay.config.motif import Motif


def peak(position_ms: float, mean_ms: float = 17.0, edge: bool = False) -> Peak:
    return Peak(position_ms, 20.0, mean_ms, 1.5, edge)


def test_the_laws_of_the_motifs() -> None:
    EI, II = law_of(Motif(kind="EI", delay_e_ms=4.0)), law_of(Motif(kind="II"))
    assert EI is not None and II is not None
    assert (EI.periods, EI.offset_ms) == (1.0, DELTA_MS + LAG_MS + 4.0)
    assert (II.periods, II.offset_ms) == (0.5, DELTA_MS)
    assert law_of(Motif(kind="EE")) is None
    assert law_of(Motif(kind="links", neurons=1)) is None


def test_resonances_are_the_known_maxima() -> None:
    """At g = 2, D = 1, I = 5: EI 9.0 25.5 43.0 59.5 with T = 16.92, II 1.5 10 18.5 27.5 35 with T = 17.25."""
    EI, II = law_of(Motif(kind="EI")), law_of(Motif(kind="II"))
    assert EI and II
    assert [round(x, 2) for _, x in resonances(EI, 16.92, 65.0)] == [9.22, 26.14, 43.06, 59.98]
    assert [x for _, x in resonances(II, 17.25, 37.0)] == pytest.approx([1.5, 10, 18.5, 27.5, 35], abs=1.3)
    assert [n for n, _ in resonances(II, 17.25, 37.0)] == [1, 2, 3, 4, 5]
    assert resonances(EI._replace(offset_ms=20.0), 17.0, 30.0)[0].order == 2, "no delay is negative"
    assert resonances(EI, 17.0, 5.0) == []
    with pytest.raises(ConfigError, match="Fix: "):
        resonances(EI, 0.0, 10.0)


@pytest.mark.parametrize(
    ("law", "T"), [(Law(1.0, 7.7), 16.9), (Law(0.5, 7.05), 17.2), (Law(1.0, 19.7), 17.0)]
)
def test_period_and_offset_are_recovered(law: Law, T: float) -> None:
    scatter = np.random.default_rng(0).normal(0.0, 0.3, 20)
    exact = resonances(law, T, 62.0)
    peaks = [peak(delay + scatter[k], T + scatter[k + 9] / 10) for k, (_, delay) in enumerate(exact)]
    found = spacing(peaks)
    assert found.ratio == pytest.approx(law.periods, abs=3 * found.ratio_error)
    assert found.ratio_error < 0.04 and found.maxima == len(exact)
    assert found.period_ms == pytest.approx(T, abs=0.1) == period(peaks)
    offset = fit_offset(peaks, law, T)
    assert offset.offset_ms == pytest.approx(law.offset_ms, abs=4 * offset.error_ms)
    assert offset.orders == tuple(n for n, _ in exact)
    assert sum(offset.residuals_ms) == pytest.approx(0.0, abs=1e-9)


def test_the_error_of_the_spacing_is_that_of_repetition() -> None:
    rng = np.random.default_rng(4)
    each = [spacing([peak(9 + 17 * k + rng.normal(0, 0.5)) for k in range(5)]) for _ in range(400)]
    assert np.std([one.spacing_ms for one in each]) == pytest.approx(0.5 / np.sqrt(10), rel=0.1)
    errors = np.array([one.error_ms for one in each])
    assert np.sqrt((errors**2).mean()) == pytest.approx(0.5 / np.sqrt(10), rel=0.1)


def test_a_missed_and_a_split_maximum_leave_the_spacing() -> None:
    places = [1.5, 10, 18.5, 27, 44, 52.5]
    assert spacing([peak(x) for x in places]).spacing_ms == pytest.approx(8.5)
    split = spacing([peak(x) for x in (9.0, 25.5, 27.5, 43.5, 60.5)])
    assert split.spacing_ms == pytest.approx(17.1, abs=0.2)


def test_maxima_at_the_edge_are_left_out() -> None:
    peaks = [peak(0.0, 30.0, edge=True), peak(9.0), peak(26.0), peak(43.0)]
    assert spacing(peaks).maxima == 3 and spacing(peaks).ratio == pytest.approx(1.0)
    assert period(peaks) == 17.0 and period(peaks[:1]) == 30.0 and np.isnan(period([]))
    two = spacing(peaks[1:3])
    assert two.spacing_ms == 17.0 and np.isnan(two.error_ms) and np.isnan(two.ratio_error)
    with pytest.raises(ConfigError, match="Fix: "):
        spacing(peaks[:2])
    with pytest.raises(ConfigError, match="Fix: "):
        fit_offset(peaks[:1], Law(1.0, 7.7), 17.0)


def test_phases_alternate_in_ii_only() -> None:
    assert [expected_phase("II", k) for k in (1, 2, 3)] == [0.5, 0.0, 0.5]
    assert expected_phase("EI", 1) is None
