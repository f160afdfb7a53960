"""The settings that are scanned: their ranges, and points that fill them evenly.

Both kinds of pairs; bias from far below the threshold to just above the fold of limit cycles at 6.264, where
the neuron alone is bistable; noise and strength over a decade and a half; synapses from faster than the
spike to slower than GABA_A. One neuron of the pair is like the other, as in the recipes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hhdelay.config.errors import need

DELAYS_MS = tuple(float(d) for d in range(2, 50, 2))    # 24: two or three maxima of EI, four to six of II
KINDS = ("EI", "II")
MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Range:
    """One setting, evenly filled from low to high, or by equal factors."""

    setting: str
    low: float
    high: float
    logarithmic: bool

    def at(self, part: float) -> float:
        """The value at a part of the way, 0 to 1, to four digits, as it will be written."""
        if self.logarithmic:
            return float(f"{self.low * (self.high / self.low) ** part:.4g}")
        return float(f"{self.low + (self.high - self.low) * part:.4g}")


SPACE = (
    Range("neuron.I_uA_cm2", -2.0, 7.0, False),
    Range("noise.D_uA2_ms_cm4", 0.5, 32.0, True),
    Range("motif.g_mS_cm2", 0.2, 6.0, True),
    Range("synapse.inh_rise_per_ms", 0.5, 8.0, True),
    Range("synapse.inh_decay_per_ms", 0.08, 2.0, True),
    Range("synapse.exc_rise_per_ms", 0.5, 8.0, True),
    Range("synapse.exc_decay_per_ms", 0.08, 2.0, True),
)
SETTINGS = ("motif.kind", *(one.setting for one in SPACE))
AXES = tuple(zip(SPACE, (2, 3, 5, 7, 11, 13, 17), strict=True))     # each with a prime of its own


def drawn(count: int) -> tuple[tuple[Any, ...], ...]:
    """`count` points of SETTINGS, EI and II by turns.

    The points of Halton 1960 (Numer. Math. 2, 84): they fill the space evenly, without chance, and a longer
    list begins with the shorter one.
    """
    need(1 <= count <= MOST, f"{count} settings are asked for", fix=f"ask for 1 to {MOST}")
    return tuple(
        (KINDS[k % 2], *(one.at(radical_inverse(k // 2 + 1, base)) for one, base in AXES))
        for k in range(count)
    )


def radical_inverse(k: int, base: int) -> float:
    """The digits of k in `base`, mirrored at the point: 1, 2, 3 in base 2 are 0.5, 0.25, 0.75."""
    part, place = 0.0, 1.0 / base
    while k:
        k, digit = divmod(k, base)
        part += digit * place
        place /= base
    return part
