"""Maxima of neighbouring rows become tongues with tips."""

from __future__ import annotations

import numpy as np
import pytest

from hhdelay.analysis.laws import Law
from hhdelay.analysis.tongues import peaks_by_row, resonance_lines, tongues

DELAYS = np.arange(1.0, 60.0)
STRENGTHS = np.array([0.4, 0.8, 1.2, 1.6, 2.0])
TIPS = {9.0: 0.8, 26.0: 1.2, 43.0: 1.6}     # place at the strongest row: least strength


def made_map() -> np.ndarray:
    """Three tongues that lean to the right as the coupling weakens."""
    R = np.full((len(STRENGTHS), len(DELAYS)), 4.0)
    for g, strength in enumerate(STRENGTHS):
        for place, tip in TIPS.items():
            height = 1.5 if strength >= tip else 0.1
            R[g] *= np.exp(height * np.exp(-(((DELAYS - place - 2.0 * (2.0 - strength)) / 2.5) ** 2)))
    return R


def test_tongues_have_the_tips_they_were_given() -> None:
    rows = peaks_by_row(DELAYS, made_map(), mean_ms=np.full((5, len(DELAYS)), 17.0))
    found = tongues(STRENGTHS, rows)
    assert [one.tip for one in found] == list(TIPS.values())
    assert [one.peaks[-1].position_ms for one in found] == pytest.approx(list(TIPS), abs=0.2)
    for one in found:
        assert list(one.strengths) == sorted(one.strengths)
        leaning = [peak.position_ms for peak in one.peaks]
        assert leaning == sorted(leaning, reverse=True)


def test_a_row_that_has_not_been_run_does_not_cut_a_tongue() -> None:
    R = made_map()
    R[2] = np.nan
    found = tongues(STRENGTHS, peaks_by_row(DELAYS, R))
    assert len(found) == 3 and found[0].strengths == (0.8, 1.6, 2.0)
    assert tongues(STRENGTHS, [[] for _ in STRENGTHS]) == []


def test_resonance_lines_take_the_period_of_each_row() -> None:
    T = np.broadcast_to(np.linspace(19.0, 16.5, 5)[:, None], (5, len(DELAYS)))
    rows = peaks_by_row(DELAYS, made_map(), mean_ms=T)
    lines = resonance_lines(STRENGTHS, rows, [Law(1.0, 7.7)] * 5, 55.0)
    assert [line.order for line in lines] == [1, 2, 3]
    for line in lines:
        assert line.strengths.tolist() == STRENGTHS[1:].tolist(), "the weakest row has no period"
        assert line.delays_ms == pytest.approx(line.order * T[1:, 0] - 7.7)
