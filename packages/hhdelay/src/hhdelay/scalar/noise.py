"""`hhdelay.noise` for one neuron at a time, compiled; the definition stands there."""

from __future__ import annotations

import numpy as np

from hhdelay.compiled import compiled
from hhdelay.gates import Array
from hhdelay.noise import COS, LN_2, LOG, MANTISSA_BITS, SIN, SQRT_6, SQRT_HALF_BITS, philox

LOW_31 = np.uint64(0x7FFFFFFF)
TOP = np.uint64(31)
HALF = np.uint64(16)
LOW_16 = np.uint64(0xFFFF)

philox_one = compiled(philox)  # the same source, for scalars


@compiled
def gaussian_pair_one(p: np.uint64, q: np.uint64) -> tuple[float, float]:
    """Two normal numbers of two words."""
    bits = np.float64(np.float64(p) + 0.5).view(np.int64)
    exponent = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
    t = np.int64(bits - (exponent << MANTISSA_BITS)).view(np.float64) - 1.0
    log = LOG[10]
    for k in range(9, -1, -1):
        log = log * t + LOG[k]
    radius = np.sqrt(-2.0 * ((exponent - 32) * LN_2 + t * log))
    v = (np.float64(q & LOW_31) + 0.5) * 2.0**-31 - 0.5
    square = v * v
    sine, cosine = SIN[5], COS[5]
    for k in range(4, -1, -1):
        sine, cosine = sine * square + SIN[k], cosine * square + COS[k]
    signed = -radius if q >> TOP else radius
    return signed * cosine, radius * v * sine


@compiled
def triangular_one(w: np.uint64) -> float:
    """A number of the triangular law, of one word."""
    return (np.float64((w >> HALF) + (w & LOW_16)) - 65535.0) * (SQRT_6 / 65536.0)


@compiled
def four_kicks(z_4: Array, counter: tuple[np.uint64, ...], seed: np.uint64, gaussian: bool) -> None:
    """Fill z_4 with the noise of four steps: counter is (step // 4, neuron, replica, cell)."""
    c0, c1, c2, c3 = counter
    w0, w1, w2, w3 = philox_one(c0, c1, c2, c3, seed & np.uint64(0xFFFFFFFF), seed >> np.uint64(32))
    if gaussian:
        z_4[0], z_4[1] = gaussian_pair_one(w0, w1)
        z_4[2], z_4[3] = gaussian_pair_one(w2, w3)
    else:
        z_4[0], z_4[1] = triangular_one(w0), triangular_one(w1)
        z_4[2], z_4[3] = triangular_one(w2), triangular_one(w3)
