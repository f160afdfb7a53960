"""The figures of the gallery: drawn, described, and with the commands that repeat them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from hhdelay.config.load import load_recipe
from hhdelay.engines import engine
from hhdelay.plot import coherence_lines, coherence_map, panels, phase_lines, rate_figure, save, voltage
from hhdelay.plot.firing import rate_curve
from hhdelay.plot.run import raster_and_histogram
from hhdelay.plot.saved import SavedRun
from hhdelay.reproduce.plan import Plan, Shot, Source
from hhdelay.reproduce.shifted import shifted
from hhdelay.simulate import simulate, trace

FOLDER, SUFFIXES = "figures", (".png", ".svg")


class Data(NamedTuple):
    """What is drawn."""

    sweeps: Mapping[str, xr.Dataset]
    runs: Mapping[str, SavedRun]


Draw = Callable[[Data], Figure]

@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One figure; its file is figures/NAME.png and .svg."""

    name: str
    draw: Draw
    caption: str
    alt: str
    of: tuple[str, ...]     # sweeps and runs of the plan
    plot: tuple[str, ...]   # hhdelay plot commands


def run_of(shot: Shot) -> SavedRun:
    """One run, with its spikes and the trace that the shot asks for; some seconds."""
    recipe, using = load_recipe(shot.recipe, shot.given), engine("numba")
    found = simulate(recipe, using=using, keep_spikes=True)
    each = [(r, j, times) for r, row in enumerate(found.spikes) for j, times in enumerate(row)]
    return SavedRun(
        recipe=recipe,
        tally=found.tally,
        spikes_ms=np.concatenate([times for _, _, times in each]),
        spike_replica=np.concatenate([np.full(len(times), r) for r, _, times in each]),
        spike_neuron=np.concatenate([np.full(len(times), j) for _, j, times in each]),
        trace=trace(recipe, shot.trace_ms, using=using) if shot.trace_ms else {},
    )


def _one(draw: Callable[[xr.Dataset], Figure], name: str) -> Draw:
    return lambda data: draw(data.sweeps[name])


def _together(*names: str) -> Draw:
    return lambda data: panels([data.sweeps[name] for name in names])


def _spikes(name: str) -> Draw:
    return lambda data: raster_and_histogram(data.runs[name], log=True)


def _plot(names: str, out: str, *words: str) -> str:
    return " ".join(["hhdelay plot", names, *words, f"--out {out}.png"])


def _maps() -> Iterator[Picture]:
    for kind, partner in (("ei", "an excitatory and an inhibitory neuron"), ("ii", "two inhibitory neurons")):
        name = f"map-{kind}"
        yield Picture(
            name=name, draw=_one(coherence_map, name),
            caption=f"R of {partner} over delay and strength, logarithmic colours and contours. Dots: the "
            "maxima of each strength. Dashed: where the law that we fitted puts them for the mean interval "
            "measured there. Fine strokes: points that fire on when the noise stops.",
            alt=f"Map of coherence over delay and coupling strength for {partner}",
            of=(name,), plot=(_plot(f"{name}.zarr", name),),
        )  # fmt: skip


def _lines() -> Iterator[Picture]:
    for kind in ("ei", "ii"):
        name = f"line-{kind}"
        yield Picture(
            name=name, draw=_one(coherence_lines, name),
            caption=f"{kind.upper()} at g = 2: R with its 95 % band, and the mean interval below. Green "
            "bars: the law that we fitted.",
            alt=f"Coherence and mean interval against the delay for {kind.upper()} at coupling strength 2",
            of=(name,), plot=(_plot(f"{name}.zarr", name, "--what lines"),),
        )  # fmt: skip
    yield Picture(
        name="phases", draw=_one(phase_lines, "line-ii"),
        caption="Phase of neuron 1 behind neuron 0 in II, pale where they are not locked, and how firmly it "
        "is kept. Dotted: maxima of R.",
        alt="Phase and locking of the inhibitory pair against the delay",
        of=("line-ii",), plot=(_plot("line-ii.zarr", "phases", "--what phase"),),
    )  # fmt: skip


