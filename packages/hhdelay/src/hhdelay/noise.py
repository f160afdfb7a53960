"""Noise that is looked up, not drawn: each number is a function of (seed, cell, replica, neuron, step).

So results do not depend on the order, the tiling or the number of workers. The definition, which every
engine repeats:

1  Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC'11, doi 10.1145/2063384.2063405) with the counter
   (step // 4, neuron, replica, cell) and the key (seed mod 2**32, seed // 2**32) gives words w0 w1 w2 w3.
2  triangular: step 4 b + k takes w_k. Its halves are two uniforms,
   z = sqrt(6) 2**-16 ((w >> 16) + (w & 65535) + 1 - 65536), |z| < 2.45.
3  gaussian: steps 4 b and 4 b + 1 take the pair (w0, w1), steps 4 b + 2 and 4 b + 3 the pair (w2, w3), by
   Box and Muller 1958. Of a pair (p, q):
     x = p + 0.5, ln u = ln(x / 2**32):  split x = f 2**e with sqrt(1/2) <= f < sqrt(2) by its bits,
       t = f - 1,  ln u = (e - 32) ln 2 + t LOG(t),  radius = sqrt(-2 ln u) <= 6.77
     v = ((q & 0x7fffffff) + 0.5) 2**-31 - 0.5,  sign = -1 where the top bit of q is set, else 1
       first = radius sign COS(v^2),  second = radius v SIN(v^2)
   LOG, SIN and COS are the polynomials below, in Horner's form: no libm is asked, so engines differ by the
   rounding of fused multiply-adds only. They are 1e-9 from the functions they stand for.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hhdelay.gates import Array

Words = NDArray[np.uint64]
W = TypeVar("W", Words, np.uint64)

WORD = np.uint64(0xFFFFFFFF)
HALF_WORD = np.uint64(32)
PHILOX_M0 = np.uint64(0xD2511F53)   # multipliers and Weyl increments of Philox4x32, table 2 of the paper
PHILOX_M1 = np.uint64(0xCD9E8D57)
PHILOX_W0 = np.uint64(0x9E3779B9)
PHILOX_W1 = np.uint64(0xBB67AE85)
ROUNDS = 10
STEPS_A_CALL = 4

SQRT_HALF_BITS = 0x3FE6A09E667F3BCD  # of the float64 nearest to sqrt(1/2)
MANTISSA_BITS = 52
LN_2 = 0.6931471805599453
SQRT_6 = 2.449489742783178           # a sum of two uniforms on (0, 1) has variance 1/6

# Polynomials through the Chebyshev points of the interval, lowest power first; see test_noise.py.
LOG = (1.0000000006010195, -0.49999999414016244, 0.33333302661019404, -0.25000062374568427,
       0.20002535640051844, -0.16666555569931482, 0.142122912494728, -0.12420821356624033,
       0.11945878323684742, -0.11620647886033192, 0.06572326323525465)     # ln(1 + t) / t
SIN = (3.141592653536129, -5.1677127645927206, 2.550163317932369, -0.5992521864819006,
       0.08205035003144684, -0.007028303652380903)                          # sin(pi v) / v, of v^2
COS = (0.9999999997791529, -4.934802136928833, 4.058709154760502, -1.335211949366169,
       0.23493706849740192, -0.0243959319559508)                            # cos(pi v), of v^2


class Keys(NamedTuple):
    """What tells one cell's noise from another's; each uint64 [cells], cell and replica below 2**32."""

    seed: Words
    cell: Words
    replica: Words


def philox(c0: W, c1: W, c2: W, c3: W, k0: W, k1: W) -> tuple[W, W, W, W]:
    """Four random 32-bit words, held in uint64, of a counter and a key of such words."""
    for _ in range(ROUNDS):
        p0, p1 = PHILOX_M0 * c0, PHILOX_M1 * c2
        c0, c1 = (p1 >> HALF_WORD) ^ c1 ^ k0, p1 & WORD
        c2, c3 = (p0 >> HALF_WORD) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + PHILOX_W0) & WORD, (k1 + PHILOX_W1) & WORD
    return c0, c1, c2, c3


def gaussian_pair(p: Words, q: Words) -> tuple[Array, Array]:
    """Two independent normal numbers, mean 0 and variance 1, of two words."""
    x = p.astype(np.float64) + 0.5
    bits = x.view(np.int64)
    exponent = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
    t = (bits - (exponent << MANTISSA_BITS)).view(np.float64) - 1.0
    radius = np.sqrt(-2.0 * ((exponent - 32) * LN_2 + t * _polynomial(LOG, t)))
    v = ((q & np.uint64(0x7FFFFFFF)).astype(np.float64) + 0.5) * 2.0**-31 - 0.5
    sign = np.where(q >> np.uint64(31), -1.0, 1.0)
    return radius * sign * _polynomial(COS, v * v), radius * v * _polynomial(SIN, v * v)


def triangular(w: Words) -> Array:
    """A number of mean 0, variance 1 and third moment 0, of one word: the sum of its halves as uniforms."""
    twice = (w >> np.uint64(16)) + (w & np.uint64(0xFFFF))
    return (twice.astype(np.float64) - 65535.0) * (SQRT_6 / 65536.0)


def normals(keys: Keys, neurons: int, first_step: int, steps: int, law: str = "gaussian") -> Array:
    """The noise of `steps` steps from `first_step` on. -> [steps, cells, neurons], mean 0, variance 1."""
    first, last = first_step // STEPS_A_CALL, (first_step + steps - 1) // STEPS_A_CALL
    block = np.arange(first, last + 1, dtype=np.uint64)[:, None, None]
    neuron = np.arange(neurons, dtype=np.uint64)[None, None, :]
    cell, replica, seed = (a.astype(np.uint64)[None, :, None] for a in (keys.cell, keys.replica, keys.seed))
    w = philox(block, neuron, replica, cell, seed & WORD, seed >> HALF_WORD)
    if law == "gaussian":
        z = np.stack([*gaussian_pair(w[0], w[1]), *gaussian_pair(w[2], w[3])], axis=1)
    else:
        z = np.stack([triangular(one) for one in w], axis=1)
    flat: Array = z.reshape(-1, *z.shape[2:])
    start = first_step - first * STEPS_A_CALL
    return flat[start : start + steps]


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value
