"""Of a tally: rates, the coherence R = <T> / sd(T) with its confidence, skipped cycles, phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hhdelay.gates import Array
from hhdelay.measure.tally import Counts, Tally, merge

# 97.5 % points of Student's t for 1, 2, ... 30 degrees of freedom; beyond: 1.96 + 2.4 / df, to 0.002
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
           2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
           2.045, 2.042)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Coherence:
    """P points of a sweep, each with its replicas and chosen neurons together: arrays [P], NaN for unknown.

    R           mean over standard deviation of the inter-spike intervals, 1 / CV; infinite if all are equal
    R_low/high  95 % interval: jackknife of ln R over replicas, which are independent; NaN for one replica.
                Where cycles are skipped now and then R has a heavy tail, and few replicas understate it
    skipped     cycles without a spike per interval: intervals near 2, 3, ... times the commonest one
    phase       [P, N - 1] mean lag of neurons 1, 2, ... behind neuron 0, 0 to 1 of neuron 0's interval
    locking     [P, N - 1] length |z| of the mean of exp(2 pi i lag): 1 locked, 0 none
    """

    spikes: Counts
    intervals: Counts
    rate_Hz: Array
    mean_ms: Array
    sd_ms: Array
    R: Array
    R_low: Array
    R_high: Array
    shortest_ms: Array
    longest_ms: Array
    skipped: Array
    phase: Array
    locking: Array


def coherence(
    tally: Tally, duration_ms: float, replicas: int, chosen: Sequence[int] | None = None
) -> Coherence:
    """Of a tally [P * replicas, N], point by point, each cell measured for duration_ms.

    chosen    neurons whose intervals are pooled (default all); phase and locking are always of all

    Sums run over the neurons of a replica, then over the replicas, in their order: the bits of a point do
    not depend on which others it is handed over with.
    """
    cells, neurons = tally.spikes.shape
    split = Tally._make(f.reshape(cells // replicas, replicas, *f.shape[1:]) for f in tally)
    of_neuron = [merge([_at(split, r, j) for r in range(replicas)]) for j in range(neurons)]
    pool = range(neurons) if chosen is None else chosen
    of_replica = [merge([_at(split, r, j) for j in pool]) for r in range(replicas)]
    total = merge(of_replica)
    low, high = _confidence(of_replica)
    some = total.intervals > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.array([(one.lag_cos + 1j * one.lag_sin) / one.lags for one in of_neuron[1:]]).T
        sd_ms = np.sqrt(total.m2_ms2 / total.intervals)
    z = z.reshape(cells // replicas, neurons - 1)
    return Coherence(
        spikes=total.spikes,
        intervals=total.intervals,
        rate_Hz=np.asarray(total.spikes * (1e3 / (duration_ms * replicas * len(pool))), dtype=np.float64),
        mean_ms=np.where(some, total.mean_ms, np.nan),
        sd_ms=sd_ms,
        R=ratio(total),
        R_low=low,
        R_high=high,
        shortest_ms=np.where(some, total.shortest_ms, np.nan),
        longest_ms=np.where(some, total.longest_ms, np.nan),
        skipped=skipped_per_interval(total.histogram),
        phase=np.angle(z) / (2 * np.pi) % 1.0,
        locking=np.abs(z),
    )


def ratio(tally: Tally) -> Array:
    """R of each element; NaN below two intervals, infinite where all are equal."""
    with np.errstate(invalid="ignore", divide="ignore"):
        R = tally.mean_ms / np.sqrt(tally.m2_ms2 / tally.intervals)
    return np.where(tally.intervals >= 2, R, np.nan)


def skipped_per_interval(histogram: Counts) -> Array:
    """Cycles left out, of histograms [..., B]: an interval of k times the commonest one leaves out k - 1.

    The commonest is the middle of the three neighbouring bins that hold most. The last bin, which holds all
    that is longer, counts as one interval of its length and is never the commonest; NaN where it holds more
    than a tenth, and for no interval.
    """
    three = histogram[..., :-3] + histogram[..., 1:-2] + histogram[..., 2:-1]
    commonest = np.argmax(three, axis=-1)[..., None] + 1.5      # in bins, at the middle of the middle one
    cycles = np.rint((np.arange(histogram.shape[-1]) + 0.5) / commonest)
    total = histogram.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        left_out = (histogram * np.maximum(cycles - 1.0, 0.0)).sum(axis=-1) / total
    return np.where(10 * histogram[..., -1] > total, np.nan, left_out)


def student(df: int) -> float:
    """97.5 % point of Student's t."""
    return STUDENT[df - 1] if df <= len(STUDENT) else 1.96 + 2.4 / df


def _at(split: Tally, replica: int, neuron: int) -> Tally:
    return Tally._make(field[:, replica, neuron] for field in split)


def _confidence(of_replica: Sequence[Tally]) -> tuple[Array, Array]:
    """95 % interval of R, by leaving out one replica at a time (Efron and Tibshirani 1993, chapter 11)."""
    R, k = ratio(merge(of_replica)), len(of_replica)
    if k < 2:
        return np.full_like(R, np.nan), np.full_like(R, np.nan)
    without = [merge([*of_replica[:r], *of_replica[r + 1 :]]) for r in range(k)]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        logs = [np.log(ratio(one)) for one in without]
        mean = _sum(logs) / k
        error = np.sqrt((k - 1) / k * _sum([(one - mean) ** 2 for one in logs]))
        spread = student(k - 1) * error
        return R * np.exp(-spread), R * np.exp(spread)


def _sum(rows: Sequence[Array]) -> Array:
    """One row after the other: numpy's own sum takes another order where there is but one point."""
    total = rows[0]
    for one in rows[1:]:
        total = total + one
    return total
