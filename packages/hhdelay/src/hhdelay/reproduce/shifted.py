"""R over the delay of inhibition, and over the sum of both delays, for several delays of excitation."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from hhdelay.plot.grid import grid_of
from hhdelay.plot.style import (
    COLOURS,
    LINE_PT,
    PAGE_IN,
    dress,
    explained,
    figure,
    headline,
    key_below,
    log_axis,
)  # fmt: skip
from hhdelay.reproduce.maxima import rows_of


def shifted(data: xr.Dataset, *, width_in: float = PAGE_IN) -> Figure:
    """A sweep over delay_e_ms and delay_ms: left as it is, right each curve moved by its delay_e_ms."""
    grid = grid_of(data)
    assert grid.y is not None, "a sweep over both delays is needed"
    made = figure(width_in, 0.12 * width_in + 2.0)
    left, right = made.subplots(1, 2, sharey=True)
    for k, (row, colour) in enumerate(zip(rows_of(grid), COLOURS, strict=False)):
        for axes, moved_ms in ((left, 0.0), (right, float(grid.y.values[k]))):
            x = row.x.values + moved_ms
            axes.fill_between(x, row["R_low"], row["R_high"], color=colour, alpha=0.12, linewidth=0)
            axes.plot(x, row["R"], color=colour, linewidth=LINE_PT, label=grid.y.value(k))
    R = grid["R"]
    log_axis(left, "y", np.concatenate([R.ravel() / 1.25, R.ravel() * 1.3]))
    half = width_in / 2 - 0.4
    dress(left, grid.x.label, "coherence R (1)")
    dress(right, "τ + τₑ (ms)")
    headline(left, "EI, R over the delay of inhibition", half)
    headline(right, "over the sum of both delays", half)
    key_below(made, explained(left))
    return made
