"""Where the maxima of R lie: laws that we found for fast inhibitory synapses, not results of the paper.

With T the mean interval at the maxima, measured there, and whole numbers n, k = 1, 2, ...

    EI    tau_n = n T - delta - lag - tau_e     one delayed link in the loop: maxima one period apart
    II    tau_k = k T / 2 - delta               two of them: half a period apart; the pair fires in antiphase
                                                at odd k, in phase at even k
    EE, links                                   no law

delta is the time from the arrival of inhibition to the rebound spike and lag the time from an excitatory
spike to the inhibitory one. DELTA_MS and LAG_MS are fits of ours at the working point (I = 5, g = 2, D = 1,
fast synapse); from g = 1.6 on the maxima lie within 1.3 ms of the law. T is neither the period of the damped
oscillation about rest (12.06 ms at I = 5) nor the mean interval of an uncoupled neuron (35 ms).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hhdelay.analysis.peaks import Peak
from hhdelay.config.errors import need
from hhdelay.config.motif import Motif
from hhdelay.gates import Array

DELTA_MS = 7.05     # fitted by eye to the maxima at g = 2; without noise the same pairs give 7.0 to 7.4
LAG_MS = 0.65       # measured at the maxima of EI at g = 2


class Law(NamedTuple):
    """tau_n = n * periods * T - offset_ms."""

    periods: float      # between neighbouring maxima: 1 in EI, 1/2 in II
    offset_ms: float


class Resonance(NamedTuple):
    """A predicted maximum."""

    order: int          # n in EI, k in II
    delay_ms: float


class Spacing(NamedTuple):
    """Distance of neighbouring maxima; the errors are standard errors, NaN below three maxima."""

    spacing_ms: float
    error_ms: float
    period_ms: float    # T, the average of the mean intervals at the maxima
    ratio: float        # spacing / T
    ratio_error: float
    maxima: int         # that went in: those at the edge of the range do not


class Offset(NamedTuple):
    """What a law subtracts from n periods."""

    offset_ms: float
    error_ms: float     # standard error; NaN for one maximum
    orders: tuple[int, ...]
    residuals_ms: tuple[float, ...]     # maxima less the law with this offset


def law_of(motif: Motif) -> Law | None:
    """The law of a motif, its delay_e_ms included; None for EE and links, which have none."""
    if motif.kind == "EI":
        return Law(1.0, DELTA_MS + LAG_MS + motif.delay_e_ms)
    return Law(0.5, DELTA_MS) if motif.kind == "II" else None


def resonances(law: Law, period_ms: float, longest_ms: float) -> list[Resonance]:
    """Every delay from 0 to longest_ms at which the law puts a maximum, for T = period_ms > 0."""
    need(period_ms > 0, f"period_ms={period_ms:g} is not above 0", fix="give the mean interval at the maxima")
    last = int((longest_ms + law.offset_ms) / (law.periods * period_ms))
    each = (Resonance(n, n * law.periods * period_ms - law.offset_ms) for n in range(1, last + 1))
    return [one for one in each if one.delay_ms >= 0]


def expected_phase(kind: str, order: int) -> float | None:
    """Of neuron 1 behind neuron 0 at a maximum of II, in intervals: 0.5 for odd orders, 0 for even ones."""
    return (0.5 if order % 2 else 0.0) if kind == "II" else None


def period(peaks: Sequence[Peak]) -> float:
    """T: the average of the mean intervals at the maxima, without those at the edge if there are others.

    NaN where there is no maximum.
    """
    inner = [one.mean_ms for one in peaks if not one.edge] or [one.mean_ms for one in peaks]
    known = [one for one in inner if np.isfinite(one)]
    return float(np.mean(known)) if known else float("nan")


def spacing(peaks: Sequence[Peak]) -> Spacing:
    """The slope of position against number, by least squares over the maxima inside the range.

    A gap near 0, 2, 3, ... times the median one counts as that many, so a maximum that was missed or split in
    two does not change the spacing. Raises ConfigError for fewer than two maxima inside the range.
    """
    inner = [one for one in peaks if not one.edge]
    need(len(inner) >= 2, f"a spacing needs two maxima inside the range, not {len(inner)}",
         fix="scan longer delays, or a stronger coupling")  # fmt: skip
    positions = np.array([one.position_ms for one in inner])
    gaps = np.diff(positions)
    numbers = np.concatenate([[0.0], np.cumsum(np.rint(gaps / np.median(gaps)))])
    slope, error = _slope(numbers, positions)
    T = period(inner)
    scatter = float(np.std([one.mean_ms for one in inner], ddof=1)) / np.sqrt(len(inner))
    ratio = slope / T
    return Spacing(slope, error, T, ratio, float(ratio * np.hypot(error / slope, scatter / T)), len(inner))


def fit_offset(peaks: Sequence[Peak], law: Law, period_ms: float) -> Offset:
    """The offset that fits the maxima inside the range, for T = period_ms and the spacing of `law`.

    An offset is known up to whole spacings only: the one nearest to law.offset_ms is taken. Raises
    ConfigError where there is no maximum inside the range.
    """
    positions = np.array([one.position_ms for one in peaks if not one.edge])
    need(len(positions) >= 1, "an offset needs a maximum inside the range", fix="scan longer delays")
    step = law.periods * period_ms
    orders = np.rint((positions + law.offset_ms) / step)
    offsets = orders * step - positions
    mean = float(offsets.mean())
    error = float(offsets.std(ddof=1) / np.sqrt(len(offsets))) if len(offsets) > 1 else float("nan")
    left = tuple(float(x) for x in mean - offsets)
    return Offset(mean, error, tuple(int(n) for n in orders), left)


def _slope(x: Array, y: Array) -> tuple[float, float]:
    """Of the straight line through (x, y) by least squares, and its standard error."""
    dx = x - x.mean()
    slope = float((dx * y).sum() / (dx * dx).sum())
    if len(x) < 3:
        return slope, float("nan")
    left = y - y.mean() - slope * dx
    return slope, float(np.sqrt((left * left).sum() / (len(x) - 2) / (dx * dx).sum()))
