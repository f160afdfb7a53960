"""White current noise, sqrt(2 D) xi(t) with <xi(t) xi(t')> = delta(t - t'), independent in every neuron."""

from __future__ import annotations

from dataclasses import dataclass

from hhdelay.config.setting import check, setting

LAWS = ("gaussian", "triangular")


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Strength and law of the noise.

    gaussian     increments are normal, the Brownian path itself
    triangular   sum of two uniforms: same mean, variance and third moment, which is all that the
                 Euler-Maruyama scheme of weak order 1 asks for (Kloeden and Platen 1992, section 14.1)
    """

    D_uA2_ms_cm4: float = setting(1.0, "intensity D", low=0)
    law: str = setting("gaussian", "law of the increments", choices=LAWS)
    off_after_ms: float = setting(0.0, "time at which the noise stops for good; 0: never", low=0)

    def __post_init__(self) -> None:
        check(self, "noise")
