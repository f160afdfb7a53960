"""What is kept of each neuron's spikes, in a few numbers and a histogram, and how such counts are merged.

C cells, N neurons, B bins. An interval is the time between successive spikes of one neuron. The lag of
neuron j behind neuron 0 is, in each interval of neuron 0 that holds a spike of j, the first such spike's
phase: 0 at the one spike of neuron 0, 1 at the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hhdelay.gates import Array

Counts = NDArray[np.int64]

BIN_MS = 0.5
BINS = 400      # 200 ms; the last one holds all that is longer


class Tally(NamedTuple):
    """Sums over the spikes of each neuron, each [C, N] unless said."""

    spikes: Counts
    intervals: Counts
    mean_ms: Array          # of the intervals
    m2_ms2: Array           # sum of their squared deviations from the mean
    shortest_ms: Array      # infinite where there is none
    longest_ms: Array       # 0 where there is none
    histogram: Counts       # [C, N, B], bins of BIN_MS from 0
    lags: Counts
    lag_cos: Array          # sums of the cosine and sine of 2 pi phase
    lag_sin: Array


def empty(cells: int, neurons: int) -> Tally:
    """The tally of no spikes."""
    shape = (cells, neurons)

    def zeros() -> Array:
        return np.zeros(shape)

    def none() -> Counts:
        return np.zeros(shape, dtype=np.int64)

    histogram = np.zeros((*shape, BINS), dtype=np.int64)
    return Tally(none(), none(), zeros(), zeros(), np.full(shape, np.inf), zeros(), histogram,
                 none(), zeros(), zeros())  # fmt: skip


def merge(tallies: Sequence[Tally]) -> Tally:
    """One tally of several of the same shape, element by element: replicas, neurons, or stretches of time.

    The first takes in the second, the result the third, and so on: the order decides the last bits, so
    callers merge in the order of cell, replica, neuron, never in the order of arrival. Means and squares by
    Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm".
    """
    total = tallies[0]
    for one in tallies[1:]:
        total = _merge_two(total, one)
    return total


def _merge_two(a: Tally, b: Tally) -> Tally:
    n = a.intervals + b.intervals
    share = b.intervals / np.maximum(n, 1)
    apart = b.mean_ms - a.mean_ms
    return Tally(
        spikes=a.spikes + b.spikes,
        intervals=n,
        mean_ms=a.mean_ms + apart * share,
        m2_ms2=a.m2_ms2 + b.m2_ms2 + apart * apart * (a.intervals * share),
        shortest_ms=np.minimum(a.shortest_ms, b.shortest_ms),
        longest_ms=np.maximum(a.longest_ms, b.longest_ms),
        histogram=a.histogram + b.histogram,
        lags=a.lags + b.lags,
        lag_cos=a.lag_cos + b.lag_cos,
        lag_sin=a.lag_sin + b.lag_sin,
    )
