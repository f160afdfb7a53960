"""What a sweep keeps of each point: the variables of the dataset, and their units and meaning.

Dimensions are the swept axes, one or two, each named by its setting without the table (`delay_ms`,
`g_mS_cm2`); attrs["setting"] of the coordinate holds the full name. Further dimensions: `replica`, `bin`.
"""

from __future__ import annotations

from typing import NamedTuple


class Variable(NamedTuple):
    """One array of the dataset: dimensions after those of the axes, dtype, what it says."""

    extra: tuple[str, ...]
    dtype: str
    units: str
    meaning: str


VARIABLES: dict[str, Variable] = {
    "R": Variable((), "float64", "1", "mean over standard deviation of the intervals of observed neurons"),
    "R_low": Variable((), "float64", "1", "lower end of the 95 % interval of R, by replicas"),
    "R_high": Variable((), "float64", "1", "upper end of it"),
    "spikes": Variable((), "int64", "1", "spikes of the observed neurons, all replicas"),
    "intervals": Variable((), "int64", "1", "inter-spike intervals of the observed neurons"),
    "rate_Hz": Variable((), "float64", "Hz", "rate of an observed neuron"),
    "mean_ms": Variable((), "float64", "ms", "mean interval"),
    "sd_ms": Variable((), "float64", "ms", "standard deviation of the intervals"),
    "shortest_ms": Variable((), "float64", "ms", "shortest interval"),
    "longest_ms": Variable((), "float64", "ms", "longest interval"),
    "skipped": Variable((), "float64", "1", "cycles without a spike per interval"),
    "phase": Variable((), "float64", "1", "mean lag of the partner behind neuron 0, in its intervals"),
    "locking": Variable((), "float64", "1", "length |z| of the mean of exp(2 pi i lag), 1 locked"),
    "persists": Variable((), "float64", "1", "share of replicas whose observed neurons fire on after noise"),
    "quiet_ms": Variable((), "float64", "ms", "mean interval while the noise is off"),
    "replica_R": Variable(("replica",), "float64", "1", "R of each replica alone"),
    "histogram": Variable(("bin",), "int64", "1", "intervals of observed neurons in bins of measure.BIN_MS"),
}


def partner(kind: str, neurons: int) -> int | None:
    """The neuron whose lag `phase` is: the first of the other population, neuron 1 of links, or none."""
    if neurons < 2:
        return None
    return 1 if kind == "links" else neurons // 2
