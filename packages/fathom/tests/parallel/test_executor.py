"""The executor keeps the table's order, and no more messages than it must."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from fathom.parallel.executor import UNDER_WAY, Executor, Steps
from fathom.parallel.group import Handle
from fathom.parallel.threads import ThreadGroup, Threads
from fathom.schedule.build import SCHEDULES, build


class Counting:
    """A group that counts messages sent and not waited for."""

    def __init__(self, group: ThreadGroup) -> None:
        self._group, self.rank, self.size = group, group.rank, group.size
        self.open: Counter[tuple[int, int]] = Counter()
        self.most = 0

    def send(self, x: Tensor, to: int, channel: int) -> Handle[None]:
        self._group.send(x, to, channel)
        self.open[to, channel] += 1
        self.most = max(self.most, self.open[to, channel])
        return Waited(self.open, (to, channel))

    def receive(self, into: Tensor, source: int, channel: int) -> Handle[Tensor]:
        return self._group.receive(into, source, channel)


class Waited:
    """A handle that says when it was waited for."""

    def __init__(self, open_: Counter[tuple[int, int]], lane: tuple[int, int]) -> None:
        self._open, self._lane = open_, lane

    def wait(self) -> None:
        self._open[self._lane] -= 1


class Adding:
    """A stage that adds its number, forward, and 1000 of it on the way back."""

    def __init__(self, number: int, stages: int, seen: list[Any]) -> None:
        self.number, self.stages, self.seen = number, stages, seen

    def forward(self, micro: int, x: Tensor | None) -> Steps:
        yield
        value = (torch.full((1,), float(micro)) if x is None else x) + self.number
        self.seen.append(("F", self.number, micro, value.item()))
        return None if self.number == self.stages - 1 else value

    def backward(self, micro: int, dy: Tensor | None, *, keep: bool) -> Steps:
        yield
        value = (torch.full((1,), float(micro)) if dy is None else dy) + 1000 * self.number
        self.seen.append(("I" if keep else "B", self.number, micro, value.item()))
        return None if self.number == 0 else value

    def weights(self, micro: int) -> None:
        self.seen.append(("W", self.number, micro, None))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_op_is_run_once_on_what_it_is_meant_for(name):
    schedule = build(name, 4, 24)
    stages = schedule.stages

    def rank(group: ThreadGroup) -> tuple[list[Any], Counting]:
        seen: list[Any] = []
        counting = Counting(group)
        work = {s: Adding(s, stages, seen) for s in schedule.stages_of(group.rank)}
        Executor(schedule, counting, work, lambda: torch.empty(1)).run()  # type: ignore[arg-type]
        return seen, counting

    for number, (seen, counting) in enumerate(Threads(4).run(rank)):
        asked = Counter(op for item in schedule.orders[number] for op in item)
        assert Counter((kind, stage, micro) for kind, stage, micro, _ in seen) == asked
        for kind, stage, micro, value in seen:
            if kind == "F":
                assert value == micro + sum(range(stage + 1)), "what came is this micro-batch's"
            elif kind in "BI":
                assert value == micro + 1000 * sum(range(stage, stages))
        assert counting.most <= UNDER_WAY, "messages are kept until somebody asks whether they arrived"
        assert not +counting.open, "and at the end none is under way"
