"""A schedule on a time axis: when every item starts and ends, and what that costs.

Each rank does its items in order, each as soon as what it needs is there: a forward its stage before, a
backward its stage after and its own forward, a "W" its "I". What comes from another rank is there `transfer`
later. Both halves of a pair start together and end together. Nobody waits in order to send.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from math import inf
from typing import NamedTuple

from fathom.config.errors import need
from fathom.schedule.op import Item, Op, Schedule

MAY_BE_0 = ("weight", "transfer")


@dataclass(frozen=True)
class Times:
    """How long things take, all in one unit of the caller's choice."""

    forward: float = 100.0
    backward: float = 200.0  # whole: for inputs and for weights
    weight: float = 100.0  # the part for weights
    pair: float = 240.0  # a forward and a whole backward that overlap
    transfer: float = 0.0  # from one rank to another; ranks compute meanwhile

    def __post_init__(self) -> None:
        for name in ("forward", "backward", "weight", "pair", "transfer"):
            value = getattr(self, name)
            right = 0 <= value < inf and (value > 0 or name in MAY_BE_0)
            fix = f"set {name} {'to 0 or more' if name in MAY_BE_0 else 'above 0'}"
            need(right, f"{name}={value:g} is no length of time", fix=fix)
        need(
            self.weight <= self.backward,
            f"weight={self.weight:g} is longer than the backward={self.backward:g} that it is part of",
            fix=f"set weight to {self.backward:g} or less",
        )

    def scaled(self, by: float) -> Times:
        """For a stage of another size."""
        return Times(*(by * value for value in astuple(self)))

    def of(self, item: Item) -> float:
        """Of one item."""
        if len(item) == 2:
            return self.pair
        inputs = self.backward - self.weight
        return {"F": self.forward, "B": self.backward, "I": inputs, "W": self.weight}[item[0].kind]


class Placed(NamedTuple):
    """An item with its time."""

    start: float
    end: float
    item: Item


@dataclass(frozen=True)
class Timeline:
    """What `place` finds."""

    schedule: Schedule
    times: Times
    rows: tuple[tuple[Placed, ...], ...]  # of each rank, in order

    @property
    def makespan(self) -> float:
        """From the first start to the last end."""
        return max((row[-1].end for row in self.rows if row), default=0.0)

    @property
    def busy(self) -> tuple[float, ...]:
        """Time that each rank computes."""
        return tuple(sum(self.times.of(placed.item) for placed in row) for row in self.rows)

    @property
    def bubbles(self) -> tuple[float, ...]:
        """Time that each rank does not compute."""
        return tuple(self.makespan - busy for busy in self.busy)

    @property
    def idle_share(self) -> float:
        """Of all ranks' time together."""
        return sum(self.bubbles) / (len(self.rows) * self.makespan)


def place(schedule: Schedule, times: Times | None = None) -> Timeline:
    """Give every item its earliest time; AssertionError with the items that wait if some never can start."""
    times = times or Times()
    done: dict[Op, float] = {}  # end of each op
    rows: list[list[Placed]] = [[] for _ in schedule.orders]
    moved = True
    while moved:
        moved = False
        for rank, (order, row) in enumerate(zip(schedule.orders, rows, strict=True)):
            while len(row) < len(order):
                item = order[len(row)]
                ready = _ready(schedule, rank, item, done, times.transfer)
                if ready is None:
                    break
                start = max(ready, row[-1].end if row else 0.0)
                row.append(Placed(start, start + times.of(item), item))
                done.update(dict.fromkeys(item, row[-1].end))
                moved = True
    waiting = {r: order[len(row)] for r, (order, row) in enumerate(zip(schedule.orders, rows, strict=True))
               if len(row) < len(order)}  # fmt: skip
    assert not waiting, f"{schedule.name} stops; by rank, what waits for ever: {waiting}"
    return Timeline(schedule, times, tuple(map(tuple, rows)))


def needs(schedule: Schedule, op: Op) -> tuple[tuple[Op, ...], ...]:
    """What must be done before an op: one op of each of these choices (a backward is "B" or "I")."""
    if op.kind == "W":
        return ((op._replace(kind="I"),),)
    if op.kind == "F":
        return ((op._replace(stage=op.stage - 1),),) if op.stage else ()
    own = (op._replace(kind="F"),)
    after = op.stage + 1
    if after == schedule.stages:
        return (own,)
    return own, (Op("B", after, op.micro), Op("I", after, op.micro))


def _ready(
    schedule: Schedule, rank: int, item: Item, done: dict[Op, float], transfer: float
) -> float | None:
    """When everything that an item needs is on this rank; None if not all is known yet."""
    latest = 0.0
    for op in item:
        for choices in needs(schedule, op):
            found = [choice for choice in choices if choice in done]
            if not found:
                return None
            away = schedule.rank_of(found[0]) != rank
            latest = max(latest, done[found[0]] + transfer * away)
    return latest
