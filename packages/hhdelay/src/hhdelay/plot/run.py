"""One run: voltages and gates, spikes, and the histogram of the intervals."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hhdelay.config.errors import need
from hhdelay.config.recipe import Recipe
from hhdelay.gates import Array
from hhdelay.measure.coherence import coherence
from hhdelay.measure.tally import BIN_MS
from hhdelay.network import observed
from hhdelay.plot.saved import SavedRun
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
    put_ticks,
    value_of,
)  # fmt: skip

RASTER_MS = 1000.0      # of the measured time; more spikes than that merge into bars
MULTIPLES = 5           # of the commonest interval that are marked


def voltage(run: SavedRun, *, gates: bool = False, width_in: float = PAGE_IN) -> Figure:
    """Voltage and s of neuron 0 and the first of the other population; with `gates` also m, h, n of neuron 0.

    Raises ConfigError where the run was saved without a trace.
    """
    need("t_ms" in run.trace, "the run holds no trace",
         fix="give hhdelay simulate --trace-ms 200 with its --out")  # fmt: skip
    heights = (2.0, 1.3, 1.0) if gates else (2.0, 1.0)
    made = figure(width_in, 0.1 * width_in + 0.95 * len(heights))
    rows = made.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    t, shown = run.trace["t_ms"], _one_of_each(run.recipe)
    for colour, (j, name) in zip(COLOURS, shown, strict=False):
        rows[0].plot(t, run.trace["V_mV"][:, j], color=colour, linewidth=LINE_PT, label=name)
        rows[-1].plot(t, run.trace["s"][:, j], color=colour, linewidth=LINE_PT)
    if gates:
        for colour, gate in zip(COLOURS[2:], "mhn", strict=False):
            rows[1].plot(t, run.trace[gate][:, 0], color=colour, linewidth=LINE_PT, label=gate)
        rows[1].set_ylim(-0.03, 1.03)
        dress(rows[1], y_label="gates of\nneuron 0 (1)")
    rows[0].set_xlim(float(t[0]), float(t[-1]))
    dress(rows[0], y_label="voltage V (mV)")
    rows[-1].set_ylim(bottom=-0.02)
    dress(rows[-1], "time t (ms)", "synapse\ns (1)")
    for axes in rows[:-1]:
        axes.tick_params(labelbottom=False)
    headline(rows[0], _title(run.recipe), width_in - 0.6)
    key_below(made, [one for axes in rows for one in explained(axes)])
    return made


def raster(run: SavedRun, *, duration_ms: float = RASTER_MS, width_in: float = PAGE_IN) -> Figure:
    """A bar for every spike of replica 0, neuron by neuron, over the first duration_ms that were measured."""
    made = figure(width_in, 0.1 * width_in + 1.1 + 0.02 * run.recipe.motif.neurons)
    axes = made.add_subplot()
    _draw_raster(axes, run, duration_ms)
    headline(axes, _title(run.recipe), width_in - 0.6)
    return made


def histogram(run: SavedRun, *, log: bool = False, width_in: float = PAGE_IN) -> Figure:
    """Intervals of the observed neurons, all replicas, in bins of 0.5 ms; `log` draws counts so.

    Upright lines: the mean, and multiples of the commonest interval, where skipped cycles lie.
    """
    made = figure(width_in, 0.22 * width_in + 1.4)
    axes = made.add_subplot()
    _draw_histogram(axes, run, log)
    headline(axes, _title(run.recipe), width_in - 0.6)
    return made


def raster_and_histogram(run: SavedRun, *, log: bool = False, width_in: float = PAGE_IN) -> Figure:
    """Both of these, one above the other."""
    made = figure(width_in, 0.3 * width_in + 2.2)
    upper, lower = made.subplots(2, 1, height_ratios=(1, 1.5))
    _draw_raster(upper, run, RASTER_MS)
    _draw_histogram(lower, run, log)
    headline(upper, _title(run.recipe), width_in - 0.6)
    return made


def _one_of_each(recipe: Recipe) -> list[tuple[int, str]]:
    """The first neuron of each population, or the first two, and what to call them."""
    motif = recipe.motif
    if motif.neurons == 1:
        return [(0, "neuron 0")]
    second = 1 if motif.kind == "links" else motif.neurons // 2
    kinds = {"EI": ("excitatory", "inhibitory")}.get(motif.kind, ("neuron 0", f"neuron {second}"))
    return [(0, kinds[0]), (second, kinds[1])]


def _title(recipe: Recipe) -> str:
    motif = recipe.motif
    held = {"neuron.I_uA_cm2": recipe.neuron.I_uA_cm2, "noise.D_uA2_ms_cm4": recipe.noise.D_uA2_ms_cm4}
    if motif.neurons > 1:
        held = {"motif.delay_ms": motif.delay_ms, "motif.g_mS_cm2": motif.g_mS_cm2} | held
    name = "one neuron" if motif.neurons == 1 else motif.kind
    size = f", N = {motif.neurons}" if motif.neurons > 2 else ""
    return ", ".join([name + size, *(value_of(setting, value) for setting, value in held.items())])


def _draw_raster(axes: Axes, run: SavedRun, duration_ms: float) -> None:
    start_ms, neurons = run.recipe.simulation.warmup_ms, run.recipe.motif.neurons
    stop_ms = start_ms + min(duration_ms, run.recipe.simulation.duration_ms)
    first = (run.spike_replica == 0) & (run.spikes_ms <= stop_ms)
    trains = [run.spikes_ms[first & (run.spike_neuron == j)] for j in range(neurons)]
    half = neurons if run.recipe.motif.kind == "links" or neurons == 1 else neurons // 2
    colours = [COLOURS[0] if j < half else COLOURS[1] for j in range(neurons)]
    axes.eventplot(trains, colors=colours, linelengths=0.8, linewidths=0.9)
    axes.set_xlim(start_ms, stop_ms)
    axes.set_ylim(neurons - 0.4, -0.6)
    if neurons <= 4:
        axes.set_yticks(range(neurons))
    dress(axes, "time t (ms)", "neuron")


def _draw_histogram(axes: Axes, run: SavedRun, log: bool) -> None:
    chosen = observed(run.recipe.motif)
    counts = run.tally.histogram[:, list(chosen)].sum(axis=(0, 1)).astype(np.float64)
    filled = np.flatnonzero(counts)
    need(len(filled) > 0, "the run holds no interval",
         fix="give hhdelay simulate a longer simulation.duration_ms")  # fmt: skip
    first, last = max(0, int(filled[0]) - 4), min(len(counts), int(filled[-1]) + 5)
    edges = np.arange(first, last + 1) * BIN_MS
    axes.stairs(counts[first:last], edges, fill=True, color=COLOURS[5], baseline=0.5 if log else 0.0)
    axes.stairs(counts[first:last], edges, color=COLOURS[0], linewidth=THIN_PT, baseline=0.5 if log else 0.0)
    three = counts[:-3] + counts[1:-2] + counts[2:-1]     # as `measure.coherence` counts skipped cycles
    commonest_ms = (int(np.argmax(three)) + 1.5) * BIN_MS
    mean_ms, R = _mean_and_R(run, chosen)
    axes.axvline(mean_ms, color=COLOURS[1], linewidth=LINE_PT, label=f"mean {mean_ms:.4g} ms, R = {R:.3g}")
    multiples = [k * commonest_ms for k in range(2, MULTIPLES + 1) if k * commonest_ms < edges[-1]]
    for k, at_ms in enumerate(multiples):
        axes.axvline(at_ms, color=GREY, linewidth=THIN_PT, linestyle=(0, (4, 2)),
                     label="_" if k else f"multiples of {commonest_ms:.4g} ms")  # fmt: skip
    axes.set_xlim(edges[0], edges[-1])
    if log:
        axes.set_yscale("log")
        axes.set_ylim(0.5, float(counts.max()) * 1.5)
        put_ticks(axes, "y", [10.0**k for k in range(int(np.log10(counts.max())) + 1)])
    last_ms = len(counts) * BIN_MS
    if counts[-1]:
        axes.annotate(f"last bin: {last_ms - BIN_MS:g} ms and more", (1, 1), xycoords="axes fraction",
                      ha="right", va="bottom", fontsize=SMALL_PT, color=INK)  # fmt: skip
    dress(axes, "inter-spike interval (ms)", f"intervals per {BIN_MS:g} ms")
    key(axes, loc="upper right")


def _mean_and_R(run: SavedRun, chosen: tuple[int, ...]) -> tuple[float, float]:
    replicas = len(run.tally.spikes)
    found = coherence(run.tally, run.recipe.simulation.duration_ms, replicas, chosen)
    mean_ms: Array = found.mean_ms
    return float(mean_ms[0]), float(found.R[0])
