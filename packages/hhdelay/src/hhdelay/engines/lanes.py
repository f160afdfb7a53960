"""The equations of `engines.protocol` for LANES cells side by side, in loops that LLVM makes vectors of.

A block of LANES cells lives in `b`, one flat float64 buffer of rows of LANES numbers, NEURON_ROWS rows for
each neuron, and in `x`, SCRATCH rows on the stack that every neuron uses in turn. Every loop runs over one
row's lanes, takes its operands at constant distances and has no branch: such loops become vector
instructions of whatever width the processor has (Numba compiles for the machine it runs on).

Two things decide the speed. A core holds so many operations under way (registers: about 130 on Zen 3), so
a loop's turn takes its operations times its longest chain over that number: loops are cut where the product
falls. And stores must be known to miss what is still to be read: `x` lies where no array can, the rows of
`b` at fixed distances from o; otherwise LLVM compares addresses before each loop.

Each function is inlined into `engines.simd`; multiply and add may fuse. Offsets are unsigned: a signed index
would be tested for below 0.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

import numpy as np

from hhdelay.compiled import inlined
from hhdelay.gates import NEAR_ZERO, Array
from hhdelay.noise import (
    COS,
    LN_2,
    LOG,
    MANTISSA_BITS,
    PHILOX_M0,
    PHILOX_M1,
    PHILOX_W0,
    PHILOX_W1,
    SIN,
    SQRT_6,
    Words,
)

U = np.uint64
Offset = np.uint64 | int     # unsigned in compiled code, where range() gives what it was given
LANES = U(32)
ZERO, ONE, TWO, THREE = U(0), U(1), U(2), U(3)

# Scratch rows.
POWER_9, POWER_36, POWER_40, POWER_72, RELEASE, A_M, A_N, B_H = (U(k) * LANES for k in range(8))
LEFT, RIGHT, INFLOW, KICK, SIGNAL, BIAS, KICK_SIZE = (U(k) * LANES for k in range(8, 15))
WORD_0, WORD_1, WORD_2, WORD_3 = POWER_9, POWER_36, POWER_40, POWER_72
SCRATCH = U(15) * LANES
# Rows of a neuron: its state, its V of a step before, and its noise of the four steps under way.
V, M, H, N, S, BEFORE, Z = (U(k) * LANES for k in range(7))
NEURON_ROWS = U(10) * LANES

# (exp(y) - 1) / y on -1/4 .. 1/4 through the Chebyshev points, lowest power first; see test_lanes.py.
EXPM1 = (1.0, 0.499999999999852, 0.16666666666665322, 0.04166666669823601, 0.008333333336202819,
         0.0013888870706692627, 0.00019841253314374944, 2.484036731676369e-05, 2.7592569930959876e-06)
WIDEST = 0.25
E_5_HALVES, E_1, E_3 = exp(2.5), exp(1.0), exp(3.0)

LOW_WORD, HALF_WORD = U(0xFFFFFFFF), U(32)
LOW_31, TOP, SIGN = U(0x7FFFFFFF), U(31), U(63)
HALF, LOW_16 = U(16), U(0xFFFF)
TWO_52, TWO_52_BITS = 2.0**52, U(0x4330000000000000)   # or-ed with a whole number n < 2**52: 2**52 + n
HALF_SQRT_HALF_BITS = U(0x3FD6A09E667F3BCD)            # of sqrt(1/2) / 2: keeps the exponent's shift unsigned
MANTISSA = U(MANTISSA_BITS)


class Numbers(NamedTuple):
    """Constants of a batch as the loops take them."""

    g_Na: float
    g_K: float
    g_leak: float
    E_Na: float
    E_K: float
    E_leak: float
    dt_over_C: float
    dt_gates: float         # dt times rate_factor
    V_half: float
    per_256_K: float        # 1 / (256 K)
    shift: float            # exp((V_half + 65) / 5), for K = 5 mV


@inlined
def bits(x: float) -> np.uint64:
    """The bits of a float64."""
    return np.float64(x).view(np.uint64)


@inlined
def number(w: np.uint64) -> float:
    """A whole number below 2**52, held in uint64, as a float64, by its bits: AVX2 has no conversion."""
    return U(w | TWO_52_BITS).view(np.float64) - TWO_52


@inlined
def small_expm1(y: float) -> float:
    """exp(y) - 1 for |y| <= WIDEST; beyond, ever less exact. Estrin's form, a short chain of operations."""
    y2 = y * y
    y4 = y2 * y2
    low = (EXPM1[0] + EXPM1[1] * y) + (EXPM1[2] + EXPM1[3] * y) * y2
    high = (EXPM1[4] + EXPM1[5] * y) + (EXPM1[6] + EXPM1[7] * y) * y2 + EXPM1[8] * y4
    return y * (low + high * y4)


