"""Rest, Jacobian and the compiled twin; the known values are in test_check.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hhdelay.config.errors import ConfigError
from hhdelay.config.neuron import Neuron
from hhdelay.membrane import derivative, halve, jacobian, rest
from hhdelay.scalar.neuron import membrane_of, slopes

OTHER = Neuron(C_uF_cm2=1.3, g_Na_mS_cm2=110.0, g_K_mS_cm2=30.0, g_leak_mS_cm2=0.25, E_Na_mV=55.0,
               E_K_mV=-72.0, E_leak_mV=-50.0, rate_factor=1.7)  # fmt: skip


@pytest.mark.parametrize("bias", [-5.0, 0.0, 5.0, 12.0, 100.0])
def test_nothing_moves_at_rest(bias: float) -> None:
    for neuron in (Neuron(), OTHER):
        assert np.abs(derivative(neuron, rest(neuron, bias), bias)).max() < 1e-11


def test_every_constant_counts_and_the_twins_agree() -> None:
    state = np.array([-31.0, 0.3, 0.4, 0.5])
    plain = derivative(OTHER, state, 3.0)
    np.testing.assert_allclose(slopes(membrane_of(OTHER), tuple(state), 3.0), plain, rtol=1e-13)
    for name in ("C_uF_cm2", "g_Na_mS_cm2", "g_K_mS_cm2", "g_leak_mS_cm2", "E_Na_mV", "E_K_mV", "E_leak_mV",
                 "rate_factor"):  # fmt: skip
        other = derivative(replace(OTHER, **{name: getattr(OTHER, name) + 0.5}), state, 3.0)
        assert not np.allclose(other, plain, rtol=1e-9), f"{name} changes nothing"


def test_the_jacobian_predicts_a_small_step() -> None:
    neuron, at = Neuron(), rest(Neuron(), 5.0)
    step = np.array([1e-3, 1e-5, -1e-5, 1e-5])
    change = derivative(neuron, at + step, 5.0) - derivative(neuron, at - step, 5.0)
    np.testing.assert_allclose(2 * jacobian(neuron, at, 5.0) @ step, change, atol=1e-9)


def test_a_neuron_without_rest_says_so() -> None:
    with pytest.raises(ConfigError, match="no rest at I_uA_cm2=900.*Fix: bring the bias nearer to 0"):
        rest(Neuron(g_Na_mS_cm2=0.0, g_K_mS_cm2=0.0), 900.0)


def test_halving_finds_a_root() -> None:
    assert halve(lambda x: x * x - 2.0, 0.0, 2.0) == pytest.approx(2**0.5, rel=1e-15)
