"""The scheduler under random use, with pages that are really written.

A page of the test's memory holds, for each of its positions, what a latent depends on: all tokens up to
there, and the form that computed it. A page that is shared wrongly, freed too early or written by two shows
in what a sequence would read.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fathom.config.engine import EngineConfig
from fathom.engine import invariants, prefix
from fathom.engine.request import BusyError, RequestError, SamplingParams
from fathom.engine.scheduler import Scheduler, Work
from fathom.engine.sequence import Sequence

Cell = tuple[int, str]  # hash of all tokens up to a position, and the form: "prompt" or "answer"
MOST_DRAFTS = 4


class World:
    """An engine whose latents are hashes and whose tokens are drawn from `rng`."""

    def __init__(self, config: EngineConfig, pages: int, rng: random.Random, beyond: int = 0) -> None:
        self.rng, self.config, self.pages = rng, config, pages
        self.scheduler = Scheduler(config, pages, beyond)
        self.memory: dict[int, dict[int, Cell]] = defaultdict(dict)
        self.mtp: dict[int, dict[int, int]] = defaultdict(dict)  # hash of all tokens up to the one after
        self.alive: dict[Sequence, None] = {}
        self.since: dict[str, set[str]] = {}  # keys that were served since this key was, or began to wait
        self.returned: set[Sequence] = set()  # preempted, and not back yet
        self.seen: Counter[str] = Counter()
        self.requests = 0
        self._count_evictions()

    def _count_evictions(self) -> None:
        evict, insert = self.scheduler.tree.evict, self.scheduler.tree.insert

        def counted_evict(count: int) -> int:
            nodes = len(self.scheduler.tree)
            freed = evict(count)
            assert freed >= count, "the scheduler asks for no more than there is"
            self.seen["evicted"] += freed
            self.seen["left the tree while held"] += nodes - len(self.scheduler.tree) - freed
            return freed

        def counted_insert(*args: object) -> bytes | None:
            key = insert(*args)  # type: ignore[arg-type]
            self.seen["entered anew"] += key is None
            return key

        self.scheduler.tree.evict = counted_evict  # type: ignore[method-assign]
        self.scheduler.tree.insert = counted_insert  # type: ignore[method-assign]

    def submit(self, prompt: list[int], most: int, n: int = 1, key: str = "") -> None:
        """Cut to what the pool holds; a full queue refuses all n or takes all n."""
        room = self.pages * self.config.page_size
        prompt = prompt[: room - 1] or [0]
        most = min(max(most, len(prompt) + 1), room)
        new = [
            Sequence(self.requests, i, key, tuple(prompt), SamplingParams(n=n), most) for i in range(n)
        ]
        self.requests += 1
        before = self.scheduler.queued
        try:
            self.scheduler.submit(new)
        except (BusyError, RequestError):
            assert before + n > self.config.max_waiting
            assert self.scheduler.queued == before
            self.seen["refused"] += 1
            return
        assert self.scheduler.queued == before + n <= self.config.max_waiting
        self.alive |= dict.fromkeys(new)
        self.note_waiting()

    def retire(self, sequence: Sequence) -> None:
        cached = sequence.cached
        self.alive.pop(sequence, None)
        for _ in range(2):  # the second time it is unknown
            self.scheduler.retire(sequence)
        assert not sequence.pages and sequence.cached == cached
        self.note_waiting()

    def step(self) -> list[Work]:
        before = self.scheduler.running
        waiting = list(self.scheduler.waiting)
        works = self.scheduler.plan()
        after = self.scheduler.running
        self.check_admissions(before, waiting, after)
        self.check_plan(works, after)
        for work in works:
            self.compute(work)
        for work in works:
            if self.rng.random() < 0.01:  # its consumer went away while the step ran
                self.seen["cancelled in a step"] += 1
                self.retire(work.sequence)
            else:
                self.finish(work)
        self.note_waiting()
        return works

    def check_admissions(self, before: list[Sequence], waiting: list[Sequence], after: list[Sequence]):
        still = set(after)
        stayed = [s for s in before if s in still]
        assert stayed == before[: len(stayed)], "who is preempted is newer than who stays"
        assert after[: len(stayed)] == stayed, "who is admitted is newer than who runs"
        lost, admitted = before[len(stayed) :], after[len(stayed) :]
        self.seen["preempted"] += len(lost)
        self.seen["preempted in prefill"] += sum(not s.output for s in lost)
        if lost:
            assert not admitted, "nobody is admitted while others lose their pages"
            assert list(self.scheduler.waiting)[: len(lost)] == lost, "they come back in the order they ran"
            assert all((s.computed, s.cached, s.drafts, s.pages) == (0, 0, [], []) for s in lost)
        for sequence in admitted:
            assert sequence in waiting
            self.seen["came back"] += bool(sequence.output)
            self.seen["cached"] += sequence.cached
            if sequence in self.returned:
                continue
            jumped = [k for k, served in self.since.items() if k != sequence.key and sequence.key in served]
            assert not jumped, f"{sequence.key} is served again before {jumped}"
            for served in self.since.values():
                served.add(sequence.key)
            self.since.pop(sequence.key, None)
        self.returned = (self.returned - set(admitted)) | set(lost)

    def note_waiting(self) -> None:
        """Keys in line now; for those who were not, counting begins."""
        keys = {s.key for s in self.scheduler.waiting if s not in self.returned}
        self.since = {key: self.since.get(key, set()) for key in keys}

    def check_plan(self, works: list[Work], running: list[Sequence]) -> None:
        size, budget = self.config.page_size, self.config.prefill_tokens
        assert works or not self.scheduler.busy
        assert len({w.sequence for w in works}) == len(works)
        if running:
            assert running[0] in {w.sequence for w in works}, "the oldest always goes on"
        rows = [w.count for w in works if w.kind != "decode"]
        assert sum(rows) <= budget or (len(rows) == 1 and rows[0] <= size)
        decoding = {s for s in running if s.computed == s.length - 1 >= len(s.prompt)}
        assert decoding == {w.sequence for w in works if w.kind == "decode"}, "nobody who decodes is left out"
        for sequence, start, count, kind in works:
            stop, prompt = start + count, len(sequence.prompt)
            assert sequence in running and count > 0 and start == sequence.computed
            assert stop <= len(sequence.pages) * size and stop <= sequence.most
            self.seen[kind] += 1
            if kind == "prefill":
                assert stop <= prompt and start % size == 0 and (stop == prompt or stop % size == 0)
                self.seen["border"] += stop == prompt and stop % size == 0
            elif kind == "replay":
                assert prompt <= start and stop <= sequence.length - 1
            else:
                assert stop == sequence.length + len(sequence.drafts)
                self.seen["drafts"] += count > 1

    def compute(self, work: Work) -> None:
        sequence, start, count, kind = work
        size, form = self.config.page_size, "prompt" if kind == "prefill" else "answer"
        expected = self.latents(sequence, start + count)
        for position in range(start):
            page, slot = sequence.pages[position // size], position % size
            assert self.memory[page].get(slot) == expected[position], f"position {position} has changed"
        for position in range(start, start + count):
            page, slot = sequence.pages[position // size], position % size
            assert self.scheduler.pool.count(page) == 1, f"page {page} is shared and written"
            assert expected[position][1] == form
            self.memory[page][slot] = expected[position]

    def latents(self, sequence: Sequence, stop: int) -> list[Cell]:
        prompt, cells, so_far = len(sequence.prompt), [], 0
        for position, token in enumerate(sequence.tokens(0, stop)):
            so_far = hash((so_far, token))
            cells.append((so_far, "prompt" if position < prompt else "answer"))
        return cells

    def finish(self, work: Work) -> None:
        """The step's result: drafts are accepted up to a random one, and a token follows."""
        sequence, start, count, kind = work
        prompt, stop = len(sequence.prompt), start + count
        answers = stop >= sequence.length
        if kind == "decode":
            taken = self.rng.randint(0, count - 1)
            stop = start + 1 + taken
            sequence.output += sequence.drafts[:taken]
            self.seen["rejected"] += taken < count - 1
        if answers:
            assert stop >= prompt
            sequence.output.append(self.rng.randint(0, 1))
            del sequence.output[sequence.most - prompt :]
        if self.scheduler.tree.beyond:
            self.see_next(sequence, start, min(stop, sequence.length - 1))
        self.scheduler.advance(sequence, stop)
        room = sequence.most - sequence.length
        if room == 0:
            self.seen["finished"] += 1
            self.retire(sequence)
        elif answers:
            most = min(room, self.rng.randint(0, MOST_DRAFTS))
            sequence.drafts[:] = [self.rng.randint(0, 1) for _ in range(most)]

    def see_next(self, sequence: Sequence, start: int, stop: int) -> None:
        """What an MTP module writes: at each position what depends on the next token as well."""
        size = self.config.page_size
        expected = [cell for cell, _ in self.latents(sequence, stop + 1)]
        start = max(start - 1, 0) if start >= len(sequence.prompt) else start  # the prompt's last, seen late
        for position in range(start):
            page, slot = sequence.pages[position // size], position % size
            assert self.mtp[page].get(slot) == expected[position + 1], f"{position} saw another token"
        for position in range(start, stop):
            page, slot = sequence.pages[position // size], position % size
            assert self.scheduler.pool.count(page) == 1, f"page {page} is shared, and MTP writes it"
            self.mtp[page][slot] = expected[position + 1]

    def drain(self) -> None:
        """Everything finishes: the oldest computes at least one position a step, so a bound can be given."""
        left = sum(s.most + 1 for s in self.alive)
        while self.scheduler.busy:
            self.step()
            self.scheduler.check()
            left -= 1
            assert left >= 0, "no progress"
        assert not self.alive and self.scheduler.queued == 0
        tree, pool = self.scheduler.tree, self.scheduler.pool
        assert pool.free + tree.evictable == pool.total
        tree.evict(tree.evictable)
        assert pool.free == pool.total
        self.scheduler.check()


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=14)
answers = st.sampled_from([1, 1, 1, 2, 3])


class Machine(RuleBasedStateMachine):
    """submit, cancel, plan + advance, finish: in any order, with few pages."""

    @initialize(
        page_size=st.integers(1, 4),
        pages=st.integers(2, 10),
        prefill_tokens=st.integers(1, 9),
        max_running=st.integers(1, 5),
        max_waiting=st.integers(1, 8),
        cache=st.booleans(),
        beyond=st.integers(0, 1),
        seed=st.integers(0, 2**32),
    )
    def begin(self, seed: int, pages: int, beyond: int, cache: bool, **limits: int) -> None:
        config = EngineConfig(prefix_cache=cache, **limits)
        self.world = World(config, pages, random.Random(seed), beyond)

    @rule(prompt=prompts, more=st.integers(1, 12), n=answers, key=st.sampled_from("abc"))
    def submit(self, prompt: list[int], more: int, n: int, key: str) -> None:
        self.world.submit(prompt, len(prompt) + more, n, key)

    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        alive = list(self.world.alive)
        if alive:
            self.world.retire(alive[which % len(alive)])

    @rule(steps=st.integers(1, 6))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step()
            self.world.scheduler.check()

    @rule()
    def forget(self) -> None:
        self.world.scheduler.tree.clear()

    @invariant()
    def books_agree(self) -> None:
        if hasattr(self, "world"):
            self.world.scheduler.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.drain()


Machine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase


def drive(world: World, steps: int) -> None:
    """Requests of a few families that begin alike, some cancelled in whatever state they are."""
    rng = world.rng
    families = [[rng.randint(0, 1) for _ in range(40)] for _ in range(3)]
    for _ in range(steps):
        if rng.random() < 0.35:
            prompt = rng.choice(families)[: rng.randint(1, 30)] + [rng.randint(0, 1)] * rng.randint(0, 3)
            n = rng.choice([1, 1, 1, 2, 4])
            world.submit(prompt, len(prompt) + rng.randint(1, 25), n, rng.choice("aaab"))
        if rng.random() < 0.07 and world.alive:
            gone = rng.choice(list(world.alive))
            world.seen["cancelled running"] += gone in world.scheduler.running
            world.seen["cancelled preempted"] += gone in world.returned
            world.seen["cancelled siblings"] += gone in world.scheduler.siblings
            world.seen["cancelled first"] += gone in world.scheduler.siblings.groups
            world.retire(gone)
        if rng.random() < 0.01:
            world.scheduler.tree.clear()
        world.step()
        world.scheduler.check()
    world.drain()


EVENTS = (
    "evicted", "entered anew", "left the tree while held", "cached", "finished", "refused",
    "preempted", "preempted in prefill", "came back",
    "prefill", "replay", "decode", "drafts", "rejected", "border",
    "cancelled running", "cancelled preempted", "cancelled siblings", "cancelled first",
    "cancelled in a step",
)  # fmt: skip


@pytest.mark.parametrize("beyond", [0, 1])
def test_thousands_of_steps_with_every_kind_of_trouble(beyond: int):
    seen: Counter[str] = Counter()
    for seed, size, pages, budget, most in [
        (1, 1, 60, 16, 6),
        (2, 2, 40, 7, 8),
        (3, 4, 20, 4, 8),
        (4, 4, 24, 64, 5),
        (5, 8, 9, 3, 4),
        (6, 16, 5, 40, 16),
    ]:
        config = EngineConfig(page_size=size, prefill_tokens=budget, max_running=most, max_waiting=12)
        world = World(config, pages, random.Random(seed), beyond)
        drive(world, 500)
        seen += world.seen
    missed = [event for event in EVENTS if not seen[event]]
    assert not missed, f"{missed} never happened: {dict(seen)}"


@pytest.mark.parametrize("beyond", [0, 1])
def test_keys_that_collide_cost_hits_and_never_a_wrong_page(beyond: int, monkeypatch: pytest.MonkeyPatch):
    real = prefix.block_key
    for module in (prefix, invariants):
        monkeypatch.setattr(module, "block_key", lambda parent, block: bytes([real(parent, block)[0] % 5]))
    config = EngineConfig(page_size=2, prefill_tokens=9, max_running=8, max_waiting=12)
    world = World(config, 40, random.Random(7), beyond)
    drive(world, 300)
    assert world.seen["entered anew"] and world.seen["cached"]
