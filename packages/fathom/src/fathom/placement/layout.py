"""What a placement is: the expert that each slot of each device holds.

Axes:  L layers   E experts   R slots, device by device   Q devices
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fathom.config.errors import need

MOST_SLOTS = 1_000_000     # of a layer

Whole = NDArray[np.int64]
Loads = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Devices to put experts on.

    slots      experts that all devices hold together, copies counted
    groups     expert groups of the router; those of a node-limited one should not be torn apart
    raises     ConfigError where the numbers do not divide each other
    """

    slots: int
    devices: int
    nodes: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        for name in ("slots", "devices", "nodes", "groups"):
            need(getattr(self, name) >= 1, f"{name}={getattr(self, name)} is less than one",
                 fix=f"give {name} of 1 or more")  # fmt: skip
        need(self.slots <= MOST_SLOTS, f"{self.slots} slots are too many", fix=f"give {MOST_SLOTS} or fewer")
        need(self.slots % self.devices == 0, f"{self.slots} slots on {self.devices} devices are not even",
             fix=f"take a multiple of {self.devices} slots")  # fmt: skip
        need(self.devices % self.nodes == 0, f"{self.devices} devices on {self.nodes} nodes are not even",
             fix=f"take a multiple of {self.nodes} devices")  # fmt: skip

    def suits(self, experts: int) -> None:
        """Raise ConfigError unless so many experts fit in."""
        need(experts % self.groups == 0, f"{experts} experts in {self.groups} groups are not even",
             fix="give the number of groups that the router has")  # fmt: skip
        need(self.slots >= experts, f"{self.slots} slots cannot hold {experts} experts",
             fix=f"give {-(-experts // self.devices) * self.devices} slots or more")  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """Experts in slots; the devices' slots lie one after the other.

    expert_LR      the expert in each slot
    experts, devices
    """

    expert_LR: Whole
    experts: int
    devices: int

    @cached_property
    def copies_LE(self) -> Whole:
        """How often each expert is there."""
        counts = np.zeros((len(self.expert_LR), self.experts), dtype=np.int64)
        np.add.at(counts, (np.arange(len(counts))[:, None], self.expert_LR), 1)
        return counts

    @cached_property
    def slots_LEK(self) -> Whole:
        """The slots of each expert, [L, E, most copies], filled up with -1."""
        order = np.argsort(self.expert_LR, axis=1, kind="stable")
        first = np.cumsum(self.copies_LE, axis=1) - self.copies_LE
        K = np.arange(self.copies_LE.max())
        at = np.minimum(first[..., None] + K, order.shape[1] - 1)
        slots = np.take_along_axis(order, at.reshape(len(order), -1), axis=1).reshape(at.shape)
        return np.where(self.copies_LE[..., None] > K, slots, -1)

    def device_loads(self, loads_LE: Loads) -> Loads:
        """Tokens that each device is given, [L, Q], where the copies of an expert share its tokens evenly."""
        share = loads_LE / self.copies_LE
        of_slot = np.take_along_axis(share, self.expert_LR, axis=1)
        return np.asarray(of_slot.reshape(len(of_slot), self.devices, -1).sum(axis=2))

    def imbalance(self, loads_LE: Loads) -> Loads:
        """The fullest device's load over the mean, [L]; 1 is even. A layer without tokens counts as even."""
        loads = self.device_loads(loads_LE)
        mean = loads.mean(axis=1)
        return np.where(mean > 0, loads.max(axis=1) / np.where(mean > 0, mean, 1.0), 1.0)
