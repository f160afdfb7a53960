"""A pipeline schedule as data: what every rank does, in which order.

Stages 0, 1, ... are consecutive parts of the network. A micro-batch passes all of them along its route: a
list of ranks, one for each stage. Most schedules have one route, 0 to P-1; DualPipe has a second one the
other way, DualPipeV one that goes down and comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Op(NamedTuple):
    """One piece of work of one micro-batch in one stage."""

    kind: str  # "F" forward, "B" whole backward; or "I" backward for inputs, and "W" for weights, later
    stage: int
    micro: int


Item = tuple[Op, ...]  # one op, or a forward and a whole backward ("F", "B") that overlap


@dataclass(frozen=True)
class Schedule:
    """A table."""

    name: str
    ranks: int
    micros: int
    routes: tuple[tuple[int, ...], ...]  # of each route, the rank of every stage
    route_of: tuple[int, ...]  # the route of each micro-batch
    orders: tuple[tuple[Item, ...], ...]  # of each rank

    @property
    def stages(self) -> int:
        """Parts the network is cut into."""
        return len(self.routes[0])

    def rank_of(self, op: Op) -> int:
        """Where an op runs."""
        return self.routes[self.route_of[op.micro]][op.stage]

    def stages_of(self, rank: int) -> tuple[int, ...]:
        """The stages whose weights a rank holds, ascending."""
        return tuple(sorted({s for route in self.routes for s, r in enumerate(route) if r == rank}))
