"""Answers that wait until the first answer to the same prompt has computed it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Many

from fathom.engine.sequence import Sequence


class Siblings:
    """Each waits behind the first of its request."""

    def __init__(self) -> None:
        self._groups: dict[Sequence, dict[Sequence, None]] = {}
        self._first: dict[Sequence, Sequence] = {}

    def __len__(self) -> int:
        return len(self._first)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._first

    @property
    def groups(self) -> Mapping[Sequence, Many[Sequence]]:
        """Who waits behind whom, in order."""
        return {first: tuple(group) for first, group in self._groups.items()}

    def wait(self, first: Sequence, others: Many[Sequence]) -> None:
        """`others` wait behind `first`, behind whom nobody waits yet."""
        assert first not in self._groups, "two groups wait behind one sequence"
        if others:
            self._groups[first] = dict.fromkeys(others)
            self._first |= dict.fromkeys(others, first)

    def behind(self, first: Sequence) -> list[Sequence]:
        """Those who wait behind `first`, in order; they wait no more."""
        others = list(self._groups.pop(first, ()))
        for other in others:
            del self._first[other]
        return others

    def remove(self, sequence: Sequence) -> bool:
        """One waits no more; False if it did not."""
        first = self._first.pop(sequence, None)
        if first is None:
            return False
        del self._groups[first][sequence]
        if not self._groups[first]:
            del self._groups[first]
        return True