@inlined
def four_words(x: Array, call: Offset, neuron: Offset, keys: tuple[Words, Words, Words]) -> None:
    """Philox4x32-10 of (call, neuron, replica, cell) into WORD_0 to WORD_3; keys: seed, cell, replica."""
    seed, cell, replica = keys
    for lane in range(LANES):
        c0, c1, c2, c3 = call, neuron, replica[lane], cell[lane]
        k0, k1 = seed[lane], seed[lane] >> HALF_WORD
        for _ in range(10):     # upper halves hold rubbish, which no product and no result takes in
            p0, p1 = PHILOX_M0 * (c0 & LOW_WORD), PHILOX_M1 * (c2 & LOW_WORD)
            c0, c1 = (p1 >> HALF_WORD) ^ c1 ^ k0, p1
            c2, c3 = (p0 >> HALF_WORD) ^ c3 ^ k1, p0
            k0, k1 = k0 + PHILOX_W0, k1 + PHILOX_W1
        x[WORD_0 + lane] = U(c0 & LOW_WORD).view(np.float64)
        x[WORD_1 + lane] = U(c1 & LOW_WORD).view(np.float64)
        x[WORD_2 + lane] = U(c2 & LOW_WORD).view(np.float64)
        x[WORD_3 + lane] = U(c3 & LOW_WORD).view(np.float64)


@inlined
def two_normals(x: Array, first_word: Offset, b: Array, at: Offset) -> None:
    """Two rows of normal numbers at `at`, of the two rows of words at first_word: as `hhdelay.noise`."""
    for lane in range(LANES):
        raw = bits(number(bits(x[first_word + lane])) + 0.5)
        exponent = U(raw - HALF_SQRT_HALF_BITS) >> MANTISSA       # plus 1
        t = U(raw - ((exponent - ONE) << MANTISSA)).view(np.float64) - 1.0
        t2 = t * t
        t4 = t2 * t2
        low = (LOG[0] + LOG[1] * t) + (LOG[2] + LOG[3] * t) * t2
        middle = (LOG[4] + LOG[5] * t) + (LOG[6] + LOG[7] * t) * t2
        log = low + middle * t4 + ((LOG[8] + LOG[9] * t) + LOG[10] * t2) * (t4 * t4)
        b[at + lane] = -2.0 * ((number(exponent) - 33.0) * LN_2 + t * log)
    for lane in range(LANES):
        radius, w = np.sqrt(b[at + lane]), bits(x[first_word + LANES + lane])
        v = (number(w & LOW_31) + 0.5) * 2.0**-31 - 0.5
        u = v * v
        u2 = u * u
        sine = (SIN[0] + SIN[1] * u) + (SIN[2] + SIN[3] * u) * u2 + (SIN[4] + SIN[5] * u) * (u2 * u2)
        cosine = (COS[0] + COS[1] * u) + (COS[2] + COS[3] * u) * u2 + (COS[4] + COS[5] * u) * (u2 * u2)
        signed = U(bits(radius) | ((w >> TOP) << SIGN)).view(np.float64)
        b[at + lane] = signed * cosine
        b[at + LANES + lane] = radius * v * sine


@inlined
def two_triangular(x: Array, first_word: Offset, b: Array, at: Offset) -> None:
    """Two rows of the triangular law at `at`, of the two rows of words at first_word."""
    for lane in range(LANES + LANES):
        w = bits(x[first_word + lane])
        b[at + lane] = (number((w >> HALF) + (w & LOW_16)) - 65535.0) * (SQRT_6 / 65536.0)


@inlined
def powers(x: Array, b: Array, o: Offset, k: Numbers) -> None:
    """All exponentials of the rates as powers of one, c = exp(-(V + 65) / 720), and RELEASE for K = 5 mV.

    Powers are taken of p = c - 1, which is small: c itself would lose in 72 factors what it was rounded by.
    """
    for lane in range(LANES):
        x[POWER_9 + lane] = small_expm1((b[o + V + lane] + 65.0) * (-1.0 / 720.0))
    for lane in range(LANES):
        p = x[POWER_9 + lane]
        p2 = p * p + (p + p)                # (1 + p) squared, less 1
        p4 = p2 * p2 + (p2 + p2)
        p8 = p4 * p4 + (p4 + p4)
        p9 = p8 * p + (p8 + p)
        p18 = p9 * p9 + (p9 + p9)
        c36 = 1.0 + (p18 * p18 + (p18 + p18))
        c72 = c36 * c36
        x[POWER_9 + lane] = 1.0 + p9        # exp(-(V + 65) / 80)
        x[POWER_36 + lane] = c36            # exp(-(V + 65) / 20)
        x[POWER_40 + lane] = c36 + c36 * p4     # exp(-(V + 65) / 18)
        x[POWER_72 + lane] = c72            # exp(-(V + 65) / 10)
        x[RELEASE + lane] = k.shift * (c72 * c72)


