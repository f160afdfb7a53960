"""Tongues of a map: maxima of R over the delay, row by row of the coupling strength, joined to one another.

Arrays are [G, D]: row = strength, column = delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hhdelay.analysis.laws import Law, period, resonances
from hhdelay.analysis.peaks import NORMAL, PROMINENCE, Peak, find_peaks
from hhdelay.gates import Array

REACH = 0.35            # of the median gap between maxima in a row: how far one tongue leans from row to row
LONE_REACH_MS = 6.0     # where no row has two maxima


class Tongue(NamedTuple):
    """One maximum, followed over the strengths."""

    strengths: tuple[float, ...]    # ascending; rows without it are left out
    peaks: tuple[Peak, ...]

    @property
    def tip(self) -> float:
        """The least strength at which it counts as a maximum."""
        return self.strengths[0]


class Line(NamedTuple):
    """Where a law puts the maximum of one order, over those strengths whose period is known."""

    order: int
    strengths: Array    # [n] ascending
    delays_ms: Array    # [n]


def peaks_by_row(
    delays_ms: Array, R: Array, R_low: Array | None = None, R_high: Array | None = None,
    mean_ms: Array | None = None, *, prominence: float = PROMINENCE, half_width: float = NORMAL,
) -> list[list[Peak]]:
    """`find_peaks` of each row of R [G, D]; rows that have not been run have none."""

    def row(values: Array | None, g: int) -> Array | None:
        return None if values is None else values[g]

    return [
        find_peaks(delays_ms, R[g], row(R_low, g), row(R_high, g), row(mean_ms, g),
                   prominence=prominence, half_width=half_width)
        for g in range(len(R))
    ]  # fmt: skip


def tongues(strengths: Array, rows: Sequence[Sequence[Peak]]) -> list[Tongue]:
    """Maxima joined to tongues, in the order of their delay; a tongue is one row at least.

    strengths   [G] ascending
    rows        the maxima of each strength

    From the strongest row down, the nearest pairs of a tongue's last maximum and a maximum of the row are
    joined first, as long as they are within REACH; what is left over begins a tongue of its own.
    """
    gaps = [b.position_ms - a.position_ms for row in rows for a, b in pairwise(row)]
    reach_ms = REACH * float(np.median(gaps)) if gaps else LONE_REACH_MS
    open_: list[list[tuple[float, Peak]]] = []
    for g in range(len(rows) - 1, -1, -1):
        pairs = sorted(
            (abs(tongue[-1][1].position_ms - peak.position_ms), t, p)
            for t, tongue in enumerate(open_) for p, peak in enumerate(rows[g])
        )  # fmt: skip
        taken_tongues: set[int] = set()
        taken_peaks: set[int] = set()
        for apart_ms, t, p in pairs:
            if apart_ms <= reach_ms and t not in taken_tongues and p not in taken_peaks:
                open_[t].append((float(strengths[g]), rows[g][p]))
                taken_tongues.add(t)
                taken_peaks.add(p)
        open_ += [[(float(strengths[g]), one)] for p, one in enumerate(rows[g]) if p not in taken_peaks]
    made = [Tongue(tuple(s for s, _ in one[::-1]), tuple(p for _, p in one[::-1])) for one in open_]
    return sorted(made, key=lambda one: one.peaks[-1].position_ms)


def resonance_lines(
    strengths: Array, rows: Sequence[Sequence[Peak]], laws: Sequence[Law], longest_ms: float
) -> list[Line]:
    """Where the law of each row [G] puts its maxima, for T the mean interval at the maxima of that row.

    A row without maxima has no T and no point on any line.
    """
    points: dict[int, list[tuple[float, float]]] = {}
    for strength, row, law in zip(strengths, rows, laws, strict=True):
        T = period(row)
        if np.isfinite(T):
            for order, delay_ms in resonances(law, T, longest_ms):
                points.setdefault(order, []).append((float(strength), delay_ms))
    return [
        Line(order, np.array([s for s, _ in some]), np.array([d for _, d in some]))
        for order, some in sorted(points.items())
    ]