def _runs() -> Iterator[Picture]:
    yield Picture(
        name="run-peak", draw=lambda data: voltage(data.runs["run-peak"], gates=True),
        caption="The first 150 ms of EI at a tuned delay, from rest: after each inhibition a rebound spike.",
        alt="Voltages, gates and synapses of the excitatory and inhibitory neuron against time",
        of=("run-peak",), plot=(_plot("run-peak.npz", "run-peak", "--what gates"),),
    )  # fmt: skip
    for name, text in (
        ("run-peak", "EI at a tuned delay, τ = 9 ms"),
        ("run-between", "EI between two maxima, τ = 18 ms"),
        ("run-antiphase", "II at a tuned delay, τ = 18 ms"),
    ):
        picture = "run-peak-spikes" if name == "run-peak" else name
        yield Picture(
            name=picture, draw=_spikes(name),
            caption=f"{text}: spikes of one replica over a second, and the inter-spike intervals of all.",
            alt=f"Spike raster and histogram of inter-spike intervals, {text}",
            of=(name,), plot=(_plot(f"{name}.npz", picture, "--what spikes", "--log"),),
        )  # fmt: skip


def _panels() -> Iterator[Picture]:
    yield Picture(
        name="delay-e", draw=_one(shifted, "delay-e"),
        caption="EI with delayed excitation: left over the delay of inhibition, right over the sum of the "
        "two delays.",
        alt="Coherence against delay for four delays of excitation, and against the sum of both delays",
        of=("delay-e",), plot=(_plot("delay-e.zarr", "delay-e", "--what lines"),),
    )  # fmt: skip
    yield Picture(
        name="noise", draw=_together("noise-ei", "noise-ii"),
        caption="R over the delay for five intensities of the noise, EI and II.",
        alt="Coherence against delay for noise intensities 0.5 to 8, both pairs",
        of=("noise-ei", "noise-ii"), plot=(_plot("noise-ei.zarr noise-ii.zarr", "noise"),),
    )  # fmt: skip
    for kind, sizes in (("ei", (10, 40)), ("ii", (10,))):
        names = (f"line-{kind}", *(f"size-{kind}-{N}" for N in sizes))
        yield Picture(
            name=f"size-{kind}", draw=_together(*names),
            caption=f"{kind.upper()}: the pair, and populations of {' and '.join(map(str, sizes))} neurons.",
            alt=f"Coherence against delay for growing numbers of neurons, {kind.upper()}",
            of=names, plot=(_plot(" ".join(f"{n}.zarr" for n in names), f"size-{kind}"),),
        )  # fmt: skip
    best = ("best-single", "best-ei", "best-ii")
    yield Picture(
        name="best", draw=_together(*best),
        caption="R over the intensity of the noise: one neuron alone, and the two pairs at a tuned delay.",
        alt="Coherence against noise intensity for one neuron and for both pairs at a tuned delay",
        of=best, plot=(_plot(" ".join(f"{n}.zarr" for n in best), "best"),),
    )  # fmt: skip
    yield Picture(
        name="rate", draw=lambda _: rate_figure(rate_curve()),
        caption="One neuron without noise: rate against bias current, and the range with two stable states.",
        alt="Firing rate against bias current, rising and falling, with the bistable range shaded",
        of=(), plot=("hhdelay plot f-I --out rate.png",),
    )  # fmt: skip


PICTURES = {one.name: one for one in (*_maps(), *_lines(), *_runs(), *_panels())}


def draw_all(data: Data, folder: Path, tell: Callable[[int, int], None]) -> None:
    """Every figure as PNG and SVG; tell(done, all) as they are written."""
    for k, picture in enumerate(PICTURES.values()):
        tell(k, len(PICTURES))
        made = picture.draw(data)
        for suffix in SUFFIXES:
            save(made, folder / f"{picture.name}{suffix}")
    tell(len(PICTURES), len(PICTURES))


def commands(plan: Plan, picture: Picture) -> list[str]:
    """Shell lines from nothing to the figure."""
    sources: list[Source | Shot] = [plan.source(name) for name in picture.of]
    return [*(line for one in sources for line in one.commands()), *picture.plot]
