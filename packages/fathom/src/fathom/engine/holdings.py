"""Which sequences run, and the pages they hold of pool and prefix tree."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass

from fathom.engine.prefix import ROOT, PrefixTree
from fathom.engine.sequence import Sequence


@dataclass(slots=True)
class _Entered:
    """How much of a sequence's prompt was offered to the tree."""

    pages: int
    key: bytes  # of the last block


class Holdings:
    """Running sequences in order of admission; iterating, one may release any of them.

    `share` = prompts enter the tree and are looked for in it.
    """

    def __init__(self, tree: PrefixTree, *, share: bool) -> None:
        self.tree, self.pool, self.share = tree, tree.pool, share
        self._entered: dict[Sequence, _Entered] = {}

    def __len__(self) -> int:
        return len(self._entered)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._entered

    def __iter__(self) -> Iterator[Sequence]:
        return iter(tuple(self._entered))

    @property
    def newest(self) -> Sequence:
        """The last admitted."""
        return next(reversed(self._entered))

    @property
    def available(self) -> int:
        """Pages that are free or idle."""
        return self.pool.free + self.tree.evictable

    def pages_for(self, positions: int) -> int:
        """Pages that hold so many positions."""
        return -(-positions // self.tree.page_size)

    def find(self, sequence: Sequence) -> list[int]:
        """Known pages of its prompt, which leave at least the last position. O(prompt); changes nothing."""
        return self.tree.find(sequence.prompt, len(sequence.prompt) - 1) if self.share else []

    def cost(self, found: Many[int], positions: int) -> int:
        """How many of the available pages a new sequence takes that begins with those `found`."""
        return self.pages_for(positions) - len(found) + self.tree.idle(found)

    def admit(self, sequence: Sequence, found: Many[int], positions: int) -> None:
        """The sequence runs, with what was just found and all other pages for so many positions."""
        if self.share:
            self.tree.hold(found, len(sequence.prompt) - 1)
        sequence.pages[:] = found
        sequence.computed = sequence.cached = len(found) * self.tree.page_size
        self._entered[sequence] = _Entered(len(found), self.tree.key_of(found))
        reserved = self.reserve(sequence, positions)
        assert reserved, "pages that were counted cannot be had"

    def reserve(self, sequence: Sequence, positions: int) -> bool:
        """Pages for the first `positions`; False, and nothing changed, if there are not enough."""
        more = self.pages_for(positions) - len(sequence.pages)
        short = more - self.pool.free
        if short > self.tree.evictable:
            return False
        if short > 0:
            self.tree.evict(short)
        sequence.pages.extend(self.pool.take() for _ in range(more))
        return True

    def release(self, sequence: Sequence) -> None:
        """The sequence no longer runs and gives back every page."""
        del self._entered[sequence]
        self.tree.release(sequence.pages)
        sequence.pages.clear()
        sequence.computed = 0

    def enter(self, sequence: Sequence) -> None:
        """Pages full of computed positions of its prompt enter the tree. O(positions not offered yet)."""
        if not self.share:
            return
        entered, size, beyond = self._entered[sequence], self.tree.page_size, self.tree.beyond
        first, prompt, pages = entered.pages, sequence.prompt, sequence.pages
        full = min(sequence.computed, len(prompt) - beyond) // size
        if full <= first:
            return
        key = self.tree.insert(prompt[first * size : full * size + beyond], pages[first:full], entered.key)
        if key is None:  # the blocks before were evicted with an idle one before them; enter all anew
            key = self.tree.insert(prompt[: full * size + beyond], pages[:full])
        entered.pages, entered.key = (0, ROOT) if key is None else (full, key)
