"""Maxima of R over the delay, as the claims speak of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hhdelay.analysis import Peak, spacing
from hhdelay.plot.grid import Grid, peaks_of
from hhdelay.reproduce.finding import give_or_take, listed

FIRES_ON = 0.5      # share of replicas from which on a point counts as firing without noise, as on the map


def inner(row: Grid) -> list[Peak]:
    """Maxima inside the range."""
    return [one for one in peaks_of(row) if not one.edge]


def rows_of(grid: Grid) -> list[Grid]:
    """One sweep over the delay for each value of the second axis."""
    assert grid.y is not None, "a sweep over one axis has no rows"
    return [grid.row(k) for k in range(len(grid.y.values))]


def nearest(row: Grid, delay_ms: float) -> int:
    """Place of the sample next to a delay."""
    return int(np.argmin(np.abs(row.x.values - delay_ms)))


def persisting(row: Grid, peaks: Sequence[Peak]) -> int:
    """At how many of these maxima half the replicas or more fire on when the noise has stopped."""
    return sum(float(row["persists"][nearest(row, one.position_ms)]) >= FIRES_ON for one in peaks)


def heights(row: Grid, peaks: Sequence[Peak]) -> str:
    """R of each maximum, with the 95 % interval of the sample next to it."""
    texts = []
    for one in peaks:
        k = nearest(row, one.position_ms)
        texts.append(f"{one.R:.3g} ({row['R_low'][k]:.3g} to {row['R_high'][k]:.3g})")
    return ", ".join(texts)


def lowest_between(row: Grid, peaks: Sequence[Peak]) -> float:
    """The least R between the first of these maxima and the last; NaN below two of them."""
    if len(peaks) < 2:
        return float("nan")
    between = (row.x.values > peaks[0].position_ms) & (row.x.values < peaks[-1].position_ms)
    return float(np.nanmin(row["R"][between])) if between.any() else float("nan")


class Comb:
    """The maxima of one line over the delay, and their distance in mean intervals."""

    def __init__(self, row: Grid) -> None:
        self.row, self.peaks = row, inner(row)
        self.spacing = spacing(self.peaks) if len(self.peaks) >= 2 else None

    @property
    def several(self) -> bool:
        """Two or more."""
        return len(self.peaks) >= 2

    @property
    def on(self) -> int:
        """How many of them fire on without noise."""
        return persisting(self.row, self.peaks)

    def where(self) -> str:
        """Their delays in a sentence."""
        return f"{listed([one.position_ms for one in self.peaks])} ms" if self.peaks else "no delay"

    def distance(self) -> str:
        """Spacing, T and their ratio in a sentence; "" below two maxima."""
        if self.spacing is None:
            return ""
        its = self.spacing
        return (f"They are {give_or_take(its.spacing_ms, its.error_ms)} ms apart, which is "
                f"{give_or_take(its.ratio, its.ratio_error, '.3f')} of the mean interval there, "
                f"{its.period_ms:.2f} ms. ")  # fmt: skip

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {
            "maxima_ms": [one.position_ms for one in self.peaks],
            "R": [one.R for one in self.peaks],
            "R_low": [self.row["R_low"][nearest(self.row, one.position_ms)] for one in self.peaks],
            "R_high": [self.row["R_high"][nearest(self.row, one.position_ms)] for one in self.peaks],
            "lowest_R_between": lowest_between(self.row, self.peaks),
            "firing_on_at": self.on,
        }
        return found | ({} if self.spacing is None else self.spacing._asdict())
