"""The file that `hhdelay simulate --out` writes, read back."""

from __future__ import annotations

import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hhdelay.config.errors import ConfigError, plain
from hhdelay.config.recipe import Recipe
from hhdelay.config.schema import build, flatten
from hhdelay.gates import Array
from hhdelay.measure.tally import Counts, Tally

FIX = "give the .npz of hhdelay simulate --out, or the folder of a sweep"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SavedRun:
    """A run of all replicas of one recipe."""

    recipe: Recipe
    tally: Tally                # [replicas, N]
    spikes_ms: Array            # [spikes], by replica, then neuron, ascending
    spike_replica: Counts       # [spikes]
    spike_neuron: Counts        # [spikes]
    trace: dict[str, Array]     # t_ms [T]; V_mV, m, h, n, s [T, N]; empty where none was kept


def read_run(path: Path) -> SavedRun:
    """The run in an .npz file; nothing in it is executed. Raises ConfigError where it is no such file."""
    label = plain(str(path))
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
        return SavedRun(
            recipe=build(dict(flatten(tomllib.loads(str(held["recipe"])), f"in {label}"))),
            tally=Tally._make(held[f"tally_{name}"] for name in Tally._fields),
            spikes_ms=held["spikes_ms"],
            spike_replica=held["spike_replica"],
            spike_neuron=held["spike_neuron"],
            trace={name.removeprefix("trace_"): held[name] for name in held if name.startswith("trace_")},
        )
    except OSError as error:
        raise ConfigError(f"cannot read {label} ({error.strerror or 'it is damaged'}). Fix: {FIX}") from None
    except (KeyError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        raise ConfigError(f"{label} holds no run. Fix: {FIX}") from None
