"""The check that debug mode runs after every step finds each kind of damage, and names it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fathom.config.engine import EngineConfig
from fathom.engine.request import SamplingParams
from fathom.engine.scheduler import Scheduler
from fathom.engine.sequence import Sequence


def sequence(index: int = 0) -> Sequence:
    return Sequence(0, index, "", tuple(range(10)), SamplingParams(n=2), 30)


def sharing() -> tuple[Scheduler, Sequence]:
    """Two sequences run and share two of three pages; the first of them."""
    scheduler = Scheduler(EngineConfig(page_size=4), 100)
    both = [sequence(0), sequence(1)]
    scheduler.submit(both)
    for _ in both:
        for work in scheduler.plan():
            scheduler.advance(work.sequence, work.start + work.count)
            work.sequence.output.append(7)
    for one in both:
        one.cached = 0
    scheduler.check()
    assert both[0].pages[:2] == both[1].pages[:2]
    return scheduler, both[0]


def leak(scheduler: Scheduler, a: Sequence) -> None:
    a.pages.pop()


def unheld(scheduler: Scheduler, a: Sequence) -> None:
    scheduler.pool.release(a.pages[-1])


def counted_too_often(scheduler: Scheduler, a: Sequence) -> None:
    scheduler.pool.share(a.pages[0])


def twice_in_one(scheduler: Scheduler, a: Sequence) -> None:
    scheduler.pool.share(a.pages[-1])
    a.pages.append(a.pages[-1])


def shared_and_written(scheduler: Scheduler, a: Sequence) -> None:
    a.computed = 4


def not_covered(scheduler: Scheduler, a: Sequence) -> None:
    a.computed = 4 * len(a.pages) + 1


def wrong_parent(scheduler: Scheduler, a: Sequence) -> None:
    nodes = {node.page: node for node in scheduler.tree}
    nodes[a.pages[1]].parent = None


def wrong_tokens(scheduler: Scheduler, a: Sequence) -> None:
    next(iter(scheduler.tree)).tokens = b""


def behind_the_trees_back(scheduler: Scheduler, a: Sequence) -> None:
    for one in scheduler.running:
        for page in one.pages:
            scheduler.pool.release(page)
        one.pages.clear()
        one.computed = 0


def waits_with_pages(scheduler: Scheduler, a: Sequence) -> None:
    waiting = sequence()
    scheduler.submit([waiting])
    waiting.computed = 1


def runs_and_waits(scheduler: Scheduler, a: Sequence) -> None:
    scheduler.waiting.push_front(a)


def behind_nobody(scheduler: Scheduler, a: Sequence) -> None:
    scheduler.siblings.wait(sequence(), [sequence()])


def behind_a_computed_prompt(scheduler: Scheduler, a: Sequence) -> None:
    scheduler.siblings.wait(a, [sequence()])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (leak, "counts 1 holders and has 0"),
        (unheld, "counts 0 holders and has 1"),
        (counted_too_often, "counts 4 holders and has 3"),
        (twice_in_one, "twice in a sequence"),
        (shared_and_written, "shared and will be written"),
        (not_covered, "cover 12 positions, and 13"),
        (wrong_parent, "has no parent"),
        (wrong_tokens, "is not its tokens'"),
        (behind_the_trees_back, "are idle; the tree says"),
        (waits_with_pages, "waits and holds pages"),
        (runs_and_waits, "in two places"),
        (behind_nobody, "a sequence that is gone"),
        (behind_a_computed_prompt, "a prompt that is computed"),
    ],
    ids=lambda x: x.__name__ if callable(x) else "",
)
def test_check_names_what_is_broken(damage: Callable[[Scheduler, Sequence], None], named: str):
    scheduler, a = sharing()
    damage(scheduler, a)
    with pytest.raises(AssertionError, match=named):
        scheduler.check()
