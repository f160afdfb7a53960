"""The equations of a chemical synapse; constants in `hhdelay.config.synapse`.

    current into neuron i    sum over links of g s_pre(t - delay) (V_i - E)       (outward)
    kinetic                  ds/dt = rise H(V_pre) (1 - s) - decay s
    threshold                s = H(V_pre)

s depends on the presynaptic voltage alone, so delaying s is exactly delaying that voltage.
"""

from __future__ import annotations

import numpy as np

from hhdelay.gates import Array


def release(V_mV: Array, V_half_mV: float, K_mV: float) -> Array:
    """H(V) = 1 / (1 + exp(-(V - V_half) / K)), the share of transmitter that is released."""
    return 1.0 / (1.0 + np.exp(-(V_mV - V_half_mV) / K_mV))


def s_per_ms(s: Array, H: Array, rise_per_ms: Array, decay_per_ms: Array) -> Array:
    """ds/dt of the kinetic synapse."""
    return rise_per_ms * H * (1.0 - s) - decay_per_ms * s
