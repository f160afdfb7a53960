"""Stages that sleep where others compute, and how long a schedule takes on them.

A forward pass is attention | dispatch | MLP | combine, a backward pass the same the other way (report section
3.2.1); the two in the middle and at the end are communication that is under way while the stage does nothing
else. Alone a pass waits for it. Where the executor lets two passes take turns, each computes meanwhile, and
that is the only reason why a pair is shorter.

The clock: a sleep ends late by some tens of microseconds, and a step is a chain of hundreds of them. So
every rank's next sleep is shorter by what the last one took too long, less all time that has passed since:
a rank that waited for another one has nothing left to make up for, and what the executor itself costs counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

import torch
from torch import Tensor

from fathom.parallel.executor import Executor
from fathom.parallel.group import Group, barrier
from fathom.parallel.threads import Threads
from fathom.schedule.op import Op, Schedule
from fathom.schedule.place import Placed, Timeline, Times

Steps = Generator[None, None, Tensor | None]
Spans = dict[Op, tuple[float, float]]


class Clock:
    """One rank's time in ms, without what its last sleep took too long."""

    def __init__(self) -> None:
        self._wanted = self._woke = _real()

    def now(self) -> float:
        """Twice as fast as the wall's until the last sleep's delay is made up for."""
        real = _real()
        late = (self._woke - self._wanted) - (real - self._woke)
        return real - max(late, 0.0)

    def until(self, then: float) -> None:
        """Sleep; not at all if it is that late already."""
        if self.now() >= then:
            return
        time.sleep(max(then - _real(), 0.0) / 1000)
        self._wanted, self._woke = then, max(_real(), then)


class Sleeper:
    """All stages of one rank, as the executor's `Work`."""

    def __init__(self, times: Times) -> None:
        self._clock, self._times = Clock(), times
        hidden = times.forward + times.backward - times.pair  # what a pair hides is what communication takes
        self._share = hidden / (times.forward + times.backward)  # of a pass, in two messages
        self.spans: Spans = {}

    def stage(self, number: int) -> SleepingStage:
        """One of them."""
        return SleepingStage(self, number)

    def compute(self, ms: float) -> None:
        """Sleep."""
        self._clock.until(self._clock.now() + ms)

    def send(self, ms: float) -> Callable[[], None]:
        """Communication that takes so long from now; -> what waits for it."""
        there = self._clock.now() + ms
        return lambda: self._clock.until(there)

    def forward(self) -> Generator[None, None, None]:
        """Attention | dispatch | MLP | combine."""
        message = self._times.forward * self._share / 2
        part = self._times.forward / 2 - message
        for _ in ("attention and dispatch", "MLP and combine"):
            self.compute(part)
            arrive = self.send(message)
            yield
            arrive()

    def backward(self, keep: bool) -> Generator[None, None, None]:
        """Combine | MLP | dispatch | attention; without the parts for weights if `keep`."""
        message = self._times.backward * self._share / 2
        whole = self._times.backward - (self._times.weight if keep else 0.0)
        for _ in ("combine and MLP", "dispatch and attention"):
            arrive = self.send(message)
            yield
            arrive()
            self.compute(whole / 2 - message)

    def weights(self) -> None:
        """The parts for weights, of both."""
        self.compute(self._times.weight)


class SleepingStage:
    """One stage. What travels is the number of the micro-batch, so that no message is taken for another."""

    def __init__(self, rank: Sleeper, number: int) -> None:
        self._rank, self._number = rank, number

    def forward(self, micro: int, x: Tensor | None) -> Steps:
        """As `Work`."""
        return self._note(Op("F", self._number, micro), x, self._rank.forward())

    def backward(self, micro: int, dy: Tensor | None, *, keep: bool) -> Steps:
        """As `Work`."""
        return self._note(Op("I" if keep else "B", self._number, micro), dy, self._rank.backward(keep))

    def weights(self, micro: int) -> None:
        """As `Work`."""
        began = _real()
        self._rank.weights()
        self._rank.spans[Op("W", self._number, micro)] = began, _real()

    def _note(self, op: Op, came: Tensor | None, steps: Generator[None, None, None]) -> Steps:
        assert came is None or int(came) == op.micro, f"{came} came for {op}"
        began = _real()
        yield from steps
        self._rank.spans[op] = began, _real()
        return torch.tensor(op.micro)


class Measured(Timeline):
    """A timeline whose items took as long as they took."""

    @property
    def busy(self) -> tuple[float, ...]:
        """Time from starts to ends of items."""
        return tuple(sum(placed.end - placed.start for placed in row) for row in self.rows)


def run(schedule: Schedule, times: Times) -> Measured:
    """One step on threads: all of `times` in ms, and `transfer` must be 0."""
    assert times.transfer == 0, "messages between threads take no time"

    def work(group: Group) -> Spans:
        sleeper = Sleeper(times)
        stages = {stage: sleeper.stage(stage) for stage in schedule.stages_of(group.rank)}
        executor = Executor(schedule, group, stages, lambda: torch.empty((), dtype=torch.int64))
        barrier(group)
        executor.run()
        return sleeper.spans

    ranks = Threads(schedule.ranks).run(work)
    began = min(start for spans in ranks for start, _ in spans.values())
    return Measured(schedule, times, tuple(
        tuple(_placed(spans, item, began) for item in order)
        for spans, order in zip(ranks, schedule.orders, strict=True)
    ))  # fmt: skip


def _placed(spans: Spans, item: tuple[Op, ...], zero: float) -> Placed:
    """From the first start to the last end of its halves."""
    starts, ends = zip(*(spans[op] for op in item), strict=True)
    return Placed(min(starts) - zero, max(ends) - zero, item)


def _real() -> float:
    return time.perf_counter() * 1000
