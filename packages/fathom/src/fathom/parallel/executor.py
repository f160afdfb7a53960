"""Runs a schedule: one rank's list of work, with what it receives and sends in between.

The executor knows no network. A stage makes generators that stop while something is under way; a forward and
a backward pass that the table pairs take turns.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Mapping
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from fathom.parallel.group import Group, Handle, Line
from fathom.schedule.op import Op, Schedule

Steps = Generator[None, None, Tensor | None]
Key = tuple[str, int, int]  # "F" for activations or "B" for their gradients, stage they enter, micro-batch
Lane = tuple[int, int]  # a rank, and a channel from it
UNDER_WAY = 2  # messages of a lane whose arrival nobody has asked for: each is kept until then


class Work(Protocol):
    """One stage of the network."""

    def forward(self, micro: int, x: Tensor | None) -> Steps:
        """A micro-batch, through; `x` is what the stage before returned. The last one returns None."""
        ...

    def backward(self, micro: int, dy: Tensor | None, *, keep: bool) -> Steps:
        """And back, to the gradient of `x` (the first stage: None); `keep` leaves those of weights undone."""
        ...

    def weights(self, micro: int) -> None:
        """What `keep` left."""
        ...


class Executor:
    """The place of one rank in a schedule."""

    def __init__(
        self,
        schedule: Schedule,
        group: Group,
        stages: Mapping[int, Work],
        room: Callable[[], Tensor],
        *,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`room` makes an empty tensor for what travels between stages: one shape, one dtype.

        after   called after every item that adds gradients of weights
        """
        self._schedule, self._group, self._stages, self._room = schedule, group, stages, room
        self._after = after
        self._order = schedule.orders[group.rank]
        self._lanes: dict[Lane, deque[Key]] = defaultdict(deque)  # what will come, in the order it is needed
        for op in (op for item in self._order for op in item):
            key = _enters(op)
            if key is not None and self._exists(key) and self._lane(key)[0] != group.rank:
                self._lanes[self._lane(key)].append(key)
        self._coming: dict[Key, Handle[Tensor]] = {}  # the next of each lane
        self._here: dict[Key, Tensor] = {}  # from one stage of this rank to another
        self._sent: dict[Lane, deque[Handle[None]]] = defaultdict(deque)  # to a rank, on a channel

    def run(self) -> None:
        """One step of the optimizer's worth of micro-batches, forward and back."""
        for lane in self._lanes:
            self._expect(lane)
        for item in self._order:
            self._take_turns([(op, self._start(op)) for op in item])
            if any(op.kind != "F" for op in item):
                self._after()
        for sent in self._sent.values():
            while sent:
                sent.popleft().wait()
        assert not self._coming and not self._here, f"nobody took {[*self._coming, *self._here]}"

    def _take_turns(self, started: list[tuple[Op, Steps]]) -> None:
        """Run to the end, the backward pass a step ahead: its first step only starts communication."""
        running = sorted(started, key=lambda own: own[0].kind == "F")
        while running:
            for op, steps in list(running):
                try:
                    next(steps)
                except StopIteration as end:
                    running.remove((op, steps))
                    self._pass_on(op, end.value)

    def _start(self, op: Op) -> Steps:
        stage, key = self._stages[op.stage], _enters(op)
        given = None if key is None or not self._exists(key) else self._arrived(key)
        if op.kind == "F":
            return stage.forward(op.micro, given)
        if op.kind == "W":
            return _at_once(lambda: stage.weights(op.micro))
        return stage.backward(op.micro, given, keep=op.kind == "I")

    def _pass_on(self, op: Op, result: Tensor | None) -> None:
        if op.kind == "W":
            return
        key = ("F", op.stage + 1, op.micro) if op.kind == "F" else ("B", op.stage - 1, op.micro)
        if not self._exists(key):
            return
        assert result is not None, f"{op} made nothing for the stage that waits for it"
        to = self._rank(key[1], op.micro)
        if to == self._group.rank:
            self._here[key] = result
        else:
            sent = self._sent[to, self._channel(key)]
            while len(sent) >= UNDER_WAY:
                sent.popleft().wait()
            sent.append(self._group.send(result.contiguous(), to, self._channel(key)))

    def _expect(self, lane: Lane) -> None:
        """Be ready for the next message: one ahead on every lane, and no table can get stuck."""
        if self._lanes[lane]:
            self._coming[self._lanes[lane].popleft()] = self._group.receive(self._room(), *lane)

    def _arrived(self, key: Key) -> Tensor:
        if key in self._here:
            return self._here.pop(key)
        x = self._coming.pop(key).wait()
        self._expect(self._lane(key))
        return x

    def _lane(self, key: Key) -> Lane:
        """Where a message comes from, and on which channel."""
        kind, stage, micro = key
        return self._rank(stage + (-1 if kind == "F" else 1), micro), self._channel(key)

    def _exists(self, key: Key) -> bool:
        """Whether anything enters there: neither the first stage's input nor the last one's gradient."""
        kind, stage, _ = key
        return 0 < stage < self._schedule.stages if kind == "F" else 0 <= stage < self._schedule.stages - 1

    def _rank(self, stage: int, micro: int) -> int:
        return self._schedule.routes[self._schedule.route_of[micro]][stage]

    def _channel(self, key: Key) -> int:
        return 2 * self._schedule.route_of[key[2]] + (key[0] == "B")


def lines(schedule: Schedule) -> list[Line]:
    """Every way on which stages of this table talk to each other."""
    found = []
    for number, route in enumerate(schedule.routes):
        for source, to in pairwise(route):
            if source != to:
                found += [Line(source, to, 2 * number), Line(to, source, 2 * number + 1)]
    return found


def _enters(op: Op) -> Key | None:
    return None if op.kind == "W" else ("F" if op.kind == "F" else "B", op.stage, op.micro)


def _at_once(function: Callable[[], None]) -> Steps:
    function()
    yield from ()
    return None


def one_room(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Callable[[], Tensor]:
    """Room for what travels: [B, T, D]."""
    return lambda: torch.empty(shape, dtype=dtype, device=device)
