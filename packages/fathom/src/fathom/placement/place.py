"""A placement for measured loads that is never worse than none."""

from __future__ import annotations

import numpy as np

from fathom.config.errors import need
from fathom.placement.eplb import eplb
from fathom.placement.layout import Layout, Loads, Placement


def place(loads_LE: Loads, layout: Layout) -> Placement:
    """EPLB's, but in layers where its fullest device has more to do than the experts in order would give it.

    EPLB packs greedily: where the experts happen to lie well already, that can be worse by a few percent.

    raises    ConfigError for a layout that does not suit, or loads that are no numbers of tokens
    """
    need(loads_LE.ndim == 2 and loads_LE.size > 0, f"loads {loads_LE.shape} are not layers x experts",
         fix="give one row of loads for each MoE layer")  # fmt: skip
    need(bool(np.isfinite(loads_LE).all() and (loads_LE >= 0).all()), "a load is negative or not a number",
         fix="give the tokens that each expert was sent")  # fmt: skip
    found = eplb(loads_LE, layout)
    if loads_LE.shape[1] % layout.devices:
        return found
    plain = in_order(loads_LE.shape, layout)
    worse = found.imbalance(loads_LE) > plain.imbalance(loads_LE)
    return Placement(np.where(worse[:, None], plain.expert_LR, found.expert_LR), found.experts, found.devices)


def in_order(shape: tuple[int, ...], layout: Layout) -> Placement:
    """Experts [L, E] on devices in their order. Further slots hold copies of what the device has already,
    which moves no token.

    raises    ConfigError where devices cannot all have as many experts
    """
    L, E = shape
    layout.suits(E)
    need(E % layout.devices == 0, f"{E} experts on {layout.devices} devices are not even",
         fix="give a number of devices that divides the experts")  # fmt: skip
    own = E // layout.devices
    held = np.arange(layout.slots // layout.devices) % own
    of_device = np.arange(layout.devices)[:, None] * own + held
    return Placement(np.tile(of_device.reshape(-1), (L, 1)), E, layout.devices)
