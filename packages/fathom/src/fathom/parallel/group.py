"""What ranks say to each other, as one small interface.

Three kinds keep it: `Alone` (one rank), `fathom.parallel.threads` (ranks as threads, for tests) and
`fathom.parallel.processes` (torch.distributed). Nothing else in fathom talks to another process.

Every rank of a group makes the same calls in the same order; sends and receives of one pair of ranks are
matched in order within a channel, and channels do not wait for each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor

from fathom.config.errors import FathomError

T_co = TypeVar("T_co", covariant=True)


class RankFailedError(FathomError):
    """Another rank failed or fell silent, so what this one waits for will never come."""


class Line(NamedTuple):
    """What messages of one kind travel along, in order."""

    source: int
    to: int
    channel: int


class Handle(Protocol[T_co]):
    """Something under way."""

    def wait(self) -> T_co:
        """Its result, as soon as it is there; may be asked again."""
        ...


class Done(NamedTuple):
    """A handle of something that needs no waiting."""

    value: Any

    def wait(self) -> Any:
        """The value."""
        return self.value


class Arrival:
    """A handle whose last steps are taken when it is waited for the first time."""

    def __init__(self, finish: Callable[[], Tensor]) -> None:
        self._finish: Callable[[], Tensor] | None = finish
        self._value: Tensor | None = None

    def wait(self) -> Tensor:
        """The result."""
        if self._finish is not None:
            self._value, self._finish = self._finish(), None
        assert self._value is not None
        return self._value


class Group(Protocol):
    """Ranks 0 to size-1, and this one's place among them."""

    rank: int
    size: int

    def all_to_all(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Handle[Tensor]:
        """Rows of `x` [sum(sent), ...] to every rank in turn; -> what came from each, [sum(received), ...].

        `received[r]` is what rank r has in its `sent` for this rank. Any dtype, none of it with a gradient.
        """
        ...

    def all_reduce(self, x: Tensor) -> Handle[Tensor]:
        """The sum over ranks, written into `x`; the same bits on every rank."""
        ...

    def all_gather(self, x: Tensor) -> list[Tensor]:
        """Every rank's `x`, all of one shape, in order of ranks."""
        ...

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's small value, in order of ranks; anything that JSON can say."""
        ...

    def send(self, x: Tensor, to: int, channel: int) -> Handle[None]:
        """Start sending to one rank; `x` must stay as it is until the handle was waited for."""
        ...

    def receive(self, into: Tensor, source: int, channel: int) -> Handle[Tensor]:
        """Start receiving `into` a contiguous tensor, which the handle gives back."""
        ...

    def subgroup(self, ranks: Sequence[int]) -> Group | None:
        """These ranks of this group, ascending; None on any other rank. All ranks call it."""
        ...

    def open_channels(self, lines: Sequence[Line]) -> None:
        """Make ready to send along these lines; all ranks call it with the same ones, before any message.

        Only NCCL needs it, whose messages carry no channel: each line is a communicator of its own there.
        """
        ...


class Alone:
    """One rank that has nobody to talk to."""

    rank, size = 0, 1

    def all_to_all(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Done:
        """All rows stay."""
        assert list(sent) == list(received) == [len(x)], f"{sent} sent, {received} received, {len(x)} rows"
        return Done(x.detach())

    def all_reduce(self, x: Tensor) -> Done:
        """The sum of one."""
        return Done(x)

    def all_gather(self, x: Tensor) -> list[Tensor]:
        """The only one."""
        return [x.detach().clone()]

    def gather_objects(self, value: Any) -> list[Any]:
        """The only one."""
        return [plain_copy(value)]

    def send(self, x: Tensor, to: int, channel: int) -> Done:
        """There is nobody."""
        raise AssertionError(f"the only rank sends to rank {to}")

    def receive(self, into: Tensor, source: int, channel: int) -> Done:
        """There is nobody."""
        raise AssertionError(f"the only rank receives from rank {source}")

    def subgroup(self, ranks: Sequence[int]) -> Alone | None:
        """Itself, or nobody."""
        return self if list(ranks) == [0] else None

    def open_channels(self, lines: Sequence[Line]) -> None:
        """There is nobody."""


def barrier(group: Group) -> None:
    """Wait until every rank is here."""
    group.gather_objects(None)


def plain_copy(value: Any) -> Any:
    """What another rank receives for `value`: what JSON makes of it, such as lists for tuples."""
    return json.loads(json.dumps(value))
