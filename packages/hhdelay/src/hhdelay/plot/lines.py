"""R over one axis, with its confidence, its maxima and where the law puts them; phases; several sweeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hhdelay.analysis.laws import expected_phase, period, resonances
from hhdelay.config.errors import need
from hhdelay.plot.grid import Grid, grid_of, law_for, peaks_of, title_of
from hhdelay.plot.style import (
    COLOURS,
    GREY,
    INK,
    LINE_PT,
    PAGE_IN,
    SMALL_PT,
    THIN_PT,
    dress,
    explained,
    figure,
    headline,
    key,
    key_below,
    log_axis,
    put_ticks,
)  # fmt: skip

MOST_LINES = 6          # of a sweep over two axes; more cannot be told apart
R_LABEL = "coherence R (1)"


def coherence_lines(data: xr.Dataset, *, width_in: float = PAGE_IN) -> Figure:
    """R over an axis with its 95 % band, and the mean interval below; a line for each value of a second axis.

    One line alone has its maxima marked, hollow at the edge of the range, and upright bars at the bottom
    where the law of the motif puts them. Of more than MOST_LINES values evenly spaced ones are shown. Noise
    intensity is drawn on a logarithmic axis.
    """
    grid = grid_of(data)
    made = figure(width_in, 0.25 * width_in + 2.2)
    upper, lower = made.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    rows = _rows(grid)
    for colour, (name, row) in zip(COLOURS, rows, strict=False):
        _draw_R(upper, row, colour, name, 0.2 if len(rows) <= 3 else 0.1)
        lower.plot(row.x.values, row["mean_ms"], color=colour, linewidth=LINE_PT)
    if len(rows) == 1:
        _mark_maxima(upper, rows[0][1])
    _R_axis(upper, [row for _, row in rows])
    _x_axis(upper, grid)
    dress(upper, y_label=R_LABEL)
    upper.tick_params(labelbottom=False)
    if grid.x.logarithmic:
        log_axis(lower, "y", np.concatenate([row["mean_ms"] for _, row in rows]))
    dress(lower, grid.x.label, "mean\ninterval (ms)")
    headline(upper, title_of(grid), width_in - 0.6)
    key_below(made, explained(upper))
    return made


def phase_lines(data: xr.Dataset, *, width_in: float = PAGE_IN) -> Figure:
    """Phase of the partner behind neuron 0 and how firmly it is kept, over one axis.

    Points fade where the two are not locked. Upright lines stand at the maxima of R; in II short bars show
    the phase that belongs to the order of each.
    """
    grid = grid_of(data)
    need(grid.y is None, "phases are drawn over one axis", fix="sweep one axis, or draw the map")
    need(bool(np.isfinite(grid["phase"]).any()), "the sweep holds no phases",
         fix="sweep a motif with two neurons")  # fmt: skip
    made = figure(width_in, 0.2 * width_in + 2.0)
    upper, lower = made.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
    x, locking = grid.x.values, np.nan_to_num(grid["locking"])
    # Cut a quarter before 0, so that neither phase 0 nor phase 1/2 lies on the border.
    phase = (grid["phase"] + 0.25) % 1.0 - 0.25
    upper.scatter(x, phase, s=11, color=COLOURS[0], alpha=np.clip(locking, 0.12, 1.0), linewidths=0)
    lower.plot(x, grid["locking"], color=COLOURS[0], linewidth=LINE_PT)
    for one in peaks_of(grid):
        for axes in (upper, lower):
            axes.axvline(one.position_ms, color=GREY, linewidth=THIN_PT, linestyle=(0, (1, 2)))
    _expect_phases(upper, grid)
    upper.set_ylim(-0.25, 0.75)
    put_ticks(upper, "y", [-0.25, 0.0, 0.25, 0.5, 0.75])
    lower.set_ylim(0.0, 1.02)
    _x_axis(upper, grid)
    dress(upper, y_label="phase (intervals)")
    upper.tick_params(labelbottom=False)
    dress(lower, grid.x.label, "locking |z| (1)")
    headline(upper, title_of(grid), width_in - 0.6)
    key(upper, loc="lower right")
    return made


def panels(sweeps: Sequence[xr.Dataset], *, width_in: float = PAGE_IN) -> Figure:
    """Several sweeps side by side over one axis of R: what a change of recipe does to the maxima.

    Each sweep is a panel; one over two axes has a line for each value of the second.
    """
    need(len(sweeps) > 0, "no sweep is given", fix="give one store or more")
    grids = [grid_of(data) for data in sweeps]
    made = figure(width_in, 0.12 * width_in + 2.0)
    all_axes = made.subplots(1, len(grids), sharey=True, squeeze=False)[0]
    drawn = [row for grid in grids for _, row in _rows(grid)]
    for axes, grid in zip(all_axes, grids, strict=True):
        for colour, (name, row) in zip(COLOURS, _rows(grid), strict=False):
            _draw_R(axes, row, colour, name, 0.15)
        _x_axis(axes, grid)
        dress(axes, grid.x.label, R_LABEL if axes is all_axes[0] else "")
        headline(axes, title_of(grid).removeprefix("Delay-tuned coherence: "), width_in / len(grids) - 0.4)
        key(axes, loc="lower right")
    _R_axis(all_axes[0], drawn, room=2.5)
    return made


def _rows(grid: Grid) -> list[tuple[str, Grid]]:
    """The lines to draw, with the text of each in the legend."""
    if grid.y is None:
        return [("", grid)]
    count = len(grid.y.values)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_LINES)).round().astype(int))
    return [(grid.y.value(int(k)), grid.row(int(k))) for k in chosen]


def _draw_R(axes: Axes, row: Grid, colour: str, name: str, band: float) -> None:
    R, x = row["R"], row.x.values
    R = np.where(np.isfinite(R), R, np.nan)
    axes.fill_between(x, row["R_low"], row["R_high"], color=colour, alpha=band, linewidth=0)
    axes.plot(x, R, color=colour, linewidth=LINE_PT, marker="." if len(x) < 30 else "", markersize=3.5,
              label=name or "_R")  # fmt: skip


def _R_axis(axes: Axes, rows: Sequence[Grid], room: float = 1.25) -> None:
    """Logarithmic, with a factor `room` below the curves."""
    values = np.concatenate([row["R"] for row in rows])
    log_axis(axes, "y", np.concatenate([values / room, values * 1.45]))


def _x_axis(axes: Axes, grid: Grid) -> None:
    if grid.x.logarithmic:
        log_axis(axes, "x", grid.x.values)
    else:
        axes.margins(x=0.02)


def _mark_maxima(axes: Axes, row: Grid) -> None:
    """Triangles on the maxima with their position; bars at the bottom where the law puts them."""
    peaks = peaks_of(row)
    for edge, face, name in ((False, COLOURS[1], "maximum"), (True, "white", "cut off by the range")):
        some = [one for one in peaks if one.edge == edge]
        if some:
            axes.plot([one.position_ms for one in some], [one.R * 1.1 for one in some], linestyle="none",
                      marker="v", markersize=4, markeredgecolor=COLOURS[1], markerfacecolor=face,
                      label=name)  # fmt: skip
    for one in peaks:
        if not one.edge:
            axes.annotate(f"{one.position_ms:.1f}", (one.position_ms, one.R * 1.1), (0, 4), ha="center",
                          textcoords="offset points", fontsize=SMALL_PT, color=INK)  # fmt: skip
    law, T = law_for(row), period(peaks)
    if law is None or not np.isfinite(T):
        return
    delays = [one.delay_ms for one in resonances(law, T, float(row.x.values[-1]))]
    spacing = "n T" if law.periods == 1 else "k T/2"
    name = f"law: {spacing} − {law.offset_ms:g} ms, T = {T:.1f} ms"
    axes.plot(delays, np.full(len(delays), 0.04), linestyle="none", marker="|", markersize=9,
              markeredgewidth=1.3, color=COLOURS[2], transform=axes.get_xaxis_transform(),
              label=name)  # fmt: skip


def _expect_phases(axes: Axes, grid: Grid) -> None:
    law, T = law_for(grid), period(peaks_of(grid))
    if law is None or not np.isfinite(T) or expected_phase(grid.recipe.motif.kind, 1) is None:
        return
    for order, delay_ms in resonances(law, T, float(grid.x.values[-1])):
        phase = expected_phase(grid.recipe.motif.kind, order)
        assert phase is not None, f"no phase for order {order}"
        half_ms = 0.1 * T
        axes.plot([delay_ms - half_ms, delay_ms + half_ms], [phase, phase], color=COLOURS[1], linewidth=2.2,
                  alpha=0.6, solid_capstyle="butt", label="law of II" if order == 1 else "_law")  # fmt: skip