@inlined
def release_of_any(x: Array, b: Array, o: Offset, k: Numbers) -> None:
    """exp(-(V - V_half) / K), kept between exp(-64) and exp(64): the 256th power of a small one."""
    for lane in range(LANES):
        y = (k.V_half - b[o + V + lane]) * k.per_256_K
        e = 1.0 + small_expm1(min(max(y, -WIDEST), WIDEST))
        e = (e * e) * (e * e)
        e = (e * e) * (e * e)
        e = (e * e) * (e * e)
        x[RELEASE + lane] = (e * e) * (e * e)


@inlined
def quotients(x: Array, b: Array, o: Offset) -> None:
    """a_m, a_n, b_h and the release 1 / (1 + RELEASE) with one division; of_5_mV: K = 5 mV, a power too.

    Near 0 x / (1 - exp(-x)) is 1 / (1 - x/2 + x^2/6).
    """
    for lane in range(LANES):
        v, c = b[o + V + lane], x[POWER_72 + lane]
        x_m, x_n = 0.1 * (v + 40.0), 0.1 * (v + 55.0)
        m_series = 1.0 - x_m * (0.5 - x_m * (1.0 / 6.0))
        n_series = 1.0 - x_n * (0.5 - x_n * (1.0 / 6.0))
        m_below = m_series if abs(x_m) < NEAR_ZERO else 1.0 - E_5_HALVES * c
        n_below = n_series if abs(x_n) < NEAR_ZERO else 1.0 - E_1 * c
        m_above = 1.0 if abs(x_m) < NEAR_ZERO else x_m
        n_above = 1.0 if abs(x_n) < NEAR_ZERO else x_n
        release = x[RELEASE + lane]
        h_below, s_below = 1.0 + E_3 * c, 1.0 + release
        x[LEFT + lane] = m_below * n_below
        x[RIGHT + lane] = h_below * s_below
        x[A_M + lane] = m_above * n_below
        x[A_N + lane] = (0.1 * n_above) * m_below
        x[B_H + lane] = s_below
        x[RELEASE + lane] = h_below
    for lane in range(LANES):
        left, right = x[LEFT + lane], x[RIGHT + lane]
        one = 1.0 / (left * right)
        for_left, for_right = one * right, one * left
        x[A_M + lane] *= for_left
        x[A_N + lane] *= for_left
        x[B_H + lane] *= for_right
        x[RELEASE + lane] *= for_right


@inlined
def voltage(x: Array, b: Array, o: Offset, k: Numbers) -> bool:
    """One step of V under the current of row `inflow` and the noise of row z; the old V stays in BEFORE.

    -> whether some lane came from below 0 to above
    """
    risen = ZERO
    for lane in range(LANES):
        v, m, n = b[o + V + lane], b[o + M + lane], b[o + N + lane]
        n2 = n * n
        sodium = k.g_Na * (m * m) * (m * b[o + H + lane]) * (v - k.E_Na)
        outward = sodium + k.g_K * (n2 * n2) * (v - k.E_K) + k.g_leak * (v - k.E_leak)
        after = v + k.dt_over_C * (x[INFLOW + lane] - outward) + x[KICK + lane]
        b[o + BEFORE + lane] = v
        b[o + V + lane] = after
        risen |= bits(v) & ~bits(after)     # the sign bit
    return bool((risen >> SIGN) != ZERO)


@inlined
def gates(x: Array, b: Array, o: Offset, k: Numbers) -> None:
    """One step of m, h and n."""
    for lane in range(LANES):
        m, a_m = b[o + M + lane], x[A_M + lane]
        h, a_h = b[o + H + lane], 0.07 * x[POWER_36 + lane]
        n, a_n = b[o + N + lane], x[A_N + lane]
        b[o + M + lane] = m + k.dt_gates * (a_m - (a_m + 4.0 * x[POWER_40 + lane]) * m)
        b[o + H + lane] = h + k.dt_gates * (a_h - (a_h + x[B_H + lane]) * h)
        b[o + N + lane] = n + k.dt_gates * (a_n - (a_n + 0.125 * x[POWER_9 + lane]) * n)


@inlined
def kinetic(x: Array, b: Array, o: Offset, rise_dt: float, decay_dt: float) -> None:
    """One step of s."""
    for lane in range(LANES):
        s, open_ = b[o + S + lane], rise_dt * x[RELEASE + lane]
        b[o + S + lane] = s + (open_ - (open_ + decay_dt) * s)


@inlined
def threshold(x: Array, b: Array, o: Offset) -> None:
    """s = H(V), of RELEASE = exp(-(V - V_half) / K)."""
    for lane in range(LANES):
        b[o + S + lane] = 1.0 / (1.0 + x[RELEASE + lane])
