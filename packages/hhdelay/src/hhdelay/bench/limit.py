"""The least time of a neuron-step, by counting what its equations ask of the processor's vector units.

One neuron of a pair of the recipe `ei`, float64, Gaussian noise, every known saving taken: six rates and the
release from powers of one exponential c = exp(-(V + 65) / 720), four quotients under one division, constants
folded, the state in registers, keys of the noise made once. A fused multiply-add counts as one. Where an
operation serves several numbers its share is counted: Philox gives four words, Box and Muller two numbers.

Assumed of a core: in each cycle 2 vector operations of floating point and, beside them, 2 of integers or
bits, 2 loads and 1 store; division and root no dearer than the rest. A core that shares its units between the
kinds, as Intel's do at 512 bits, cannot come as near. So the limit is an upper one.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]

from hhdelay.compiled import compiled

FLOAT64_LANES = {"avx512f": 8, "avx2": 4}   # widest first; without either, 2
FLOATS_A_CYCLE = INTEGERS_A_CYCLE = 2
CHAIN = 2_000_000       # links of 8 cycles: about 5 ms
TRIES = 20


class Work(NamedTuple):
    """Vector operations for one part of one neuron-step."""

    part: str
    floats: float
    integers: float = 0.0
    why: str = ""


WORK = (
    Work("exponential", 10, why="argument as one multiply-add; polynomial of degree 9, as |u / 720| < 0.18"),
    Work("powers", 8, why="c^2 4 8 9 18 36 40 72, for exp(-u/80), exp(-u/20), exp(-u/18) and exp(-u/10)"),
    Work("denominators", 3, why="1 - e^2.5 c^72, 1 - e c^72, 1 + e^3 c^72: of a_m, a_n, b_h"),
    Work("ramps", 6, why="2 numerators; for each a comparison and a choice where it would be 0/0"),
    Work("release", 2, why="H(V): c^144, as the recipe's K is 5 mV, and the denominator"),
    Work("quotients", 12, why="1 / (d1 d2 d3 d4): 3 products, 1 division, 6 to part it, 2 numerators"),
    Work("gates", 10, why="m, h, n: a + b, a - (a + b) x, x + dt (...); 0.07 c^36 once more"),
    Work("sodium", 5, why="m m m h: 3; g_Na (V - E_Na): 1; onto the current: 1"),
    Work("potassium", 4, why="n^2, n^4: 2; g_K (V - E_K): 1; onto the current: 1"),
    Work("leak and bias", 1, why="g_leak V off a constant"),
    Work("synaptic current", 3, why="g s, V - E, onto the current"),
    Work("voltage", 2, why="the current, then the kick"),
    Work("s", 3, why="rise H; (1 - decay) s + rise H (1 - s)"),
    Work("history", 0, why="1 load and 1 store, on units of their own"),
    Work("spike test", 1, 1, why="V < 0 <= V' from the signs; moved to a mask"),
    Work("Philox", 0, 21, why="for 4 numbers: 10 rounds of 2 products, 2 shifts, 4 exclusive ors; 4 masks"),
    Work("logarithm", 7.5, 2.5, why="for 2 numbers: from word 2, exponent apart 6, polynomial 10, joined 2"),
    Work("root", 0.5, why="sqrt(-2 ln u), for 2 numbers"),
    Work("sine and cosine", 8, 2.5, why="for 2: angle 4, square 1, polynomials 10, products 3, sign 3"),
)


class Limit(NamedTuple):
    """The limit of one core here."""

    isa: str
    lanes: int
    clock_Hz: float
    cycles: float           # for a neuron-step in each lane
    per_s: float            # neuron-steps


def limit() -> Limit:
    """Of this processor, at the clock that it now runs at."""
    isa, lanes = vectors()
    cycles, clock_Hz = cycles_per_step(), measure_clock_Hz()
    return Limit(isa=isa, lanes=lanes, clock_Hz=clock_Hz, cycles=cycles, per_s=lanes * clock_Hz / cycles)


def cycles_per_step() -> float:
    """Cycles for one neuron-step in every lane: those of the busier kind of unit."""
    floats, integers = (sum(column) for column in ((w.floats for w in WORK), (w.integers for w in WORK)))
    return max(floats / FLOATS_A_CYCLE, integers / INTEGERS_A_CYCLE)


def vectors() -> tuple[str, int]:
    """The widest vectors here, and how many float64 they hold."""
    try:
        has = get_host_cpu_features()
    except RuntimeError:    # LLVM does not know the system
        has = {}
    return next(((isa, lanes) for isa, lanes in FLOAT64_LANES.items() if has.get(isa)), ("128 bit", 2))


def measure_clock_Hz() -> float:
    """By a chain of operations that take one cycle each and need one another; the best of some tries.

    Other work on the machine can only lengthen a try. A core that lowers its clock for wide vectors is given
    a limit a little too high.
    """
    words = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
    _chain(*words, 1)
    best_s = np.inf
    for _ in range(TRIES):
        start_s = time.perf_counter()
        _chain(*words, CHAIN)
        best_s = min(best_s, time.perf_counter() - start_s)
    return 8 * CHAIN / float(best_s)


@compiled
def _chain(a: np.uint64, b: np.uint64, links: int) -> np.uint64:
    """Eight operations in a row: sums and exclusive ors in turn cannot be joined by a compiler."""
    x = a
    for _ in range(links):
        x = ((((((((x + a) ^ b) + a) ^ b) + a) ^ b) + a) ^ b)
    return x
