"""What is planned, in which order, in whose pages: the promises one at a time."""

from __future__ import annotations

import pytest
from scheduler_drive import kinds, one, scheduler_of, sequences, step, submitted

from fathom.engine.request import SamplingParams
from fathom.engine.scheduler import Work
from fathom.engine.sequence import Sequence


def test_a_prompt_is_computed_in_chunks_and_then_tokens_one_by_one():
    scheduler = scheduler_of(budget=10)
    submitted(scheduler, 21)
    steps = [kinds(step(scheduler)) for _ in range(5)]
    assert steps == [
        [(0, 8, "prefill")],  # 10 would end inside a page
        [(8, 8, "prefill")],
        [(16, 5, "prefill")],
        [(21, 1, "decode")],
        [(22, 1, "decode")],
    ]


def test_a_budget_below_a_page_computes_one_page_at_a_time():
    scheduler = scheduler_of(budget=3)
    a, b = submitted(scheduler, 9), submitted(scheduler, 2, first=50)
    assert step(scheduler) == [(a, 0, 4, "prefill")]
    assert step(scheduler) == [(a, 4, 4, "prefill")]
    assert step(scheduler) == [(a, 8, 1, "prefill"), (b, 0, 2, "prefill")]


@pytest.mark.parametrize(("size", "prompt"), [(1, 1), (1, 5), (4, 4), (4, 8), (4, 1), (8, 16)])
def test_a_prompt_of_whole_pages_never_shares_the_page_it_writes_next(size: int, prompt: int):
    scheduler = scheduler_of(size=size)
    first = submitted(scheduler, prompt)
    step(scheduler)
    again = submitted(scheduler, prompt)
    assert step(scheduler) == [
        (first, prompt, 1, "decode"),
        (again, (prompt - 1) // size * size, prompt - (prompt - 1) // size * size, "prefill"),
    ]
    assert again.cached == (prompt - 1) // size * size, "the last position is always computed"
    for _ in range(2 * size):
        step(scheduler)
        shared = prompt - 1
        assert first.pages[: shared // size] == again.pages[: shared // size]
        assert not set(first.pages[shared // size :]) & set(again.pages[shared // size :])


def test_pages_of_answers_are_not_shared():
    scheduler = scheduler_of()
    first = submitted(scheduler, 6)
    for _ in range(8):
        step(scheduler)
    assert first.length > 12
    follow_up = Sequence(1, 0, "", (*first.prompt, *first.output), SamplingParams(), 40)
    scheduler.retire(first)
    scheduler.submit([follow_up])
    step(scheduler)
    assert follow_up.cached == 4, "the page with the last of the prompt and the first of the answer is new"


def test_with_an_mtp_module_pages_are_shared_where_the_next_token_is_the_same():
    scheduler = scheduler_of(beyond=1)
    submitted(scheduler, 8)
    step(scheduler)
    longer, other = one(12), one(8)
    other.prompt = (*other.prompt[:4], 99, 99)
    scheduler.submit([longer])
    scheduler.submit([other])
    step(scheduler)
    assert (longer.cached, other.cached) == (4, 0)


def test_decodes_come_first_and_prompts_share_the_budget_oldest_first():
    scheduler = scheduler_of(budget=12)
    a = submitted(scheduler, 3)
    step(scheduler)
    b, c, d = (submitted(scheduler, 10, first=first) for first in (100, 200, 300))
    assert step(scheduler) == [(a, 3, 1, "decode"), (b, 0, 10, "prefill")], "2 rows are no page of c"
    assert step(scheduler) == [(a, 4, 1, "decode"), (b, 10, 1, "decode"), (c, 0, 10, "prefill")]
    assert [work[0] for work in step(scheduler)] == [a, b, c, d]
    assert scheduler.running == [a, b, c, d]


def test_cancelled_in_any_state_nothing_is_left():
    scheduler = scheduler_of(pages=8, budget=4, max_running=2)
    group = sequences(6, n=3)
    running, waiting, unknown = one(6, first=40), one(6, first=60), one(6)
    scheduler.submit([running])
    scheduler.submit(group)
    scheduler.submit([waiting])
    step(scheduler)
    scheduler.retire(unknown)
    assert scheduler.queued == 4
    for sequence in (group[1], waiting, running, group[0], group[2]):
        scheduler.retire(sequence)
        scheduler.retire(sequence)
        scheduler.check()
        assert not sequence.pages
    assert not scheduler.busy
    assert scheduler.plan() == []
    assert scheduler.pool.free + scheduler.tree.evictable == 8


def test_when_pages_run_out_the_newest_comes_back_later_and_exactly():
    scheduler = scheduler_of(pages=6, budget=64, prefix_cache=False)
    old, new = submitted(scheduler, 7, 24), submitted(scheduler, 7, 24, first=50)
    while not scheduler.preemptions:
        works = step(scheduler)
    assert [work[0] for work in works] == [old], "the oldest goes on in the same step"
    assert (new.pages, new.computed, new.cached, scheduler.waiting.peek()) == ([], 0, 0, new)
    written = list(new.output)
    while len(old.output) < 17:
        assert [work[0] for work in step(scheduler)] == [old]
    scheduler.retire(old)
    assert step(scheduler) == [(new, 0, 7, "prefill")]
    assert new.output == written, "no token follows a prompt that is computed again"
    assert step(scheduler) == [(new, 7, len(written) - 1, "replay")]
    assert step(scheduler) == [(new, 7 + len(written) - 1, 1, "decode")]
    assert scheduler.preemptions == 1


def test_replay_keeps_to_the_budget():
    scheduler = scheduler_of(pages=6, budget=3)
    new = submitted(scheduler, 3, 20)
    for _ in range(9):
        step(scheduler)
    new.computed, rest = 3, new.length - 1
    starts = [kinds(step(scheduler)) for _ in range(3)]
    assert starts == [[(3, 3, "replay")], [(6, 3, "replay")], [(9, rest - 9, "replay")]]


def test_drafts_are_dropped_before_a_sequence_is():
    scheduler = scheduler_of(pages=4, prefix_cache=False)
    old, new = submitted(scheduler, 7, 16), submitted(scheduler, 7, 16, first=50)
    step(scheduler)
    old.drafts, new.drafts = [1, 1, 1], []
    assert kinds(step(scheduler)) == [(7, 1, "decode")] * 2
    assert scheduler.preemptions == 0


def test_drafts_get_a_page_of_their_own_at_a_page_border():
    scheduler = scheduler_of(size=4)
    a = submitted(scheduler, 6)
    step(scheduler)
    a.drafts = [1, 1, 1]
    assert kinds([tuple(work) for work in scheduler.plan()]) == [(6, 4, "decode")]  # type: ignore[misc]
    assert len(a.pages) == 3
    scheduler.advance(a, 10)
    scheduler.check()
    with pytest.raises(AssertionError, match="not 10 <= 13 <= 12"):
        scheduler.advance(a, 13)


def test_evicted_pages_serve_before_anybody_loses_theirs():
    scheduler = scheduler_of(pages=6)
    gone = submitted(scheduler, 12, 20)
    step(scheduler)
    scheduler.retire(gone)
    assert scheduler.tree.evictable == 3
    a = submitted(scheduler, 3, 24, first=50)
    for _ in range(20):
        step(scheduler)
    assert (len(a.pages), scheduler.preemptions, len(scheduler.tree)) == (6, 0, 0)


def test_blocks_behind_an_evicted_copy_enter_the_tree_again():
    """b computes a block that a computes too, and has its own page of it; a's is evicted while b goes on."""
    scheduler = scheduler_of(pages=10, budget=8)
    a, b = one(4, 5), one(16, 20)
    scheduler.submit([a])
    scheduler.submit([b])
    assert kinds(step(scheduler)) == [(0, 4, "prefill"), (0, 4, "prefill")]
    scheduler.retire(a)
    assert kinds(step(scheduler)) == [(4, 8, "prefill")]
    assert (len(scheduler.tree), scheduler.tree.evictable) == (3, 1)
    scheduler.tree.evict(1)
    scheduler.check()
    assert len(scheduler.tree) == 0
    step(scheduler)
    assert scheduler.tree.find(b.prompt, 16) == b.pages[:4]


def test_without_the_prefix_cache_nothing_is_shared():
    scheduler = scheduler_of(prefix_cache=False)
    for _ in range(2):
        sequence = submitted(scheduler, 12)
        step(scheduler)
        assert (sequence.cached, len(scheduler.tree)) == (0, 0)
        scheduler.retire(sequence)
    assert scheduler.pool.free == 100


def test_mistakes_of_the_engine_are_named():
    scheduler = scheduler_of(pages=4)
    with pytest.raises(AssertionError, match="a sequence of 5 pages for a pool of 4"):
        scheduler.submit([one(3, 17)])
    with pytest.raises(AssertionError, match="a prompt of 0"):
        scheduler.submit([one(0, 4)])
    a = submitted(scheduler, 3, 8)
    with pytest.raises(AssertionError, match="submitted twice"):
        scheduler.submit([a])
    with pytest.raises(AssertionError, match="does not run"):
        scheduler.advance(a, 1)
    for work in scheduler.plan():
        scheduler.advance(work.sequence, 3)
    with pytest.raises(AssertionError, match="what comes next"):
        scheduler.plan()


def test_work_is_a_plain_tuple():
    a = one(3)
    assert Work(a, 1, 2, "decode") == (a, 1, 2, "decode")
