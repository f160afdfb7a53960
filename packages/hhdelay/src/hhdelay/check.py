"""Known values of the noise-free neuron and of the scheme, found again: what `hhdelay check` prints.

The published ones are those of the squid axon of Hodgkin and Huxley 1952 with the constants of
`hhdelay.config.neuron` (Hopf points and the fold of limit cycles: Rinzel and Miller 1980, Math. Biosci.
49, 27); the digits are ours, from an independent program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hhdelay.config.load import load_recipe
from hhdelay.config.neuron import Neuron
from hhdelay.engines import ENGINES, engine
from hhdelay.gates import Array
from hhdelay.integrate import runge_kutta
from hhdelay.membrane import halve, hopf_uA_cm2, leading_eigenvalue_per_ms, rest, settled
from hhdelay.network import assemble

NEURON = Neuron()
REST = {0.0: (-64.99972, 0.0529342, 0.5961110, 0.3176812), 5.0: (-61.73313, 0.0771974, 0.4793753, 0.3687035)}
EIGENVALUES = {0.0: (-0.2027, 0.3831), 4.0: (-0.1189, 0.5006), 5.0: (-0.0972, 0.5208), 6.0: (-0.0758, 0.5384)}
PERIODS_MS = {6.5: 18.175, 7.0: 17.151, 8.0: 16.011, 10.0: 14.638, 15.0: 12.716, 20.0: 11.565, 30.0: 10.128,
              50.0: 8.545}  # fmt: skip
EULER_STEPS_MS = (0.02, 0.01, 0.005, 0.0025)


class Row(NamedTuple):
    """One value: what it should be, what it is, how far apart the two may lie."""

    name: str
    expected: float
    found: float
    tolerance: float

    @property
    def passes(self) -> bool:
        """Whether it is near enough; a NaN is not."""
        return abs(self.found - self.expected) <= self.tolerance


def rows() -> Iterator[Row]:
    """Every value, as it is found: a few seconds."""
    yield from rest_rows()
    yield from bifurcation_rows()
    yield from firing_rows()
    yield from scheme_rows()


def rest_rows() -> Iterator[Row]:
    """The resting state and the way back to it."""
    for current, values in REST.items():
        for name, expected, found in zip(("V mV", "m", "h", "n"), values, rest(NEURON, current), strict=True):
            digits = 1e-5 if name == "V mV" else 1e-6
            yield Row(f"rest at I={current:g}: {name}", expected, float(found), digits)
    for current, (real, imaginary) in EIGENVALUES.items():
        found_pair = leading_eigenvalue_per_ms(NEURON, current)
        yield Row(f"eigenvalue at I={current:g}, real part /ms", real, found_pair.real, 1e-4)
        yield Row(f"eigenvalue at I={current:g}, imaginary part /ms", imaginary, found_pair.imag, 1e-4)


def bifurcation_rows() -> Iterator[Row]:
    """Where rest loses its stability, where firing begins and where it ends."""
    hopf = hopf_uA_cm2(NEURON, 9.0, 10.5)
    yield Row("lower Hopf point, I", 9.779, hopf, 1e-3)
    yield Row("period there, ms", 10.72, 2 * math.pi / leading_eigenvalue_per_ms(NEURON, hopf).imag, 0.01)
    yield Row("upper Hopf point, I", 154.527, hopf_uA_cm2(NEURON, 150.0, 160.0), 2e-3)
    fold = _threshold(lambda current: bool(len(_kept_firing(current))), 6.2, 6.4)
    yield Row("fold of limit cycles, I", 6.264, fold, 2e-3)
    yield Row("period there, ms", 19.71, float(np.diff(_kept_firing(fold)).mean()), 0.2)
    once = _threshold(lambda current: len(_from_rest(current, 200.0)) >= 1, 2.0, 2.5)
    yield Row("step from rest that fires once, I", 2.241, once, 1e-3)
    often = _threshold(lambda current: len(_from_rest(current, 500.0)) >= 10, 6.1, 6.4)
    yield Row("step from rest that fires 10 times in 500 ms, I", 6.258, often, 5e-3)


def firing_rows() -> Iterator[Row]:
    """Period of firing under a constant current, by Runge-Kutta at 0.01 ms."""
    for current, period in PERIODS_MS.items():
        found = float(np.diff(_from_rest(current, 1000.0)[-10:]).mean())
        yield Row(f"period at I={current:g}, ms", period, found, 1e-3 * period)
    yield Row("spikes at I=100 after the first 100 ms", 0, int((_from_rest(100.0, 1000.0) > 100.0).sum()), 0)


def scheme_rows() -> Iterator[Row]:
    """The forward Euler step of the engines, without noise, and the agreement of the engines with it."""
    quiet = load_recipe("single", ["noise.D_uA2_ms_cm4=0", "neuron.I_uA_cm2=0"])
    run = engine().start(assemble([quiet], [0]))
    run.advance(100_000)
    drift = float(np.abs(run.snapshot().V_mV - rest(NEURON, 0.0)[0]).max())
    yield Row("drift of Euler at rest in 1 s, mV", 0.0, drift, 1e-9)

    exact = _from_rest(10.0, 100.0, dt_ms=0.001)
    coarse = _from_rest(10.0, 100.0)
    yield Row("error of Runge-Kutta at dt=0.01 ms, sixth spike, ms", 0.0, float(coarse[5] - exact[5]), 2e-5)
    five = [euler_spikes_ms(10.0, 100.0, dt_ms) for dt_ms in EULER_STEPS_MS]
    errors = [(times[5] - times[0]) - (exact[5] - exact[0]) for times in five]
    for k, dt_ms in enumerate(EULER_STEPS_MS[:-1]):
        found = math.log2(errors[k] / errors[k + 1])
        yield Row(f"order of Euler below dt={dt_ms:g} ms, five periods at I=10", 1.0, found, 0.1)

    for name in ("ei", "ii", "ee"):
        for fast, apart in engines_apart_mV(name, 50.0).items():
            yield Row(f"engine {fast} from the reference after 50 ms, {name}, mV", 0.0, apart, 1e-9)


def euler_spikes_ms(I_uA_cm2: float, duration_ms: float, dt_ms: float) -> Array:
    """Spikes of the fast engine without noise, from rest at I = 0."""
    given = (f"neuron.I_uA_cm2={I_uA_cm2}", "noise.D_uA2_ms_cm4=0", f"simulation.dt_ms={dt_ms}")
    recipe = load_recipe("single", given)
    run_for = replace(recipe.simulation, start_V_mV=(float(rest(NEURON, 0.0)[0]),), replicas=1)
    run = engine().start(assemble([replace(recipe, simulation=run_for)]))
    spikes = run.advance(round(duration_ms / dt_ms))
    return spikes.time_ms[0, 0, : spikes.counts[0, 0]]


def engines_apart_mV(recipe: str, duration_ms: float) -> dict[str, float]:
    """The largest difference of voltages from the reference, on the same noise, of each other engine."""
    batch = assemble([load_recipe(recipe, ["simulation.replicas=1"])])
    ends = {}
    for name in ENGINES:
        run = engine(name).start(batch)
        run.advance(round(duration_ms / batch.dt_ms))
        ends[name] = run.snapshot().V_mV
    plain = ends.pop("reference")
    return {name: float(np.abs(V_mV - plain).max()) for name, V_mV in ends.items()}


def _from_rest(I_uA_cm2: float, duration_ms: float, dt_ms: float = 0.01) -> Array:
    """Spikes after a step of current from rest at I = 0."""
    start = settled(np.asarray(rest(NEURON, 0.0)[0]))
    return runge_kutta(NEURON, start, (I_uA_cm2, I_uA_cm2), duration_ms, dt_ms)[0]


def _kept_firing(I_uA_cm2: float) -> Array:
    """Spikes of the last of three seconds at I, approached slowly from the limit cycle at I = 7."""
    state = settled(np.asarray(-65.0))
    there = (I_uA_cm2, I_uA_cm2)
    for currents, duration_ms in (((7.0, 7.0), 200.0), ((7.0, I_uA_cm2), 500.0), (there, 2000.0)):
        _, state = runge_kutta(NEURON, state, currents, duration_ms, 0.02)
    return runge_kutta(NEURON, state, there, 1000.0, 0.02)[0]


def _threshold(fires: Callable[[float], bool], low: float, high: float) -> float:
    """The least current that fires, to 1e-4 from above."""
    return halve(lambda current: 1.0 if fires(current) else -1.0, low, high, digits=1e-4) + 1e-4
