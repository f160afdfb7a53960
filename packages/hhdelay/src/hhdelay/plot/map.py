"""The map of R over two settings: tongues, where the law puts them, and which cells fire on without noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from hhdelay.analysis.laws import Law
from hhdelay.analysis.peaks import Peak
from hhdelay.analysis.tongues import Line, resonance_lines
from hhdelay.config.errors import need
from hhdelay.gates import Array
from hhdelay.plot.grid import DELAY, Grid, grid_of, law_for, peaks_of, title_of
from hhdelay.plot.style import (
    INK,
    PAGE_IN,
    PALE,
    THIN_PT,
    dress,
    figure,
    headline,
    key_below,
    log_axis,
    nice_values,
    put_ticks,
)

COLOURS = "viridis"     # even steps of lightness, and safe for colour-blind readers
PERSISTS = 0.5          # share of replicas from which on a cell counts as firing without noise
STROKES_PER_IN = 14.0   # diagonal lines, clipped to the cells that persist


def coherence_map(data: xr.Dataset, *, width_in: float = PAGE_IN) -> Figure:
    """R in colour, on a logarithmic scale, over the two axes of a sweep; unfinished cells are grey.

    Dots are the maxima of each row; dashed lines the delays that the law of the motif predicts for the mean
    interval measured at them; thin strokes cover cells that go on firing when the noise stops.
    """
    grid = grid_of(data)
    need(grid.y is not None, "a map needs a sweep over two axes", fix="use --what lines for one axis")
    assert grid.y is not None
    made = figure(width_in, 0.25 * width_in + 1.75)
    axes = made.add_subplot()
    x_edges, y_edges = (cell_edges(a.values, a.logarithmic) for a in (grid.x, grid.y))
    rows = [grid.row(k) for k in range(len(grid.y.values))]
    peaks = [peaks_of(row) for row in rows] if grid.x.setting == DELAY else [[] for _ in rows]
    _colours(made, axes, grid, (x_edges, y_edges))
    handles = [*_persisting(made, axes, grid, (x_edges, y_edges))]
    laws = [law_for(row) for row in rows]
    if grid.y.single and all(laws):
        inner = [[one for one in row if not one.edge] for row in peaks]     # at the edge T says little
        lines = resonance_lines(grid.y.values, inner, [law for law in laws if law], float(x_edges[-1]))
        handles += _predicted(axes, lines, [law for law in laws if law])
    handles += _maxima(axes, grid.y.values, peaks)
    handles += _empty(grid)
    dress(axes, grid.x.label, grid.y.label)
    for which, axis, edges in (("x", grid.x, x_edges), ("y", grid.y, y_edges)):
        if axis.logarithmic:
            log_axis(axes, which, axis.values)
        (axes.set_xlim if which == "x" else axes.set_ylim)(edges[0], edges[-1])
    headline(axes, title_of(grid), width_in - 1.0)
    key_below(made, handles)
    return made


def cell_edges(values: Array, logarithmic: bool = False) -> Array:
    """Borders of the cells about `values` [n], ascending: midpoints, and as far beyond the ends. -> [n + 1]

    A single value has a cell of width 1, or of a factor 1.5 where the axis is logarithmic.
    """
    at = np.log(values) if logarithmic else values
    if len(at) == 1:
        half = np.log(1.5) / 2 if logarithmic else 0.5
        edges = np.array([at[0] - half, at[0] + half])
    else:
        middle = (at[:-1] + at[1:]) / 2
        edges = np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])
    return np.exp(edges) if logarithmic else edges


def _colours(made: Figure, axes: Axes, grid: Grid, edges: tuple[Array, Array]) -> None:
    """The cells, the contours at the ticks of the colour bar, the bar."""
    R = grid["R"]
    shown = np.isfinite(R) & (R > 0)
    axes.set_facecolor(PALE)
    quiet = np.ma.masked_array(np.zeros_like(R), ~(grid.done & np.isnan(R)))
    if quiet.count():
        axes.pcolormesh(*edges, quiet, cmap=ListedColormap(["white"]), rasterized=True)
    low, high = (float(R[shown].min()), float(R[shown].max())) if shown.any() else (1.0, 10.0)
    high = high if high > low * 1.01 else low * 1.01
    norm = LogNorm(low, high)
    # Intervals that are all equal have an infinite R: the brightest colour, not the grey of unfinished cells.
    values = np.ma.masked_array(np.where(np.isposinf(R), high, R), ~(shown | np.isposinf(R)))
    mesh = axes.pcolormesh(*edges, values, norm=norm, cmap=COLOURS, rasterized=True)
    levels = nice_values(low, high)
    assert grid.y is not None
    if shown.sum() > 3 and min(R.shape) > 1 and levels:
        axes.contour(grid.x.values, grid.y.values, np.ma.masked_array(R, ~shown), levels=levels,
                     colors="white", linewidths=0.45, alpha=0.55)  # fmt: skip
    bar = made.colorbar(mesh, ax=axes, pad=0.015, aspect=22)
    bar.outline.set_linewidth(THIN_PT)
    dress(bar.ax, y_label="coherence R (1)")
    for spine in bar.ax.spines.values():
        spine.set_visible(False)
    put_ticks(bar.ax, "y", levels)


def _persisting(made: Figure, axes: Axes, grid: Grid, edges: tuple[Array, Array]) -> list[Patch | Line2D]:
    """Fine diagonal strokes over the cells that fire on without noise."""
    if "persists" not in grid.data:
        return []
    cells = grid["persists"] >= PERSISTS
    if not cells.any():
        return []
    width_in, height_in = made.get_size_inches()    # the axes have about the shape of the figure
    lean = height_in / width_in
    starts = np.arange(-lean, 1.0, 1.0 / (STROKES_PER_IN * width_in))
    strokes = LineCollection([((a, 0.0), (a + lean, 1.0)) for a in starts], colors="black", linewidths=0.35,
                             alpha=0.4, transform=axes.transAxes, label="persisting")  # fmt: skip
    axes.add_collection(strokes, autolim=False)
    strokes.set_clip_path(_outline(cells, *edges), axes.transData)
    return [Patch(facecolor="#8fb3a8", hatch="//////", edgecolor=INK, linewidth=0.0,
                  label="fires on without noise")]  # fmt: skip


def _outline(cells: NDArray[np.bool_], x_edges: Array, y_edges: Array) -> Path:
    """One rectangle for each run of chosen cells in a row."""
    boxes = []
    for k, row in enumerate(cells):
        steps = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int64), [0]])))
        for first, after in zip(steps[::2], steps[1::2], strict=True):
            (left, right), (low, high) = x_edges[[first, after]], y_edges[[k, k + 1]]
            corners = [(left, low), (right, low), (right, high), (left, high), (left, low)]
            boxes.append(Path(corners, closed=True))
    return Path.make_compound_path(*boxes)


def _predicted(axes: Axes, lines: Sequence[Line], laws: Sequence[Law]) -> list[Patch | Line2D]:
    """The lines of the law, dashed, dark on light so that they show on every colour."""
    halo = [Stroke(linewidth=2.2, foreground="white", alpha=0.7), Normal()]
    style = {"color": "black", "linewidth": 1.0, "linestyle": (0, (4.0, 2.2)), "path_effects": halo}
    for line in lines:
        axes.plot(line.delays_ms, line.strengths, label=f"order {line.order}", **style)  # type: ignore[arg-type]
    spacing = "n T" if laws[0].periods == 1 else "k T/2"
    offset = f"{laws[0].offset_ms:g} ms" if len({law.offset_ms for law in laws}) == 1 else "offset"
    return [Line2D([], [], label=f"law: {spacing} − {offset}, T measured", **style)] if lines else []  # type: ignore[arg-type]


def _maxima(axes: Axes, strengths: Array, peaks: Sequence[Sequence[Peak]]) -> list[Patch | Line2D]:
    points = [(one.position_ms, float(g)) for g, row in zip(strengths, peaks, strict=True) for one in row]
    if not points:
        return []
    style = {"linestyle": "none", "marker": "o", "markersize": 3.0, "markerfacecolor": "white",
             "markeredgecolor": "black", "markeredgewidth": 0.5}  # fmt: skip
    axes.plot([x for x, _ in points], [g for _, g in points], label="maxima", **style)  # type: ignore[arg-type]
    return [Line2D([], [], label="maximum of R in its row", **style)]  # type: ignore[arg-type]


def _empty(grid: Grid) -> list[Patch | Line2D]:
    found: list[Patch | Line2D] = []
    if not grid.done.all():
        found.append(Patch(facecolor=PALE, label="not yet run"))
    if (grid.done & np.isnan(grid["R"])).any():
        found.append(Patch(facecolor="white", edgecolor=INK, linewidth=THIN_PT, label="too few spikes"))
    return found
