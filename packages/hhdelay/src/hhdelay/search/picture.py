"""Where the classes lie, and R over the delay of the settings that were run again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hhdelay.plot.style import COLOURS, COLUMN_IN, GREY, LINE_PT, PAGE_IN, PALE, dress, figure, key_below
from hhdelay.search.classes import Verdict
from hhdelay.search.scan import AXIS
from hhdelay.search.space import KINDS

DRAWN = 6               # of the settings run again
GOLDEN = 0.6180339887   # its multiples modulo 1 spread points evenly


def classes_figure(rough: Sequence[Verdict], fine: xr.Dataset | None, again: Sequence[Verdict]) -> Figure:
    """Left: maxima of R against the share of delays at which firing goes on without noise, every setting a
    point. Right, where settings were run again: R over the delay of the first DRAWN of them, dashed if they
    turned out not to be sought.
    """
    made = figure(COLUMN_IN if fine is None else PAGE_IN, 3.0)
    axes = made.subplots(1, 1 if fine is None else 2, squeeze=False)[0]
    _draw_classes(axes[0], rough)
    handles = list(axes[0].get_legend_handles_labels()[0])
    if fine is not None:
        _draw_lines(axes[1], fine, again)
        handles += axes[1].get_legend_handles_labels()[0]
    key_below(made, handles)
    return made


def _draw_classes(axes: Axes, rough: Sequence[Verdict]) -> None:
    for colour, kind, side in zip(COLOURS, KINDS, (-0.15, 0.15), strict=False):
        its = [v for v in rough if v.setting["motif.kind"] == kind]
        spread = (np.arange(len(its)) * GOLDEN) % 1.0 - 0.5
        x = np.array([len(v.maxima_ms) for v in its]) + side + 0.24 * spread
        y = [100 * v.persists for v in its]
        axes.scatter(x, y, s=5, color=colour, alpha=0.5, linewidths=0, label=kind)
    most = max(3.5, axes.get_xlim()[1])
    axes.fill_between([1.6, most], -4, 2, color=PALE, linewidth=0, zorder=0)
    axes.text(most, 4, "sought", fontsize=6.5, color=GREY, ha="right")
    axes.set_xlim(-0.5, most)
    axes.set_ylim(-4, 104)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "maxima of R over the delay", "delays at which firing goes on\nwithout noise (%)")


def _draw_lines(axes: Axes, fine: xr.Dataset, again: Sequence[Verdict]) -> None:
    for colour, v in zip(COLOURS, again[:DRAWN], strict=False):
        row = fine.isel({AXIS: v.number})
        bias, noise = v.setting["neuron.I_uA_cm2"], v.setting["noise.D_uA2_ms_cm4"]
        axes.plot(row["delay_ms"], row["R"], "-" if v.sought else "--", color=colour, linewidth=LINE_PT,
                  label=f"{v.setting['motif.kind']}, I {bias:g}, D {noise:g}")  # fmt: skip
    axes.set_ylim(bottom=0.0)
    dress(axes, "delay τ (ms)", "coherence R (1)")
