"""What is computed for the gallery: sweeps and single runs, each with the command that repeats it.

All are of the recipes that ship, at a step of 0.02 ms, twice theirs; the sweep `step` measures what that
changes. At maxima R hangs on rare events, a skipped cycle now and then, so the lines over the delay have
256 s a point; the maps have 24 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from shlex import quote
from typing import NamedTuple

from hhdelay.config.load import load_recipe
from hhdelay.sweep.axes import parse_axis
from hhdelay.sweep.plan import Sweep

DELAY, STRENGTH, NOISE = "motif.delay_ms", "motif.g_mS_cm2", "noise.D_uA2_ms_cm4"
DT = "simulation.dt_ms=0.02"


class Source(NamedTuple):
    """One sweep of the gallery."""

    name: str               # of its store, data/NAME.zarr
    title: str              # for the progress
    recipe: str
    given: tuple[str, ...]  # settings on top
    over: tuple[str, ...]   # axes
    tile: int | None = None     # points that are run side by side; no matter for the result
    persistence: bool = True

    @property
    def points(self) -> int:
        """Of the grid."""
        return prod(len(parse_axis(axis)) for axis in self.over)

    def sweep(self) -> Sweep:
        """Ready to be run."""
        axes = tuple(map(parse_axis, self.over))
        return Sweep(recipe=load_recipe(self.recipe, self.given), axes=axes, persistence=self.persistence)

    def commands(self) -> list[str]:
        """Shell lines that make the same store."""
        words = ["hhdelay", "sweep", self.recipe, *self.given]
        words += [word for axis in self.over for word in ("--over", axis)]
        words += ["--tile", str(self.tile)] if self.tile else []
        words += [] if self.persistence else ["--no-persistence"]
        return [" ".join(map(quote, [*words, "--out", f"{self.name}.zarr"]))]


class Shot(NamedTuple):
    """One run whose spikes, and perhaps voltages, are drawn."""

    name: str
    recipe: str
    given: tuple[str, ...]
    trace_ms: float = 0.0

    def commands(self) -> list[str]:
        """Shell lines that make the same run."""
        words = ["hhdelay", "simulate", self.recipe, *self.given, "--engine", "numba"]
        words += ["--trace-ms", f"{self.trace_ms:g}"] if self.trace_ms else []
        return [" ".join(map(quote, [*words, "--out", f"{self.name}.npz"]))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything that one gallery is made of.

    judged      whether the runs are long enough for a verdict
    """

    judged: bool
    sweeps: tuple[Source, ...]
    shots: tuple[Shot, ...]

    def source(self, name: str) -> Source | Shot:
        """By its name."""
        held: dict[str, Source | Shot] = {one.name: one for one in self.sweeps}
        return (held | {one.name: one for one in self.shots})[name]


class Size(NamedTuple):
    """How fine and how long."""

    delays: str         # of maps and lines
    strengths: str
    map_time: tuple[str, ...]
    line_time: tuple[str, ...]
    panel_delays: str   # of the panels
    panel_time: tuple[str, ...]
    crowd_delays: str   # of populations
    crowd_time: tuple[str, ...]
    giant_time: tuple[str, ...]
    point_time: tuple[str, ...]     # of R against the noise


FULL = Size(
    delays="0:70:141", strengths="0.25:4:16", map_time=("6000", "4"), line_time=("8000", "32"),
    panel_delays="0:60:121", panel_time=("8000", "8"), crowd_delays="0:60:61", crowd_time=("5000", "16"),
    giant_time=("4000", "8"), point_time=("20000", "32"),
)  # fmt: skip
QUICK = Size(
    delays="0:60:21", strengths="0.5:3.5:4", map_time=("400", "2"), line_time=("400", "4"),
    panel_delays="0:60:21", panel_time=("300", "2"), crowd_delays="1:41:5", crowd_time=("200", "2"),
    giant_time=("200", "2"), point_time=("500", "4"),
)  # fmt: skip


def full() -> Plan:
    """The whole gallery: some 5e10 neuron-steps, four minutes of two free processors."""
    return Plan(judged=True, sweeps=tuple(_sweeps(FULL)), shots=_shots("20000", "4"))


def quick() -> Plan:
    """The same figures of coarse grids and short runs: to see that it works, not to judge by."""
    return Plan(judged=False, sweeps=tuple(_sweeps(QUICK)), shots=_shots("1000", "2"))


def _time(time: tuple[str, ...]) -> tuple[str, ...]:
    return DT, f"simulation.duration_ms={time[0]}", f"simulation.replicas={time[1]}"


def _sweeps(size: Size) -> Iterator[Source]:
    delays, panel = f"{DELAY}={size.delays}", f"{DELAY}={size.panel_delays}"
    for kind in ("ei", "ii"):
        over = (delays, f"{STRENGTH}={size.strengths}")
        yield Source(f"map-{kind}", f"map of {kind.upper()}", kind, _time(size.map_time), over)
    for kind in ("ei", "ii"):
        title = f"R over the delay, {kind.upper()}"
        yield Source(f"line-{kind}", title, kind, _time(size.line_time), (delays,))
    yield Source("delay-e", "delay of excitation", "ei", _time(size.panel_time),
                 ("motif.delay_e_ms=0,4,8,12", panel), 4, False)  # fmt: skip
    for kind in ("ei", "ii"):
        yield Source(f"noise-{kind}", f"noise, {kind.upper()}", kind, _time(size.panel_time),
                     (f"{NOISE}=0.5,1,2,4,8", panel), 20, False)  # fmt: skip
    crowd = f"{DELAY}={size.crowd_delays}"
    for kind, neurons, time in (("ei", 10, size.crowd_time), ("ii", 10, size.crowd_time),
                                ("ei", 40, size.giant_time)):  # fmt: skip
        yield Source(f"size-{kind}-{neurons}", f"{neurons} neurons, {kind.upper()}", kind,
                     (*_time(time), f"motif.neurons={neurons}"), (crowd,), 4, False)  # fmt: skip
    long = _time(size.point_time)
    yield Source("best-single", "one neuron over the noise", "single", long, (f"{NOISE}=log:0.5:96:16",))
    for kind in ("ei", "ii"):
        yield Source(f"best-{kind}", f"the first maximum over the noise, {kind.upper()}", kind, long,
                     (f"{NOISE}=log:0.25:32:15",))  # fmt: skip
    _, *its = long
    yield Source("step", "the time step", "ei", tuple(its),
                 (f"{DELAY}=9,18", "simulation.dt_ms=0.005,0.01,0.02"), 1, False)  # fmt: skip


def _shots(duration_ms: str, replicas: str) -> tuple[Shot, ...]:
    its = (f"simulation.duration_ms={duration_ms}", f"simulation.replicas={replicas}")
    return (
        Shot("run-peak", "ei", (f"{DELAY}=9", *its), 150.0),
        Shot("run-between", "ei", (f"{DELAY}=18", *its)),
        Shot("run-antiphase", "ii", (f"{DELAY}=18", *its)),
    )
