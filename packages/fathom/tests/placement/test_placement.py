"""Experts on devices: the published example, what must always hold, and how much better it gets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.errors import ConfigError
from fathom.placement import Layout, Placement, eplb, in_order, place
from fathom.placement.layout import Loads

# of the README of github.com/deepseek-ai/EPLB
LOADS = np.array([[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
                  [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]], dtype=np.float64)  # fmt: skip
FOUND = [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
         [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]]  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> tuple[Loads, Layout]:
    nodes, per_node, own = (draw(st.sampled_from(k)) for k in ([1, 2, 3], [1, 2, 4], [1, 2, 3]))
    devices = nodes * per_node
    experts = devices * own
    groups = draw(st.sampled_from([g for g in range(1, experts + 1) if experts % g == 0]))
    layers, extra = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    load = st.integers(0, 1000) | st.just(0) | st.floats(0, 1e6)
    layer = st.lists(load, min_size=experts, max_size=experts)
    loads = draw(st.lists(layer, min_size=layers, max_size=layers))
    layout = Layout(slots=devices * (own + extra), devices=devices, nodes=nodes, groups=groups)
    return np.array(loads, dtype=np.float64), layout


def test_the_published_example() -> None:
    layout = Layout(slots=16, devices=8, nodes=2, groups=4)
    assert eplb(LOADS, layout).expert_LR.tolist() == FOUND
    assert place(LOADS, layout).expert_LR.tolist() == FOUND


@settings(max_examples=150, deadline=None)
@given(cases())
def test_always_sound_and_never_worse_than_no_copies(case: tuple[Loads, Layout]) -> None:
    loads, layout = case
    for found in (eplb(loads, layout), place(loads, layout), in_order(loads.shape, layout)):
        check(found, layout)
        np.testing.assert_allclose(found.device_loads(loads).sum(axis=1), loads.sum(axis=1), rtol=1e-12)
    plain = Layout(slots=loads.shape[1], devices=layout.devices)
    before = in_order(loads.shape, plain).device_loads(loads).max(axis=1)
    after = place(loads, layout).device_loads(loads).max(axis=1)
    assert (after <= before * (1 + 1e-12)).all()


def check(found: Placement, layout: Layout) -> None:
    """Every slot is filled, every expert there, and both tables say the same."""
    L, E = found.copies_LE.shape
    assert found.expert_LR.shape == (L, layout.slots)
    assert found.copies_LE.min() >= 1 and (found.copies_LE.sum(axis=1) == layout.slots).all()
    for layer, expert in np.ndindex(L, E):
        slots = found.slots_LEK[layer, expert]
        slots = slots[slots >= 0]
        assert sorted(slots) == np.flatnonzero(found.expert_LR[layer] == expert).tolist()


@settings(max_examples=100, deadline=None)
@given(cases())
def test_groups_stay_on_one_node_where_they_divide(case: tuple[Loads, Layout]) -> None:
    loads, layout = case
    if layout.groups % layout.nodes:
        return
    found = eplb(loads, layout)
    group = found.expert_LR // (found.experts // layout.groups)
    by_node = group.reshape(len(group), layout.nodes, -1)
    for layer in by_node:
        homes = [set(node.tolist()) for node in layer]
        assert sum(map(len, homes)) == len(set().union(*homes)) == layout.groups


def test_greed_alone_can_be_worse_than_the_experts_in_order() -> None:
    """Why `place` looks: 3 + 3 and 2 + 2 + 2 lie evenly as they come, and greed parts the threes."""
    loads = np.array([[3.0, 3.0, 0.0, 2.0, 2.0, 2.0]])
    layout = Layout(slots=6, devices=2)
    assert eplb(loads, layout).device_loads(loads).max() == 7.0
    assert place(loads, layout).device_loads(loads).tolist() == [[6.0, 6.0]]


def test_v3s_decoding_units_become_nearly_even() -> None:
    """58 layers of 256 experts whose loads spread by half: 32 copies on 32 or on 144 devices."""
    loads = np.random.default_rng(0).lognormal(sigma=0.5, size=(58, 256)) * 1000
    alone = in_order(loads.shape, Layout(slots=256, devices=32)).imbalance(loads).mean()
    layout = Layout(slots=288, devices=32, nodes=4, groups=8)
    hierarchical, flat = (place(loads, one).imbalance(loads).mean()
                          for one in (layout, Layout(slots=288, devices=144)))  # fmt: skip
    assert alone > 1.25 and hierarchical < 1.05 and flat < 1.3


@pytest.mark.parametrize(("given_", "message"), [
    ({"slots": 15, "devices": 8}, "15 slots on 8 devices are not even. Fix: take a multiple of 8 slots"),
    ({"slots": 16, "devices": 8, "nodes": 3}, "8 devices on 3 nodes are not even"),
    ({"slots": 8, "devices": 8}, "8 slots cannot hold 12 experts. Fix: give 16 slots or more"),
    ({"slots": 16, "devices": 8, "groups": 5}, "12 experts in 5 groups are not even"),
    ({"slots": 10**11, "devices": 10}, "100000000000 slots are too many. Fix: give 1000000 or fewer"),
    ({"slots": 0, "devices": 8}, "slots=0 is less than one"),
])  # fmt: skip
def test_impossible_layouts_say_what_would_do(given_: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        place(LOADS, Layout(**given_))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_loads_are_numbers_of_tokens(bad: float) -> None:
    loads = LOADS.copy()
    loads[1, 2] = bad
    with pytest.raises(ConfigError, match="a load is negative or not a number"):
        place(loads, Layout(slots=16, devices=8))
