"""Whether a table can be run at all. Every check raises AssertionError with what is wrong.

A channel is all that goes from one rank to another along one route in one direction: outputs of forwards, or
gradients of backwards. It keeps its order; channels do not wait for each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from fathom.schedule.op import Op, Schedule
from fathom.schedule.place import needs


class Channel(NamedTuple):
    """Where a message travels."""

    source: int
    to: int
    route: int
    forward: bool


class Message(NamedTuple):
    """Made by an item of the source, taken by an item of the other rank: places in their orders."""

    made: int
    taken: int


def check(schedule: Schedule) -> None:
    """All of the checks below."""
    every_op_once(schedule)
    forward_before_backward(schedule)
    sends_meet_receives(schedule)
    never_stuck(schedule)


def every_op_once(schedule: Schedule) -> None:
    """Each stage does "F" and "B", or "F", "I" and "W", of each micro-batch once, on the rank it is on."""
    found = Counter(op for order in schedule.orders for item in order for op in item)
    for rank, order in enumerate(schedule.orders):
        for item in order:
            kinds = [op.kind for op in item]
            assert len(item) == 1 or kinds == ["F", "B"], f"rank {rank}: {item} is no item"
            for op in item:
                assert schedule.rank_of(op) == rank, f"{op} is on rank {rank}, not {schedule.rank_of(op)}"
    for micro in range(schedule.micros):
        for stage in range(schedule.stages):
            kinds = sorted(kind for kind in "FBIW" for _ in range(found.pop(Op(kind, stage, micro), 0)))
            assert kinds in (["B", "F"], ["F", "I", "W"]), f"stage {stage}, micro-batch {micro}: {kinds}"
    assert not found, f"nobody asked for {list(found)}"


def forward_before_backward(schedule: Schedule) -> None:
    """On its rank, "F" stands before "B" or "I", and "I" before "W"; put-off weights keep their order."""
    for rank, order in enumerate(schedule.orders):
        at = {op: place for place, item in enumerate(order) for op in item}
        for op, place in at.items():
            before = {"F": None, "B": "F", "I": "F", "W": "I"}[op.kind]
            first = at.get(op._replace(kind=before), place) if before else -1
            assert first < place, f"rank {rank}: {op} comes before its {before}"
        inputs, weights = ([op[1:] for item in order for op in item if op.kind == kind] for kind in "IW")
        assert inputs == weights, f"rank {rank}: W in another order than I"


def sends_meet_receives(schedule: Schedule) -> None:
    """In every channel, messages are taken in the order in which they are made."""
    for channel, messages in channels(schedule).items():
        taken = [message.taken for message in messages]
        assert taken == sorted(taken), f"{channel} is taken out of order: {taken}"


def never_stuck(schedule: Schedule, slots: int = 1) -> None:
    """Sends may block: a rank goes on when the other one has a receive posted for what it sends.

    Each channel has `slots` receives posted ahead, and the next is posted as soon as an item takes a message.
    With 0 slots the receiver must have arrived at the item that takes it. Before an item a rank waits for the
    sends of the item before, and for what the item needs, both at the same time.
    """
    makers: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    takers: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for channel, messages in channels(schedule).items():
        for n, message in enumerate(messages):
            makers[channel.to, message.taken].append((channel.source, message.made + 1))
            if slots == 0:
                takers[channel.source, message.made].append((channel.to, message.taken))
            elif n >= slots:
                takers[channel.source, message.made].append((channel.to, messages[n - slots].taken + 1))
    done = [0] * schedule.ranks  # items begun; what has begun ends
    moved = True
    while moved:
        moved = False
        for rank, order in enumerate(schedule.orders):
            while done[rank] < len(order):
                here = done[rank]
                if any(done[other] < n for other, n in takers[rank, here - 1] + makers[rank, here]):
                    break
                done[rank], moved = here + 1, True
    left = {rank: order[n] for rank, (order, n) in enumerate(zip(schedule.orders, done, strict=True))
            if n < len(order)}  # fmt: skip
    assert not left, f"{schedule.name} with {slots} receives ahead stops before {left}"


def channels(schedule: Schedule) -> dict[Channel, list[Message]]:
    """Every message between two ranks, in the order in which it is made."""
    at = {op: (rank, n) for rank, order in enumerate(schedule.orders) for n, item in enumerate(order)
          for op in item}  # fmt: skip
    found: dict[Channel, list[Message]] = defaultdict(list)
    for op, (rank, n) in at.items():
        for choices in needs(schedule, op):
            before = next((choice for choice in choices if choice in at), None)
            assert before is not None, f"{op} needs one of {choices}, and no rank does that"
            source, made = at[before]
            if source != rank:
                channel = Channel(source, rank, schedule.route_of[op.micro], op.kind == "F")
                found[channel].append(Message(made, n))
    return {channel: sorted(messages) for channel, messages in found.items()}
