"""Who is next: sequences wait in one line per key, and keys take turns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from fathom.config.errors import need
from fathom.engine.request import BusyError
from fathom.engine.sequence import Sequence


class FairQueue:
    """Whoever asks for a hundred answers waits for them, and nobody else does. O(1) each, but iteration."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._lines: OrderedDict[str, OrderedDict[Sequence, None]] = OrderedDict()  # the first key is next
        self._back: OrderedDict[Sequence, None] = OrderedDict()  # had their turn before; the last is next
        self._waiting = 0  # in lines

    def __len__(self) -> int:
        return self._waiting + len(self._back)

    def __iter__(self) -> Iterator[Sequence]:
        """Those who came back, then key after key; not the order of pop()."""
        yield from reversed(self._back)
        for line in self._lines.values():
            yield from line

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._back or sequence in self._lines.get(sequence.key, ())

    def need_room(self, count: int, besides: int = 0) -> None:
        """Raise BusyError unless `count` more may wait, where `besides` wait elsewhere."""
        waiting = len(self) + besides
        what = f"{waiting} sequences wait and {count} more would be over max_waiting={self.bound}"
        need(waiting + count <= self.bound, what, fix="try again later", error=BusyError)

    def push(self, sequence: Sequence) -> None:
        """To the end of its key's line. Error: BusyError if `bound` wait already."""
        self.need_room(1)
        assert sequence not in self, "a sequence is queued twice"
        self._line(sequence.key)[sequence] = None
        self._waiting += 1

    def push_front(self, sequence: Sequence) -> None:
        """Next of all, whoever else waits: it was preempted, and its turn is not over. No bound."""
        assert sequence not in self, "a sequence is queued twice"
        self._back[sequence] = None

    def follow(self, sequences: Iterable[Sequence]) -> None:
        """To the front of their key's line, in this order; the turn stays whose it is. No bound."""
        for sequence in reversed(tuple(sequences)):
            assert sequence not in self, "a sequence is queued twice"
            line = self._line(sequence.key)
            line[sequence] = None
            line.move_to_end(sequence, last=False)
            self._waiting += 1

    def peek(self) -> Sequence | None:
        """What pop() would return; None if nobody waits."""
        if self._back:
            return next(reversed(self._back))
        return next(iter(next(iter(self._lines.values())))) if self._lines else None

    def pop(self) -> Sequence:
        """The next sequence; its key's turn is over. Error: an AssertionError if nobody waits."""
        sequence = self.peek()
        assert sequence is not None, "nobody waits"
        again = sequence in self._back
        self.remove(sequence)
        if not again and sequence.key in self._lines:
            self._lines.move_to_end(sequence.key)
        return sequence

    def remove(self, sequence: Sequence) -> bool:
        """Take a sequence out, wherever it waits; False if it does not."""
        if sequence in self._back:
            del self._back[sequence]
            return True
        line = self._lines.get(sequence.key)
        if line is None or sequence not in line:
            return False
        del line[sequence]
        self._waiting -= 1
        if not line:
            del self._lines[sequence.key]
        return True

    def check(self) -> None:
        """Raise AssertionError unless the books agree."""
        assert all(self._lines.values()), "a key without sequences has a line"
        waiting = sum(map(len, self._lines.values()))
        assert self._waiting == waiting, f"{waiting} wait in lines, {self._waiting} are counted"
        wrong = [key for key, line in self._lines.items() for sequence in line if sequence.key != key]
        assert not wrong, f"sequences wait in the line of other keys: {wrong}"
        everyone = list(self)
        assert len(everyone) == len(set(everyone)) == len(self), "a sequence waits twice"

    def _line(self, key: str) -> OrderedDict[Sequence, None]:
        return self._lines.setdefault(key, OrderedDict())
