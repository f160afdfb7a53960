"""What became of each setting: how many maxima R has in the delay, and at how many delays firing goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from hhdelay.analysis import find_peaks
from hhdelay.gates import Array
from hhdelay.measure.coherence import student
from hhdelay.search.scan import AXIS
from hhdelay.search.space import SETTINGS

VARIABLES = ("R", "R_low", "R_high", "intervals", "mean_ms", "rate_Hz", "persists")


class Verdict(NamedTuple):
    """One setting."""

    number: int                     # its place in the list
    setting: dict[str, Any]         # its values, by name
    maxima_ms: tuple[float, ...]    # delays of the maxima of R, those at an edge of the range left out
    highest_R: float                # NaN where too little fired
    contrast: float                 # of ln R: its largest over all delays less its smallest
    slowest_Hz: float               # the lowest rate over all delays
    persists: float                 # share of delays at which some replica fires on without noise

    @property
    def sought(self) -> bool:
        """Several maxima, and nowhere a replica that fires on: what noise alone would sustain."""
        return len(self.maxima_ms) >= 2 and self.persists == 0.0


def verdicts(found: xr.Dataset) -> list[Verdict]:
    """One of every finished setting of a scan, in their order."""
    delays_ms, wide = found["delay_ms"].values, student(int(found.attrs["replicas"]) - 1)
    columns = {name: found[name].transpose(AXIS, "delay_ms").values for name in VARIABLES}
    verdicts = []
    for number, setting in enumerate(_settings(found)):
        row = {name: values[number] for name, values in columns.items()}
        if np.isnan(row["persists"]).all():
            continue    # not run yet
        half = _half_width(row, wide)
        bounds = row["R"] * np.exp(-half), row["R"] * np.exp(half)
        peaks = find_peaks(delays_ms, row["R"], *bounds, row["mean_ms"], half_width=wide)
        good = row["R"][np.isfinite(row["R"]) & (row["R"] > 0)]
        verdicts.append(Verdict(
            number=number,
            setting=setting,
            maxima_ms=tuple(peak.position_ms for peak in peaks if not peak.edge),
            highest_R=float(good.max()) if len(good) else float("nan"),
            contrast=float(np.log(good.max() / good.min())) if len(good) else 0.0,
            slowest_Hz=float(np.nanmin(row["rate_Hz"])),
            persists=float((row["persists"] > 0).mean()),
        ))  # fmt: skip
    return verdicts


def _half_width(row: Mapping[str, Array], wide: float) -> Array:
    """Of the 95 % interval of ln R. Few replicas with few intervals agree by chance now and then: it is not
    taken to be below that of as many independent intervals, whose standard error is about n ** -1/2.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        by_replicas = np.log(row["R_high"] / row["R_low"]) / 2
        return np.fmax(by_replicas, wide / np.sqrt(row["intervals"]))


def _settings(found: xr.Dataset) -> list[dict[str, Any]]:
    axes = json.loads(found.attrs["axes"])
    mine = next(one for one in axes if one["name"] == AXIS)
    return [dict(zip(SETTINGS, values, strict=True)) for values in mine["values"]]
