"""Spikes in, tally out, while a run goes on: no spike is kept."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hhdelay.compiled import compiled
from hhdelay.gates import Array
from hhdelay.measure.spikes import Spikes
from hhdelay.measure.tally import BIN_MS, BINS, Tally, empty

NONE_MS = -1.0  # no spike is open; spike times are not negative


class Open(NamedTuple):
    """What the next spikes need to know of the last ones, each [C, N]."""

    last_ms: Array      # the last spike
    pending_ms: Array   # the first one since neuron 0 last spiked, while its interval has no end yet


class Recorder:
    """Counts the spikes it is fed, in ascending time, in pieces of any length: pieces leave no trace."""

    def __init__(self, cells: int, neurons: int) -> None:
        self.tally = empty(cells, neurons)
        self._open = Open(np.full((cells, neurons), NONE_MS), np.full((cells, neurons), NONE_MS))

    def feed(self, spikes: Spikes) -> None:
        """Take in the spikes of the next steps."""
        _count_lags(spikes, self.tally, self._open)
        _count_intervals(spikes, self.tally, self._open)


@compiled
def _count_intervals(spikes: Spikes, tally: Tally, open_: Open) -> None:
    """Mean and squares by Welford 1962, interval by interval."""
    C, N = spikes.counts.shape
    for c in range(C):
        for j in range(N):
            last = open_.last_ms[c, j]
            for k in range(spikes.counts[c, j]):
                time = spikes.time_ms[c, j, k]
                if last >= 0.0:
                    interval = time - last
                    tally.intervals[c, j] += 1
                    apart = interval - tally.mean_ms[c, j]
                    tally.mean_ms[c, j] += apart / tally.intervals[c, j]
                    tally.m2_ms2[c, j] += apart * (interval - tally.mean_ms[c, j])
                    tally.shortest_ms[c, j] = min(tally.shortest_ms[c, j], interval)
                    tally.longest_ms[c, j] = max(tally.longest_ms[c, j], interval)
                    tally.histogram[c, j, min(int(interval / BIN_MS), BINS - 1)] += 1
                last = time
            tally.spikes[c, j] += spikes.counts[c, j]
            open_.last_ms[c, j] = last


@compiled
def _count_lags(spikes: Spikes, tally: Tally, open_: Open) -> None:
    """Walk along the spikes of neuron 0 and of each other one together; runs before last_ms moves on."""
    C, N = spikes.counts.shape
    for c in range(C):
        beats = spikes.counts[c, 0]
        for j in range(1, N):
            last, pending = open_.last_ms[c, 0], open_.pending_ms[c, j]
            a, b = 0, 0
            while a < beats or b < spikes.counts[c, j]:
                alone = b >= spikes.counts[c, j]
                if alone or (a < beats and spikes.time_ms[c, 0, a] <= spikes.time_ms[c, j, b]):
                    time = spikes.time_ms[c, 0, a]
                    if pending >= 0.0:
                        angle = 2.0 * np.pi * (pending - last) / (time - last)
                        tally.lags[c, j] += 1
                        tally.lag_cos[c, j] += np.cos(angle)
                        tally.lag_sin[c, j] += np.sin(angle)
                    last, pending = time, NONE_MS
                    a += 1
                else:
                    if last >= 0.0 and pending < 0.0:
                        pending = spikes.time_ms[c, j, b]
                    b += 1
            open_.pending_ms[c, j] = pending
