"""What a spike is, and how an engine hands spikes over."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hhdelay.gates import Array

REFRACTORY_MS = 2.0     # a crossing of 0 mV sooner than this after a spike belongs to that spike
LONG_AGO_MS = -1e300    # the last spike of a neuron that had none


class Spikes(NamedTuple):
    """Spike times of some steps, C cells, N neurons, at most K spikes each."""

    time_ms: Array              # [C, N, K], ascending; only the first `counts` are filled
    counts: NDArray[np.int64]   # [C, N]


def no_spikes(cells: int, neurons: int, steps: int, dt_ms: float) -> Spikes:
    """Room for the most spikes that `steps` steps can hold."""
    K = int(steps * dt_ms / REFRACTORY_MS) + 2
    return Spikes(np.zeros((cells, neurons, K)), np.zeros((cells, neurons), dtype=np.int64))
