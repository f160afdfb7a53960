"""One look for every figure: sizes of a journal's column and page, colours that colour-blind readers can tell
apart, the font that ships with matplotlib, units in every label.

Nothing here or elsewhere in `hhdelay.plot` touches pyplot or rcParams, so figures may be drawn in threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from hhdelay.gates import Array

COLUMN_IN, PAGE_IN = 3.4, 7.0   # widths of one and of two columns
TEXT_PT, SMALL_PT = 8.0, 7.0
LETTERS_PER_IN = 16.0           # of TEXT_PT, rather few
LINE_PT, THIN_PT = 1.1, 0.6
INK, GREY, PALE = "#222222", "#777777", "#d4d4d4"
# Okabe and Ito 2008, "Color universal design", yellow left out: too pale for a line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
NO_BREAK = "\u00a0"
FONT = "DejaVu Sans"            # in matplotlib's own wheel

SYMBOLS = {
    "motif.delay_ms": "delay τ",
    "motif.delay_e_ms": "delay of excitation τₑ",
    "motif.g_mS_cm2": "coupling strength g",
    "motif.neurons": "neurons N",
    "noise.D_uA2_ms_cm4": "noise intensity D",
    "neuron.I_uA_cm2": "bias current I",
}
SHORT = {
    "motif.delay_ms": "τ", "motif.delay_e_ms": "τₑ", "motif.g_mS_cm2": "g", "motif.neurons": "N",
    "noise.D_uA2_ms_cm4": "D", "neuron.I_uA_cm2": "I",
}  # fmt: skip
UNITS = {
    "uA2_ms_cm4": "µA² ms/cm⁴", "uA_cm2": "µA/cm²", "mS_cm2": "mS/cm²", "uF_cm2": "µF/cm²", "per_ms": "1/ms",
    "mV": "mV", "ms": "ms",
}  # fmt: skip
_LEGEND: dict[str, Any] = {"prop": {"family": FONT, "size": SMALL_PT}, "labelcolor": INK, "handlelength": 1.8}
NICE = (1.0, 2.0, 5.0)          # of each decade, where R or a strength is drawn on a logarithmic axis


def figure(width_in: float, height_in: float) -> Figure:
    """An empty figure whose parts make room for one another."""
    made = Figure(figsize=(width_in, height_in), layout="constrained")
    made.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr, call-arg]
    return made


def unit_of(setting: str) -> str:
    """The unit at the end of a setting's name, "" where it has none."""
    name = setting.rpartition(".")[2]
    return next((text for end, text in UNITS.items() if name.endswith(f"_{end}")), "")


def label_of(setting: str) -> str:
    """An axis label: what the setting is, and its unit in brackets."""
    name = setting.rpartition(".")[2]
    unit = unit_of(setting)
    bare = next((name[: -len(end) - 1] for end in UNITS if name.endswith(f"_{end}")), name)
    text = SYMBOLS.get(setting, bare.replace("_", " "))
    return f"{text} ({unit})" if unit else text


def value_of(setting: str, value: float) -> str:
    """One value of a setting for a legend, as "g = 2 mS/cm²"."""
    name = SHORT.get(setting, setting.rpartition(".")[2])
    return f"{name} = {value:g} {unit_of(setting)}".rstrip().replace(" ", NO_BREAK)


def dress(axes: Axes, x_label: str = "", y_label: str = "") -> None:
    """Fonts, ticks and lines of an axes, after everything is drawn; empty labels stay off."""
    axes.set_xlabel(x_label, fontsize=TEXT_PT, fontfamily=FONT, color=INK)
    axes.set_ylabel(y_label, fontsize=TEXT_PT, fontfamily=FONT, color=INK)
    axes.tick_params(which="both", labelsize=SMALL_PT, labelfontfamily=FONT, width=THIN_PT, color=INK,
                     labelcolor=INK, direction="out")  # fmt: skip
    axes.tick_params(which="major", length=3.0)
    axes.tick_params(which="minor", length=1.8)
    for name, spine in axes.spines.items():
        spine.set_linewidth(THIN_PT)
        spine.set_color(INK)
        spine.set_visible(name in ("left", "bottom"))


def headline(axes: Axes, text: str, width_in: float) -> None:
    """Text above an axes of about width_in, flush left, in as many lines as that takes."""
    lines = fill(text, max(12, int(width_in * LETTERS_PER_IN)))
    axes.set_title(lines, loc="left", fontsize=TEXT_PT, fontfamily=FONT, color=INK)


def key(axes: Axes, **options: Any) -> None:
    """A legend inside an axes, on white, where something is to be explained."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, **_LEGEND, frameon=True, facecolor="white", edgecolor="none",
                    framealpha=0.85, borderaxespad=0.2, **options)  # fmt: skip


def key_below(made: Figure, handles: Sequence[Artist]) -> None:
    """A legend below everything else, as wide as the figure; none where there is nothing to be explained."""
    if handles:
        columns = 4 if made.get_figwidth() > 5 else 2
        made.legend(handles=list(handles), loc="outside lower left", ncols=columns, frameon=False,
                    columnspacing=1.4, **_LEGEND)  # fmt: skip


def explained(axes: Axes) -> list[Artist]:
    """What an axes would put into its legend."""
    return list(axes.get_legend_handles_labels()[0])


def nice_values(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... from low to high, and finer where fewer than three of them fit."""
    if not (np.isfinite(low) and np.isfinite(high) and 0 < low < high):
        return []
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in (NICE, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), tuple(np.arange(10, 100) / 10)):
        found = [float(s * 10.0**d) for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(found) >= 3:
            break
    return found


def log_axis(axes: Axes, which: str, values: Array) -> None:
    """A logarithmic axis over the finite positive `values`, its ticks written as plain numbers.

    which   "x" or "y"
    """
    good = values[np.isfinite(values) & (values > 0)]
    if not len(good):
        return
    low, high = float(good.min()) / 1.06, float(good.max()) * 1.06
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    put_ticks(axes, which, nice_values(low, high))


def put_ticks(axes: Axes, which: str, ticks: Sequence[float]) -> None:
    """Ticks at these places and no others, as plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([f"{t:g}" for t in ticks]))
    axis.set_minor_locator(NullLocator())
