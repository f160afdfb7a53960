"""What each step computes, and in which pages: continuous batching over a paged cache.

A sequence waits, runs and is retired. While it runs, three kinds of work bring it forward:

    prefill   positions of its prompt, in chunks that end on a page border or with the prompt
    replay    positions of its answer up to the last but one, where it lost its pages and came back
    decode    the last token, and behind it the drafts of what may follow

Only pages that prefill filled enter the prefix tree: the other two round differently. When pages run out,
idle ones are evicted; then the newest running sequence gives up all of its pages and returns to the head of
the queue. So the oldest always goes on, and whoever waits becomes the oldest one day.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import NamedTuple

from fathom.config.engine import EngineConfig
from fathom.config.errors import need
from fathom.engine import invariants
from fathom.engine.holdings import Holdings
from fathom.engine.pages import PagePool
from fathom.engine.prefix import PrefixTree
from fathom.engine.queue import FairQueue
from fathom.engine.request import RequestError
from fathom.engine.sequence import Sequence
from fathom.engine.siblings import Siblings


class Work(NamedTuple):
    """Positions [start, start + count) of a sequence, to be computed in the next step."""

    sequence: Sequence
    start: int
    count: int  # type: ignore[assignment]  # a tuple's own count() is of no use here
    kind: str  # "prefill", "replay" or "decode"


class _Blocked(NamedTuple):
    """Why the head of the queue was not admitted; not worth looking again while this stands."""

    sequence: Sequence
    cost: int  # pages that it would take
    inserted: int  # what the tree's counter said


class Scheduler:
    """The books of one engine; it computes nothing. A step costs O(running), and hashes of new prompt pages.

    `beyond` is 1 where pages hold latents of an MTP module as well, see `fathom.engine.prefix`.
    """

    def __init__(self, config: EngineConfig, num_pages: int, beyond: int = 0) -> None:
        self.config = config
        self.page_size, self.budget = config.page_size, config.prefill_tokens
        self.pool = PagePool(num_pages)
        self.tree = PrefixTree(self.pool, config.page_size, beyond)
        self.waiting = FairQueue(config.max_waiting)
        self.siblings = Siblings()
        self.preemptions = 0  # times that a sequence lost its pages
        self._running = Holdings(self.tree, share=config.prefix_cache)
        self._blocked: _Blocked | None = None

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold pages, oldest first; a new list."""
        return list(self._running)

    @property
    def num_running(self) -> int:
        """How many hold pages."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Sequences that wait, siblings that are not in line yet among them; what max_waiting bounds."""
        return len(self.waiting) + len(self.siblings)

    @property
    def busy(self) -> bool:
        """Whether plan() would find anything to do."""
        return len(self._running) > 0 or self.queued > 0

    def submit(self, sequences: Many[Sequence]) -> None:
        """Queue the sequences of one request, all or none. The `most` positions of each fit in the pool.

        Only the first is queued; the others follow when its prompt is in the tree for them to find.
        Errors: BusyError if not all may wait; RequestError if so many never could.
        """
        count, bound = len(sequences), self.config.max_waiting
        what = f"{count} sequences of one request are over max_waiting={bound}"
        fix = "ask for fewer answers at a time, or raise max_waiting"
        need(count <= bound, what, fix=fix, error=RequestError)
        for sequence in sequences:
            pages, prompt = self._running.pages_for(sequence.most), len(sequence.prompt)
            assert pages <= self.pool.total, f"a sequence of {pages} pages for a pool of {self.pool.total}"
            assert 0 < prompt <= sequence.most, f"a prompt of {prompt} positions; at most {sequence.most}"
            assert not self._knows(sequence), "a sequence is submitted twice"
        self.need_room(count)
        self.waiting.push(sequences[0])
        self.siblings.wait(sequences[0], sequences[1:])

    def need_room(self, count: int) -> None:
        """BusyError where `count` sequences more could not wait; cheap, to be asked before all else."""
        self.waiting.need_room(count, besides=len(self.siblings))

    def plan(self) -> list[Work]:
        """The next step: at least one piece of work unless nothing waits or runs, at most one per sequence.

        Pages for every position in it are in `sequence.pages`; those of positions not computed yet are nobody
        else's. Decodes come first, oldest first, then the rest in the same order.
        """
        works, others = self._decodes()
        left = self.budget
        for sequence in others:
            work = self._chunk(sequence, sequence.computed, left)
            if work is not None:
                works.append(work)
                left -= work.count
        while left > 0 and (work := self._admit(left)) is not None:
            works.append(work)
            left -= work.count
        assert works or not self.busy, "sequences wait or run, and there is nothing to do"
        return works

    def advance(self, sequence: Sequence, computed: int) -> None:
        """Positions below `computed` of a running sequence are final, and all that a page holds is in it.

        Full pages of its prompt enter the tree, and its siblings the queue when it is complete.
        """
        held = len(sequence.pages) * self.page_size
        assert sequence in self._running, "a sequence that does not run advances"
        assert sequence.computed <= computed <= held, f"not {sequence.computed} <= {computed} <= {held}"
        sequence.computed = computed
        self._running.enter(sequence)
        if computed >= len(sequence.prompt) and self.siblings:
            self.waiting.follow(self.siblings.behind(sequence))

    def retire(self, sequence: Sequence) -> None:
        """Finished or cancelled, in whatever state: its pages are released. Unknown or retired: no effect.

        If it was the first of a request and its prompt is not computed, its next sibling takes that part.
        """
        rest = self.siblings.behind(sequence)
        if rest:  # queued before the other leaves: a line that empties would lose its key's turn
            self.waiting.follow(rest[:1])
            self.siblings.wait(rest[0], rest[1:])
        if sequence in self._running:
            self._running.release(sequence)
        elif not self.waiting.remove(sequence):
            self.siblings.remove(sequence)

    def check(self) -> None:
        """Raise AssertionError, naming it, if any invariant of pages, tree or queue is broken."""
        running, waiting = self.running, list(self.waiting)
        invariants.check_pages(self.pool, self.tree, running, self.page_size)
        invariants.check_tree(self.tree)
        self.waiting.check()
        invariants.check_states(running, waiting, self.siblings.groups)
        most = self.config.max_running
        assert len(running) <= most, f"{len(running)} sequences run, not at most {most}"

    def _decodes(self) -> tuple[list[Work], list[Sequence]]:
        """Work on last tokens and drafts, pages included, and the running sequences that are not that far."""
        works: list[Work] = []
        others: list[Sequence] = []
        for sequence in self._running:
            if sequence not in self._running:
                break  # an older one took its pages, and before that those of all newer ones
            computed, length = sequence.computed, sequence.length
            if computed < length - 1 or computed < len(sequence.prompt):
                others.append(sequence)
                continue
            assert computed == length - 1, f"{computed} of {length} positions are computed: what comes next?"
            assert length + len(sequence.drafts) <= sequence.most, "drafts beyond the last position"
            if self._pages_to_decode(sequence):
                works.append(Work(sequence, computed, 1 + len(sequence.drafts), "decode"))
        return works, others

    def _pages_to_decode(self, sequence: Sequence) -> bool:
        """Get them by eviction, without drafts, or from newer sequences; False if this one was the newest."""
        running = self._running
        if running.reserve(sequence, sequence.length + len(sequence.drafts)):
            return True
        sequence.drafts.clear()
        while not running.reserve(sequence, sequence.length):
            newest = running.newest
            running.release(newest)
            newest.cached = 0
            newest.drafts.clear()
            self.waiting.push_front(newest)
            self.preemptions += 1
            if newest is sequence:
                return False
        return True

    def _chunk(self, sequence: Sequence, start: int, left: int) -> Work | None:
        """What `left` rows of the budget are enough for; one page at least if none of it was spent."""
        prompt, size = len(sequence.prompt), self.page_size
        if start >= prompt:
            count = min(sequence.length - 1 - start, left)
            return Work(sequence, start, count, "replay") if count > 0 else None
        stop = min(prompt, start + left)
        if stop < prompt:
            stop -= stop % size
            if stop <= start and left == self.budget:
                stop = min(prompt, start - start % size + size)
        return Work(sequence, start, stop - start, "prefill") if stop > start else None

    def _admit(self, left: int) -> Work | None:
        """The queue's next sequence starts to run, if its first chunk and its pages can be had."""
        sequence = self.waiting.peek()
        if sequence is None or len(self._running) >= self.config.max_running or self._still_blocked(sequence):
            return None
        prompt, size = len(sequence.prompt), self.page_size
        if self._chunk(sequence, (prompt - 1) // size * size, left) is None:
            return None  # not even if all but the last page were found
        found = self._running.find(sequence)
        work = self._chunk(sequence, len(found) * size, left)
        if work is None:
            return None
        known = min(sequence.length + 1, sequence.most)
        cost = self._running.cost(found, known)
        if cost > self._running.available:
            self._blocked = _Blocked(sequence, cost, self.tree.inserted)
            return None
        self._blocked = None
        self.waiting.pop()
        self._running.admit(sequence, found, known)
        return work

    def _still_blocked(self, sequence: Sequence) -> bool:
        blocked = self._blocked
        if blocked is None or blocked.sequence is not sequence or blocked.inserted != self.tree.inserted:
            return False
        return self._running.available < blocked.cost

    def _knows(self, sequence: Sequence) -> bool:
        return sequence in self._running or sequence in self.waiting or sequence in self.siblings
