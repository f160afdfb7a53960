"""Ranks as threads of one process: every parallel form of training runs on a laptop, in a test.

A message is a copy: what a rank does to its tensors afterwards is its own affair, as between machines. When a
rank fails, whoever waits for it fails too: nothing hangs.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fathom.parallel.group import Arrival, Done, Line, RankFailedError, plain_copy

Result = TypeVar("Result")


class Threads:
    """`Threads(4).run(function)`: four ranks, each in a thread that is given its group."""

    def __init__(self, size: int, patience_s: float = 60.0) -> None:
        self.size, self.patience_s = size, patience_s

    def run(self, function: Callable[[ThreadGroup], Result]) -> list[Result]:
        """What the function returned on every rank; the first rank's own error, if one failed."""
        board = _Board(self.patience_s)
        results: list[Any] = [None] * self.size
        errors: list[BaseException | None] = [None] * self.size

        def work(rank: int) -> None:
            try:
                results[rank] = function(ThreadGroup(board, "all", tuple(range(self.size)), rank))
            except BaseException as error:  # told to the caller, below
                errors[rank] = error
                board.fail()

        threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failed = [e for e in errors if e is not None]
        if failed:
            raise next((e for e in failed if not isinstance(e, RankFailedError)), failed[0])
        return results


class _Board:
    """Where messages are pinned until whoever they are for takes them."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._posts: dict[Hashable, Any] = {}
        self._change = threading.Condition()
        self._failed = False

    def post(self, key: Hashable, value: Any) -> None:
        with self._change:
            assert key not in self._posts, f"{key} is posted twice"
            self._posts[key] = value
            self._change.notify_all()

    def take(self, key: Hashable) -> Any:
        with self._change:
            self._change.wait_for(lambda: key in self._posts or self._failed, self._patience_s)
            if key in self._posts:
                return self._posts.pop(key)
            if self._failed:
                raise RankFailedError("another rank failed. Fix: see that rank's own error")
            late = f"nobody posted {key} within {self._patience_s:g} s"
            raise RankFailedError(f"{late}. Fix: make every rank call the same things")

    def fail(self) -> None:
        with self._change:
            self._failed = True
            self._change.notify_all()


class ThreadGroup:
    """A `Group` whose ranks are threads."""

    def __init__(self, board: _Board, name: Hashable, members: tuple[int, ...], me: int) -> None:
        """`members` by their numbers among all threads; `me` is one of those numbers."""
        self._board, self._name, self._members, self._me = board, name, members, me
        self.rank, self.size = members.index(me), len(members)
        self._calls: dict[Hashable, int] = defaultdict(int)

    def all_to_all(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Arrival:
        """As `Group`."""
        assert sum(sent) == len(x), f"{list(sent)} rows sent of {len(x)}"
        parts = self._swap([part.clone() for part in x.detach().split(list(sent))])

        def arrive() -> Tensor:
            came = parts()
            assert [len(part) for part in came] == list(received), (
                f"{[len(part) for part in came]} rows came, {list(received)} were expected"
            )
            return _join(came)

        return Arrival(arrive)

    def all_reduce(self, x: Tensor) -> Arrival:
        """As `Group`; summed in order of ranks."""
        parts = self._swap([x.detach().clone()] * self.size)

        def arrive() -> Tensor:
            came = parts()
            total = came[0].clone()
            for part in came[1:]:
                total += part
            return x.detach().copy_(total)

        return Arrival(arrive)

    def all_gather(self, x: Tensor) -> list[Tensor]:
        """As `Group`."""
        return [part.clone() for part in self._swap([x.detach().clone()] * self.size)()]

    def gather_objects(self, value: Any) -> list[Any]:
        """As `Group`."""
        return self._swap([plain_copy(value) for _ in range(self.size)])()

    def send(self, x: Tensor, to: int, channel: int) -> Done:
        """As `Group`."""
        self._board.post(self._letter(self.rank, to, channel), x.detach().clone())
        return Done(None)

    def receive(self, into: Tensor, source: int, channel: int) -> Arrival:
        """As `Group`."""
        assert into.is_contiguous(), "a message fills a contiguous tensor"
        key = self._letter(source, self.rank, channel)

        def arrive() -> Tensor:
            came = self._board.take(key)
            got, wanted = (came.shape, came.dtype), (into.shape, into.dtype)
            assert got == wanted, f"{got} came on channel {channel} from rank {source}, {wanted} was expected"
            return into.detach().copy_(came)

        return Arrival(arrive)

    def subgroup(self, ranks: Sequence[int]) -> ThreadGroup | None:
        """As `Group`."""
        assert list(ranks) == sorted(set(ranks)), f"{list(ranks)} do not ascend"
        members = tuple(self._members[r] for r in ranks)
        name = (self._name, self._count("subgroup"))
        return ThreadGroup(self._board, name, members, self._me) if self._me in members else None

    def open_channels(self, lines: Sequence[Line]) -> None:
        """Nothing to do."""

    def _swap(self, parts: list[Any]) -> Callable[[], list[Any]]:
        """Post one part for every rank now; the parts that came for this one, when they are asked for."""
        call = self._count("all")
        for to, part in enumerate(parts):
            self._board.post((self._name, call, self.rank, to), part)
        froms = range(self.size)
        return lambda: [self._board.take((self._name, call, source, self.rank)) for source in froms]

    def _letter(self, source: int, to: int, channel: int) -> Hashable:
        pair = (self._name, channel, source, to)
        return (*pair, self._count((pair, self.rank)))

    def _count(self, key: Hashable) -> int:
        self._calls[key] += 1
        return self._calls[key]


def _join(parts: list[Tensor]) -> Tensor:
    """Rows one after the other; as bytes, since not every dtype can be concatenated."""
    first = parts[0]
    if first.element_size() > 1 or first.dtype == torch.uint8:
        return torch.cat(parts)
    return torch.cat([part.contiguous().view(torch.uint8) for part in parts]).view(first.dtype)
