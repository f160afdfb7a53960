"""Axes are what their text says, and nonsense is one line with its fix."""

from __future__ import annotations

import pytest

from hhdelay.config.errors import ConfigError
from hhdelay.config.load import load_recipe
from hhdelay.sweep.axes import Axis, default_axes, parse_axis

GOOD = {
    "motif.delay_ms=0:70:141": tuple(k / 2 for k in range(141)),
    "motif.delay_ms=0:1:11": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "motif.delay_ms=5:1:3": (5.0, 3.0, 1.0),
    "motif.delay_ms=5:5:1": (5.0,),
    "motif.delay_ms=1,2.5,5": (1.0, 2.5, 5.0),
    "motif.delay_ms = 3": (3.0,),
    "noise.D_uA2_ms_cm4=log:0.5:32:7": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    "motif.neurons=2:10:5": (2, 4, 6, 8, 10),
    "motif.neurons=2,4.0": (2, 4),
    "noise.law=gaussian,triangular": ("gaussian", "triangular"),
}
BAD = {
    "motif.delay_ms": "is no axis. Fix: write first:last:count",
    "motif.delay_ms=": "is no axis. Fix: ",
    "motif.dellay_ms=1,2": "unknown setting motif.dellay_ms .*did you mean motif.delay_ms",
    "motif.delay_ms=1:2": "is no range. Fix: write first:last:count",
    "motif.delay_ms=1:2:3:4": "is no range",
    "motif.delay_ms=a:2:3": "is no range",
    "motif.delay_ms=0:inf:3": "is no range",
    "motif.delay_ms=0:2:2.5": "is no range",
    "motif.delay_ms=0:2:0": "asks for 0 values. Fix: ask for 1 to",
    "motif.delay_ms=0:2:1": "asks for 1 values from 0 to 2. Fix: ",
    "motif.delay_ms=2:2:3": "asks for 3 values from 2 to 2. Fix: ",
    "motif.delay_ms=log:0:2:3": "not above 0. Fix: choose ends above 0",
    "motif.delay_ms=1,2,1": "holds a value twice. Fix: ",
    "motif.neurons=2:9:4": "holds 4.33333, and motif.neurons is a whole number. Fix: ",
    "noise.law=1:2:3": "is text, which has no range. Fix: ",
    "motif.link_to=0,1": "is a list, .* Fix: ",
    "simulation.replicas=1,2": "cannot be an axis. Fix: ",
    "synapse.set=fast,slow": "cannot be an axis.* Fix: ",
}


@pytest.mark.parametrize("text", GOOD)
def test_an_axis_is_what_it_says(text: str) -> None:
    axis = parse_axis(text)
    assert axis.values == GOOD[text]
    assert [type(one) for one in axis.values] == [type(one) for one in GOOD[text]]
    assert axis.name == text.partition("=")[0].strip().partition(".")[2]


@pytest.mark.parametrize("text", BAD)
def test_nonsense_is_one_line_with_the_fix(text: str) -> None:
    with pytest.raises(ConfigError, match=BAD[text]) as caught:
        parse_axis(text)
    assert "\n" not in str(caught.value) and "Fix: " in str(caught.value)


def test_several_settings_move_together() -> None:
    values = ((1, "gaussian"), [2.5, "triangular"])
    axis = Axis(name="setting", settings=("motif.g_mS_cm2", "noise.law"), values=values)
    assert not axis.numeric and len(axis) == 2
    assert axis.given(1) == {"motif.g_mS_cm2": 2.5, "noise.law": "triangular"}
    with pytest.raises(ConfigError, match="for 2 settings. Fix: "):
        Axis(name="setting", settings=("motif.g_mS_cm2", "noise.law"), values=(1, 2))
    with pytest.raises(ConfigError, match="is a variable of the result. Fix: "):
        Axis(name="phase", settings=("motif.g_mS_cm2",), values=(1,))


def test_by_default_it_is_delay_by_strength_or_noise() -> None:
    assert [len(axis) for axis in default_axes(load_recipe("ii"))] == [141, 16]
    (noise,) = default_axes(load_recipe("single"))
    assert noise.settings == ("noise.D_uA2_ms_cm4",) and noise.values[0] == 0.5 and noise.values[-1] == 96.0
