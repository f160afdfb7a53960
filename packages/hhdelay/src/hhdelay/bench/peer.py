"""Brian2 beside us: its program in its own environment, built once, then run turn by turn."""

from __future__ import annotations

import json
import math
import subprocess
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hhdelay.bench.ours import Map, summary
from hhdelay.bench.plan import Grid
from hhdelay.config.errors import HHDelayError
from hhdelay.config.load import load_recipe
from hhdelay.config.recipe import Recipe
from hhdelay.gates import Array
from hhdelay.measure import Recorder, Spikes
from hhdelay.measure.spikes import REFRACTORY_MS
from hhdelay.membrane import rest
from hhdelay.network import assemble
from hhdelay.simulate import trace
from hhdelay.synapse import release

PROGRAM = "brian2_map.py"
ONE_SPIKE_MS = 12.0     # from a step of current on, within which a neuron at rest fires once
LAST_WORDS = 300        # of a program that failed, as its error repeats them


class Brian2Map:
    """Brian2's program, alive between the turns; use it in a `with`."""

    def __init__(self, python: Path, grid: Grid, threads: int, folder: Path) -> None:
        """Build it in `folder`, which takes about a quarter of a minute."""
        self._grid, self._folder = grid, folder
        folder.mkdir()
        job = folder / "job.json"
        job.write_text(json.dumps(job_of(grid, threads)), "utf-8")
        program = Path(str(files("hhdelay.bench").joinpath(PROGRAM)))
        self._log = (folder / "stderr").open("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            (str(python), "-I", str(program), str(job), str(folder / "build")),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8",
        )
        try:
            built = self._answer()
        except BaseException:
            self.close()
            raise
        self.build_s, self.version = float(built["build_s"]), str(built["version"])

    def run(self) -> Map:
        """The map once more."""
        out = self._folder / "spikes.npz"
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):     # a program that has ended tells why below
            self._process.stdin.write(f"{out}\n")
            self._process.stdin.flush()
        took = self._answer()
        with np.load(out) as held:
            spikes = spikes_of(held["i"], held["t_ms"], self._grid)
        recorder = Recorder(*spikes.counts.shape)
        recorder.feed(spikes)
        R, intervals = summary(recorder.tally, self._grid.recipes()[0])
        return Map(R=R, intervals=intervals, wall_s=float(took["run_s"]), cpu_s=float(took["cpu_s"]))

    def close(self) -> None:
        """Let the program end; one that does not listen is stopped."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if pipe:
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Brian2Map:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        """The next line of the program; HHDelayError where it has ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._process.wait()
        self._log.seek(0)
        said = " ".join(self._log.read().split())[-LAST_WORDS:]
        fix = "install a C++ compiler with OpenMP (Debian: g++), or move away from the Brian2 environment"
        status = self._process.returncode
        raise HHDelayError(f"Brian2's program ended with status {status}: {said}. Fix: {fix}")


def job_of(grid: Grid, threads: int) -> dict[str, Any]:
    """The map as `brian2_map.py` takes it: neuron N c + i of the group is neuron i of cell c."""
    recipes = grid.recipes()
    one, batch = recipes[0], assemble(recipes)
    of, synapse, N = one.neuron, one.synapse, batch.neurons
    exc = (synapse.exc_rise_per_ms, synapse.exc_decay_per_ms)
    assert exc == (synapse.inh_rise_per_ms, synapse.inh_decay_per_ms), "s lives in the neuron that feels it"
    assert batch.wiring.link_target.tolist() == list(range(N)), "one link to each neuron, in their order"
    E_syn_mV = np.where(batch.wiring.link_sign > 0, synapse.exc_E_mV, synapse.inh_E_mV)
    source = batch.wiring.link_source + N * np.arange(batch.cells)[:, None]
    return {
        "source": source.ravel().tolist(),
        "delay_ms": (batch.delay_steps * batch.dt_ms).ravel().tolist(),
        "g_mS_cm2": batch.g_mS_cm2.ravel().tolist(),
        "E_syn_mV": np.tile(E_syn_mV, batch.cells).tolist(),
        "start": batch.start[0, 0].tolist(),
        "constants": {
            "C": of.C_uF_cm2, "g_Na": of.g_Na_mS_cm2, "g_K": of.g_K_mS_cm2, "g_leak": of.g_leak_mS_cm2,
            "E_Na": of.E_Na_mV, "E_K": of.E_K_mV, "E_leak": of.E_leak_mV, "speed": of.rate_factor,
            "I": of.I_uA_cm2, "D": one.noise.D_uA2_ms_cm4, "rise": exc[0], "decay": exc[1],
        },
        "pulse_ms": open_ms(one),
        "refractory_ms": REFRACTORY_MS,
        "dt_ms": batch.dt_ms,
        "total_ms": grid.warmup_ms + grid.duration_ms,
        "openmp_threads": threads if threads > 1 else 0,    # 0: no OpenMP at all, Brian2's default
        "seed": one.simulation.seed,
    }  # fmt: skip


def open_ms(recipe: Recipe) -> float:
    """How long one spike opens the synapses of `recipe`: the integral of H(V) over it, without noise.

    The spike is that of a neuron at rest without a current, to which the recipe's bias is given.
    """
    start_mV = rest(recipe.neuron, 0.0)[0]
    alone = load_recipe("single", [
        "noise.D_uA2_ms_cm4=0", f"neuron.I_uA_cm2={recipe.neuron.I_uA_cm2}", "simulation.replicas=1",
        f"simulation.start_V_mV={start_mV}", f"simulation.dt_ms={recipe.simulation.dt_ms}",
    ])  # fmt: skip
    V_mV = trace(alone, ONE_SPIKE_MS)["V_mV"]
    H = release(V_mV, recipe.synapse.V_half_mV, recipe.synapse.K_mV)
    return float(H.sum() * recipe.simulation.dt_ms)


def spikes_of(neuron: Array, t_ms: Array, grid: Grid) -> Spikes:
    """Of the group's spikes those after the warm-up, as a Recorder takes them. [cells, 2, K]"""
    counted = t_ms >= grid.warmup_ms
    neuron, t_ms = neuron[counted].astype(np.int64), t_ms[counted]
    counts = np.bincount(neuron, minlength=2 * grid.cells)
    order = np.lexsort((t_ms, neuron))
    first = np.repeat(np.cumsum(counts) - counts, counts)
    times = np.zeros((2 * grid.cells, max(1, int(counts.max(initial=0)))))
    times[neuron[order], np.arange(len(order)) - first] = t_ms[order]
    return Spikes(times.reshape(grid.cells, 2, -1), counts.reshape(grid.cells, 2))


def compare(ours: Map, theirs: Map, *, fewest: int = 30) -> tuple[float, float, int]:
    """Correlation of ln R, median of their R over ours, and the points with `fewest` intervals in both."""
    good = (ours.intervals >= fewest) & (theirs.intervals >= fewest)
    good &= np.isfinite(ours.R) & np.isfinite(theirs.R)
    a, b = ours.R[good], theirs.R[good]
    return log_correlation(a, b), float(np.median(b / a)) if len(a) else math.nan, len(a)


def log_correlation(a: Array, b: Array) -> float:
    """Pearson's, of the logarithms; NaN below three points or where one side does not vary."""
    x, y = np.log(a), np.log(b)
    if len(x) < 3 or x.std() == 0.0 or y.std() == 0.0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])
