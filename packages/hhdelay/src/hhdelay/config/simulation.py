"""How long, how finely, from where, and how often a network is run."""

from __future__ import annotations

from dataclasses import dataclass

from hhdelay.config.setting import check, setting

LONGEST_STEPS = 2**31  # of one run; the noise counts steps in 34 bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """Time step, durations and the start.

    Time runs from 0; [0, warmup_ms) is thrown away, [warmup_ms, warmup_ms + duration_ms) is measured.
    Between 6.264 and 9.779 uA/cm2 the single neuron is bistable, so the start decides: by default every
    neuron begins at the rest that belongs to its bias; start_V_mV gives voltages (one for all, or one
    each), with the gates at their steady state there. s is 0 at t <= 0.
    """

    dt_ms: float = setting(0.01, "time step of Euler-Maruyama", above=0, high=10)
    duration_ms: float = setting(20_000.0, "measured time", above=0)
    warmup_ms: float = setting(500.0, "time before the measurement", low=0)
    start_V_mV: tuple[float, ...] = setting((), "voltages at t = 0; empty: rest", low=-200, high=200)
    seed: int = setting(1, "of the noise", low=0)
    replicas: int = setting(4, "runs that differ only in their noise", low=1, high=1_000_000)

    def __post_init__(self) -> None:
        check(self, "simulation")

    @property
    def warmup_steps(self) -> int:
        """Whole steps of the warm-up."""
        return round(self.warmup_ms / self.dt_ms)

    @property
    def duration_steps(self) -> int:
        """Whole steps of the measured time, at least one."""
        return max(1, round(self.duration_ms / self.dt_ms))
