"""Constants of the synapses, and the three sets that ship. Units: mV, 1/ms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hhdelay.config.setting import check, setting

FORMS = ("kinetic", "threshold")
SYNAPSES: dict[str, dict[str, Any]] = {
    # A choice of ours: fast rise and decay for both kinds, so that the delay is the only slow thing.
    "fast": {},
    # AMPA and GABA_A at 1 mM of transmitter: Destexhe, Mainen and Sejnowski 1994, Neural Comput. 6, 14.
    "slow": {
        "exc_rise_per_ms": 1.1, "exc_decay_per_ms": 0.19, "inh_rise_per_ms": 5.0, "inh_decay_per_ms": 0.18,
    },
    # Fast threshold modulation: Somers and Kopell 1993, Biol. Cybern. 68, 393.
    "ftm": {"form": "threshold"},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Synapse:
    """Chemical synapses: current g s(t - delay) (V - E), s driven by H(V) = 1 / (1 + exp(-(V - V_half) / K)).

    kinetic     ds/dt = rise H(V) (1 - s) - decay s
    threshold   s = H(V) at once; rise and decay are not used
    """

    form: str = setting("kinetic", "how s follows the presynaptic voltage", choices=FORMS)
    exc_rise_per_ms: float = setting(2.0, "opening rate of excitatory synapses", low=0)
    exc_decay_per_ms: float = setting(1.0, "closing rate of excitatory synapses", low=0)
    inh_rise_per_ms: float = setting(2.0, "opening rate of inhibitory synapses", low=0)
    inh_decay_per_ms: float = setting(1.0, "closing rate of inhibitory synapses", low=0)
    exc_E_mV: float = setting(0.0, "reversal potential of excitatory synapses", low=-200, high=200)
    inh_E_mV: float = setting(-80.0, "reversal potential of inhibitory synapses", low=-200, high=200)
    V_half_mV: float = setting(2.0, "presynaptic voltage of half release", low=-200, high=200)
    K_mV: float = setting(5.0, "width of the release sigmoid", above=0)

    def __post_init__(self) -> None:
        check(self, "synapse")
