"""All rows of the bench: ours and Brian2 in turn, rates beside the limit, a large map, the first call."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from hhdelay.bench.environment import FOLDER
from hhdelay.bench.limit import limit
from hhdelay.bench.ours import Map, make_map, neuron_steps, rate_per_s
from hhdelay.bench.peer import Brian2Map, compare
from hhdelay.bench.plan import Grid, Plan
from hhdelay.config.errors import HHDelayError, need
from hhdelay.engines import ENGINES, engine

Report = dict[str, Any]     # plain numbers, texts, lists and tables of them; None where nothing was measured
Tell = Callable[[str], None]

NO_BRIAN2 = f"Brian2 was not run: there is no {FOLDER} here. `make bench` makes it, --brian2 names another"
BUSY = "Brian2 was slower with OpenMP than with one thread, so the machine was not quiet: repeat the bench"
FIRST = ("-m", "hhdelay", "simulate", "ei", "simulation.duration_ms=100", "simulation.warmup_ms=10", "--json",
         "--engine", ENGINES[0])  # fmt: skip


def run(plan: Plan, *, brian2: Path | None, environment: Mapping[str, str], tell: Tell) -> Report:
    """Every row, in the order in which they are found.

    brian2       the Python that has it
    environment  of this process, for one that compiles afresh
    tell         is told each stage before it begins
    """
    fastest = engine(ENGINES[0])
    rows: Report = {
        "ratio_to_brian2_batched": None, "neuron_steps_per_s_per_core": None, "share_of_limit": None,
        "engine": fastest.name, "cores": os.cpu_count(), "workers": plan.workers,
        "load_before": os.getloadavg()[0],      # OpenMP's waiting threads suffer most where others work too
    }  # fmt: skip
    tell("the first call, compiling, and the next one")
    rows["first_call_s"], rows["next_call_s"] = first_calls_s(environment)
    rows |= _rates(plan, tell)
    rows |= _maps(plan, brian2, tell)
    if plan.large:
        tell(f"a map of {_size(plan.large)}")
        large = make_map(fastest, plan.large, plan.workers)
        rows |= {"large_map": _size(plan.large), "large_map_s": large.wall_s, "large_map_cpu_s": large.cpu_s,
                 "large_map_neuron_steps_per_s": neuron_steps(plan.large) / large.wall_s}  # fmt: skip
    return {name: _plain(value) for name, value in rows.items()}


def _rates(plan: Plan, tell: Tell) -> Report:
    """One thread, turn by turn, each engine and each law; the limit is looked for in each turn too."""
    kinds = [(name, "gaussian") for name in ENGINES] + [(ENGINES[0], "triangular")]
    found: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    limits = []
    for turn in range(plan.turns):
        tell(f"rates of one thread, turn {turn + 1} of {plan.turns}")
        limits.append(limit())
        for kind in kinds:
            found[kind].append(rate_per_s(engine(kind[0]), kind[1], plan.rate_s))
    best = max(limits, key=lambda one: one.clock_Hz)
    middle = {kind: median(each) for kind, each in found.items()}
    rate = middle[ENGINES[0], "gaussian"]
    return {
        "neuron_steps_per_s_per_core": rate,
        "share_of_limit": rate / best.per_s,
        "neuron_steps_per_s_per_core_turns": found[ENGINES[0], "gaussian"],
        "neuron_steps_per_s_per_core_triangular": middle[ENGINES[0], "triangular"],
        "neuron_steps_per_s_by_engine": {name: middle[name, "gaussian"] for name in ENGINES},
        "limit_neuron_steps_per_s_per_core": best.per_s,
        "limit_cycles": best.cycles, "clock_Hz": best.clock_Hz, "isa": best.isa, "lanes": best.lanes,
    }  # fmt: skip


def _maps(plan: Plan, brian2: Path | None, tell: Tell) -> Report:
    """The same map by ours, by Brian2 with OpenMP and with one thread, by ours with the cheap noise; turn by
    turn.
    """
    fastest, cheap = engine(ENGINES[0]), replace(plan.grid, law="triangular")
    ours: list[Map] = []
    cheaper: list[Map] = []
    rows: Report = {"map": _size(plan.grid), "map_neuron_steps": neuron_steps(plan.grid)}
    with tempfile.TemporaryDirectory(prefix="hhdelay-bench-") as temporary, ExitStack() as alive:
        peers: list[Brian2Map] = []
        for threads in (plan.workers, 1):
            if brian2 is None:
                break
            tell(f"Brian2 builds its program, threads: {threads}")
            folder = Path(temporary) / str(threads)
            peers.append(alive.enter_context(Brian2Map(brian2, plan.grid, threads, folder)))
        theirs: list[list[Map]] = [[] for _ in peers]
        for turn in range(plan.turns):
            tell(f"the map of {_size(plan.grid)}, turn {turn + 1} of {plan.turns}")
            ours.append(make_map(fastest, plan.grid, plan.workers))
            for peer, its in zip(peers, theirs, strict=True):
                its.append(peer.run())
            cheaper.append(make_map(fastest, cheap, plan.workers))
    rows |= {"ours_s": median_s(ours), "triangular_s": median_s(cheaper),
             "ours_turns_s": [one.wall_s for one in ours], "ours_cpu_s": [one.cpu_s for one in ours],
             "triangular_turns_s": [one.wall_s for one in cheaper]}  # fmt: skip
    if not peers:
        return rows | {"note": NO_BRIAN2}
    rows |= {"brian2_version": peers[0].version, "brian2_build_s": peers[0].build_s}
    return rows | beside(ours, cheaper, openmp=theirs[0], alone=theirs[1])


def beside(ours: list[Map], cheaper: list[Map], *, openmp: list[Map], alone: list[Map]) -> Report:
    """What both gave and took. The ratios are to Brian2's faster way: threads that wait for one another at
    every step lose more than they win where the machine has other work, and that is no merit of ours.
    """
    correlation, factor, points = compare(ours[0], openmp[0])
    both_s, alone_s, ours_s = median_s(openmp), median_s(alone), median_s(ours)
    rows = {
        "ratio_to_brian2_batched": min(both_s, alone_s) / ours_s,
        "ratio_triangular": min(both_s, alone_s) / median_s(cheaper),
        "ratio_to_brian2_openmp": both_s / ours_s,
        "ratio_to_brian2_in_two_processes": alone_s / 2 / ours_s,   # half of the grid in each, at best
        "brian2_openmp_s": both_s,
        "brian2_openmp_turns_s": [one.wall_s for one in openmp],
        "brian2_openmp_cpu_s": [one.cpu_s for one in openmp],
        "brian2_one_thread_s": alone_s,
        "brian2_one_thread_turns_s": [one.wall_s for one in alone],
        "log_R_correlation": correlation,
        "median_R_ratio": factor,
        "points_compared": points,
    }
    return rows | ({"note": BUSY} if both_s > alone_s else {})


def first_calls_s(environment: Mapping[str, str]) -> tuple[float, float]:
    """A short simulation in a process of its own, with nothing compiled before, and the same once more."""
    took = []
    with tempfile.TemporaryDirectory(prefix="hhdelay-bench-") as cache:
        for _ in range(2):
            start_s = time.perf_counter()
            done = subprocess.run((sys.executable, *FIRST), capture_output=True, text=True,
                                  env={**environment, "NUMBA_CACHE_DIR": cache})  # fmt: skip
            what = f"`hhdelay {' '.join(FIRST[2:])}` failed: {done.stderr[-300:].strip()}"
            fix = "run it alone and mend what it says"
            need(done.returncode == 0, what, fix=fix, error=HHDelayError)
            took.append(time.perf_counter() - start_s)
    return took[0], took[1]


def median_s(maps: list[Map]) -> float:
    """Of the wall times."""
    return median(one.wall_s for one in maps)


def _size(grid: Grid) -> str:
    delays, strengths = len(grid.delays_ms), len(grid.strengths_mS_cm2)
    return f"{delays} x {strengths} cells of {grid.duration_ms / 1e3:g} s"


def _plain(value: Any) -> Any:
    """As JSON has it: no NaN, and floats of Python."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def text(rows: Report) -> str:
    """One line a row; the unit is the end of its name."""
    return "\n".join(f"{name:42}{_told(value)}" for name, value in rows.items())


def _told(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return "  ".join(map(_told, value))
    if isinstance(value, dict):
        return "  ".join(f"{name} {_told(one)}" for name, one in value.items())
    return format(value, ".4g") if isinstance(value, float) else str(value)
