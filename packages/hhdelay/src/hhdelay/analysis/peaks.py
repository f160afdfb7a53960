"""Maxima of R over one axis, told from the scatter of the estimate.

Everything is done in ln R: R spans a decade, and its error is a share of it. The prominence of a maximum is
the way down to the higher of its two feet; a foot is the lowest stretch before the curve rises above the
maximum. One so near to the end of the range that the curve has no room to fall there counts, and says so.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hhdelay.config.errors import need
from hhdelay.gates import Array

PROMINENCE = 0.2        # in ln R: a maximum 22 % above its feet
SCATTER = 4.0           # standard errors of a difference; noise about a level spans some 4.6 over 60 samples
NORMAL = 1.96           # standard errors in half of a 95 % interval, of many replicas
NEIGHBOURS = 2          # on each side: few replicas make errors that scatter, so the median of five is taken
UPPER_PART = 0.35       # share of the prominence, from the top, that the parabola is fitted to


class Peak(NamedTuple):
    """A maximum of R."""

    position_ms: float  # where the parabola through ln R is highest; in the unit of the axis
    R: float            # of the parabola there: the largest sample is too high on average
    mean_ms: float      # mean interval there, by straight lines between the samples; NaN where unknown
    prominence: float   # in ln R
    edge: bool          # the range ends before R has fallen on one side; position_ms may be off


class Curve(NamedTuple):
    """The finite samples of ln R, each [n]."""

    x: Array
    y: Array            # ln R
    error: Array        # its standard error; 0 where unknown


def find_peaks(
    x_ms: Array, R: Array, R_low: Array | None = None, R_high: Array | None = None,
    mean_ms: Array | None = None, *, prominence: float = PROMINENCE, half_width: float = NORMAL,
) -> list[Peak]:
    """Maxima of R over x_ms, in ascending order. All arrays [n], x_ms ascending; NaN is passed over.

    R_low, R_high   95 % interval; without it `prominence` alone decides
    prominence      the least that counts, in ln R; it must also be beyond the scatter of top and foot
    half_width      of the interval in standard errors: `measure.coherence.student(replicas - 1)`
    raises          ConfigError where x_ms does not ascend or a length differs
    """
    need(all(a is None or a.shape == x_ms.shape for a in (R, R_low, R_high, mean_ms)) and x_ms.ndim == 1,
         "x_ms, R and what goes with them differ in length", fix="give arrays of one length")  # fmt: skip
    need(bool((np.diff(x_ms) > 0).all()), "x_ms does not ascend", fix="sort the samples by x_ms")
    curve = _curve(x_ms, R, R_low, R_high, half_width)
    found = []
    for first, last in _tops(curve.y):
        measured = _measure(curve, first, last, prominence)
        if measured is not None:
            height, edge = measured
            position_ms, ln_R = _vertex(curve, first, last, height)
            T_ms = _at(x_ms, mean_ms, position_ms)
            found.append(Peak(position_ms, float(np.exp(ln_R)), T_ms, height, edge))
    return _one_each(found, float(np.median(np.diff(curve.x))) if len(curve.x) > 1 else 0.0)


def _one_each(found: list[Peak], sample: float) -> list[Peak]:
    """Without those whose parabola leads to within a sample of a more prominent one: a top with a dent."""
    return [
        one for k, one in enumerate(found)
        if all(abs(one.position_ms - other.position_ms) >= sample or
               (one.prominence, -k) > (other.prominence, -j)
               for j, other in enumerate(found) if j != k)
    ]  # fmt: skip


def _curve(x: Array, R: Array, R_low: Array | None, R_high: Array | None, half_width: float) -> Curve:
    good = np.isfinite(R) & (R > 0)
    error = np.zeros(int(good.sum()))
    if R_low is not None and R_high is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.log(R_high[good] / R_low[good]) / (2 * half_width)
    error = np.where(np.isfinite(error), error, 0.0)
    near = [error[max(k - NEIGHBOURS, 0) : k + NEIGHBOURS + 1] for k in range(len(error))]
    return Curve(x[good], np.log(R[good]), np.array([float(np.median(some)) for some in near]))


def _tops(y: Array) -> list[tuple[int, int]]:
    """First and last sample of every plateau with nothing higher beside it; a plateau may be one sample."""
    if not len(y):
        return []
    starts = [0, *(np.flatnonzero(np.diff(y) != 0) + 1).tolist(), len(y)]
    tops = []
    for first, after in pairwise(starts):
        rises = first == 0 or y[first - 1] < y[first]
        falls = after == len(y) or y[after] < y[first]
        if rises and falls:
            tops.append((first, after - 1))
    return tops


def _measure(curve: Curve, first: int, last: int, prominence: float) -> tuple[float, bool] | None:
    """Prominence, and whether the edge cuts the maximum off; None for one that does not count."""
    y, n = curve.y, len(curve.y)
    # The way to the left ends at an equal maximum, that to the right beyond it: the first of equals counts.
    ways = (np.arange(first - 1, -1, -1), y[first]), (np.arange(last + 1, n), np.nextafter(y[first], np.inf))
    left, right = (_side(curve, first, way, end, prominence) for way, end in ways)
    if left.falls and right.falls:
        return min(left.drop, right.drop), False
    for one, other in ((left, right), (right, left)):
        # The range ends before this side has had the length that the other one needs for its fall.
        if other.falls and not one.falls and one.open and one.length < other.to_foot:
            return other.drop, True
    return None


class Side(NamedTuple):
    """The way from a maximum to the first sample as high as it, or to the end of the range."""

    drop: float         # to the foot, in ln R; 0 or less where there is none
    falls: bool         # whether that counts
    open: bool          # whether the range ends before anything as high
    length: float       # along x
    to_foot: float      # along x


def _side(curve: Curve, top: int, way: NDArray[np.intp], end: float, prominence: float) -> Side:
    """A foot is the lowest pair of neighbours, so that one stray sample does not split a maximum."""
    x, y = curve.x, curve.y
    higher = np.flatnonzero(y[way] >= end)
    inside = way[: higher[0] + 1] if len(higher) else way
    if not len(inside):
        return Side(0.0, False, True, 0.0, 0.0)
    pairs = (y[inside[:-1]] + y[inside[1:]]) / 2 if len(inside) > 1 else y[inside]
    k = int(np.argmin(pairs))
    drop, error = float(y[top] - pairs[k]), curve.error[inside[k]] / np.sqrt(min(len(inside), 2))
    falls = drop > max(prominence, SCATTER * float(np.hypot(curve.error[top], error)))
    to_foot = abs(float(x[inside[k : k + 2]].mean() - x[top]))
    return Side(drop, falls, not len(higher), abs(float(x[inside[-1]] - x[top])), to_foot)


def _vertex(curve: Curve, first: int, last: int, height: float) -> tuple[float, float]:
    """Position and ln R of the highest point of a parabola through the upper part of the maximum.

    The middle of a plateau; the sample itself where it ends the range, or where no parabola opens downward.
    """
    x, y = curve.x, curve.y
    if last > first:
        return float(x[first] + x[last]) / 2, float(y[first])
    top = low = high = first
    floor = y[top] - UPPER_PART * height
    while low > 0 and (y[low - 1] > floor or low == top):
        low -= 1
    while high < len(y) - 1 and (y[high + 1] > floor or high == top):
        high += 1
    if low == top or high == top:
        return float(x[top]), float(y[top])
    reach = float(x[high] - x[low])
    u = (x[low : high + 1] - x[top]) / reach
    slope_2, slope, level = np.linalg.lstsq(np.stack([u * u, u, np.ones_like(u)], 1), y[low : high + 1])[0]
    at = -slope / (2 * slope_2) if slope_2 < 0 else np.inf
    if not u[0] <= at <= u[-1]:
        return float(x[top]), float(y[top])
    return float(x[top] + at * reach), float(level + slope * at / 2)


def _at(x: Array, values: Array | None, position: float) -> float:
    good = np.zeros(len(x), dtype=bool) if values is None else np.isfinite(values)
    if values is None or not good.any():
        return float("nan")
    return float(np.interp(position, x[good], values[good]))
