"""Two sweeps: every setting roughly, then again with care those that looked quiet and had maxima."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hhdelay.config.load import load_recipe
from hhdelay.search.space import DELAYS_MS, SETTINGS, drawn
from hhdelay.sweep.axes import Axis
from hhdelay.sweep.plan import Sweep
from hhdelay.sweep.run import Progress, Told, run_sweep

AXIS = "setting"        # the dimension; its values are the places in the list of settings
ROUGH = ("simulation.dt_ms=0.02", "simulation.duration_ms=2500", "simulation.warmup_ms=300",
         "simulation.replicas=4")  # fmt: skip
FINE = ("simulation.dt_ms=0.01", "simulation.duration_ms=20000", "simulation.warmup_ms=500",
        "simulation.replicas=8", "simulation.seed=2")  # fmt: skip
FINE_DELAYS_MS = tuple(float(d) for d in range(1, 61))


def scan(
    path: Path, count: int, *, workers: int | None = None, scheduler: str | None = None,
    progress: Progress | None = None, overrides: Sequence[str] = (),
) -> Told:
    """Run `count` settings at DELAYS_MS into the store at `path`; what it already holds is kept.

    overrides   settings of every run, for tests and other ranges, on top of ROUGH
    """
    sweep = _sweep(drawn(count), DELAYS_MS, (*ROUGH, *overrides))
    return run_sweep(sweep, path, workers=workers, scheduler=scheduler, progress=progress)


def refine(
    path: Path, settings: Sequence[tuple[Any, ...]], *, workers: int | None = None,
    scheduler: str | None = None, progress: Progress | None = None, overrides: Sequence[str] = (),
) -> Told:
    """Run chosen settings again, for longer, with other noise, at every millisecond of delay."""
    sweep = _sweep(settings, FINE_DELAYS_MS, (*FINE, *overrides))
    return run_sweep(sweep, path, workers=workers, scheduler=scheduler, progress=progress)


def _sweep(settings: Sequence[tuple[Any, ...]], delays_ms: Sequence[float], given: Sequence[str]) -> Sweep:
    axes = (
        Axis(name=AXIS, settings=SETTINGS, values=tuple(settings)),
        Axis(name="delay_ms", settings=("motif.delay_ms",), values=tuple(delays_ms)),
    )
    return Sweep(recipe=load_recipe("ei", list(given)), axes=axes)
