"""Constants of one neuron. Units: mV, ms, uA/cm2, mS/cm2, uF/cm2."""

from __future__ import annotations

from dataclasses import dataclass

from hhdelay.config.setting import check, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class Neuron:
    """The squid axon of Hodgkin and Huxley 1952 in today's sign convention, rest near -65 mV.

    E_leak_mV = -54.4 puts rest at -64.99972 mV; -54.387, which one also meets, puts it nearer to -65.
    """

    C_uF_cm2: float = setting(1.0, "membrane capacitance", above=0)
    g_Na_mS_cm2: float = setting(120.0, "largest sodium conductance", low=0)
    g_K_mS_cm2: float = setting(36.0, "largest potassium conductance", low=0)
    g_leak_mS_cm2: float = setting(0.3, "leak conductance", low=0)
    E_Na_mV: float = setting(50.0, "sodium reversal potential", low=-200, high=200)
    E_K_mV: float = setting(-77.0, "potassium reversal potential", low=-200, high=200)
    E_leak_mV: float = setting(-54.4, "leak reversal potential", low=-200, high=200)
    I_uA_cm2: float = setting(5.0, "bias current; 6.264 to 9.779 is bistable", low=-1000, high=1000)
    rate_factor: float = setting(1.0, "speed of all gates; 3 ** ((T - 6.3) / 10) for T degrees C", above=0)

    def __post_init__(self) -> None:
        check(self, "neuron")
