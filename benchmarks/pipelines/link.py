"""A slow link between ranks that are near each other: messages are late, and nobody's processor is busy.

Every rank has one link, which sends one message after the other, each as long as its bytes take; what a rank
sends to itself takes no time. A message can leave when its sender calls, and is there when its last byte has
left. Ranks tell each other when that is, by the one clock of their machine; telling it is not delayed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from fathom.parallel.group import Group, Handle, Line


class Link:
    """What a rank's groups send along. Change `bytes_per_s` while nothing is under way; inf = no delay."""

    def __init__(self, bytes_per_s: float = float("inf")) -> None:
        self.bytes_per_s = bytes_per_s
        self.waits_at_once = False  # nothing is hidden: a call returns when its messages are there
        self.bytes_sent = 0
        self._free = 0.0  # when the last message will have left

    def send(self, size: int) -> float:
        """So many bytes -> when the last one leaves."""
        self.bytes_sent += size
        self._free = max(self._free, time.monotonic()) + size / self.bytes_per_s
        return self._free


class SlowGroup:
    """A `Group` whose all-to-all goes along a link; the rest is not delayed."""

    def __init__(self, group: Group, link: Link) -> None:
        self._group, self._link = group, link
        self.rank, self.size = group.rank, group.size

    def all_to_all(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Handle[Tensor]:
        """As `Group`."""
        away = sum(sent) - sent[self.rank]
        leaves = self._link.send(away * prod(x.shape[1:]) * x.element_size())
        ones = [1] * self.size
        there = self._group.all_to_all(torch.full((self.size,), leaves, dtype=torch.float64), ones, ones)
        handle = _Late(self._group.all_to_all(x, sent, received), there, self._link)
        if self._link.waits_at_once:
            handle.wait()
        return handle

    def all_reduce(self, x: Tensor) -> Handle[Tensor]:
        """As `Group`."""
        return self._group.all_reduce(x)

    def all_gather(self, x: Tensor) -> list[Tensor]:
        """As `Group`."""
        return self._group.all_gather(x)

    def gather_objects(self, value: object) -> list[object]:
        """As `Group`."""
        return self._group.gather_objects(value)

    def send(self, x: Tensor, to: int, channel: int) -> Handle[None]:
        """As `Group`."""
        return self._group.send(x, to, channel)

    def receive(self, into: Tensor, source: int, channel: int) -> Handle[Tensor]:
        """As `Group`."""
        return self._group.receive(into, source, channel)

    def subgroup(self, ranks: Sequence[int]) -> SlowGroup | None:
        """As `Group`, on the same link."""
        part = self._group.subgroup(ranks)
        return None if part is None else SlowGroup(part, self._link)

    def open_channels(self, lines: Sequence[Line]) -> None:
        """As `Group`."""
        self._group.open_channels(lines)


class _Late:
    """A handle that has its result when the slowest sender's last byte has left."""

    def __init__(self, came: Handle[Tensor], there: Handle[Tensor], link: Link) -> None:
        self._came, self._there, self._link = came, there, link

    def wait(self) -> Tensor:
        """The result."""
        x = self._came.wait()
        time.sleep(max(float(self._there.wait().max()) - time.monotonic(), 0.0))
        return x
