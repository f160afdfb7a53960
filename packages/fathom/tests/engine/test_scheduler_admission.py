"""Who is admitted, and when: turns of keys, siblings, pages and budget."""

from __future__ import annotations

import pytest
from scheduler_drive import kinds, one, scheduler_of, sequences, step, submitted

from fathom.engine.request import BusyError, RequestError


def test_no_more_run_than_may():
    scheduler = scheduler_of(max_running=2)
    a, b, c = (submitted(scheduler, 3, first=first) for first in (0, 10, 20))
    step(scheduler)
    assert scheduler.running == [a, b]
    scheduler.retire(a)
    step(scheduler)
    assert scheduler.running == [b, c]


def test_one_request_beside_a_hundred_is_admitted_within_one_turn():
    scheduler = scheduler_of(max_running=1)
    for first in range(100):
        submitted(scheduler, 3, key="many", first=first)
    alone = submitted(scheduler, 3, key="one", first=500)
    served = []
    while alone not in served:
        served += [work[0] for work in step(scheduler)]
        scheduler.retire(served[-1])
    assert len(served) == 2


def test_a_key_whose_first_answer_is_cancelled_keeps_its_turn():
    scheduler = scheduler_of(max_running=1)
    running = submitted(scheduler, 3, key="many")
    step(scheduler)
    group = sequences(3, n=2, key="one", first=500)
    scheduler.submit(group)
    for first in (10, 20):
        submitted(scheduler, 3, key="many", first=first)
    scheduler.retire(group[0])
    scheduler.retire(running)
    step(scheduler)
    assert scheduler.running == [group[1]]


def test_answers_to_one_prompt_wait_until_it_is_computed_and_then_share_it():
    scheduler = scheduler_of(budget=4)
    a, b, c = sequences(10, n=3)
    scheduler.submit([a, b, c])
    assert (scheduler.queued, len(scheduler.waiting)) == (3, 1)
    for start in (0, 4):
        assert step(scheduler) == [(a, start, 4, "prefill")]
    assert (scheduler.queued, scheduler.running) == (2, [a])
    assert step(scheduler) == [(a, 8, 2, "prefill")]
    assert step(scheduler) == [(a, 10, 1, "decode"), (b, 8, 2, "prefill"), (c, 8, 2, "prefill")]
    assert (scheduler.queued, b.cached, c.cached) == (0, 8, 8)
    assert a.pages[:2] == b.pages[:2] == c.pages[:2]


@pytest.mark.parametrize("when", ["waiting", "running", "preempted"])
def test_if_the_first_answer_is_cancelled_the_next_one_takes_its_part(when: str):
    scheduler = scheduler_of(pages=10, budget=4)
    submitted(scheduler, 3, 40, first=50)
    for _ in range(5):
        step(scheduler)
    a, b, c = sequences(28, 30, n=3)
    scheduler.submit([a, b, c])
    if when != "waiting":
        step(scheduler)
        assert a in scheduler.running
    while when == "preempted" and not scheduler.preemptions:
        step(scheduler)
    assert a.computed < 28
    scheduler.retire(a)
    scheduler.check()
    assert (scheduler.queued, len(scheduler.waiting), scheduler.waiting.peek()) == (2, 1, b)
    scheduler.retire(b)
    scheduler.check()
    assert (scheduler.queued, len(scheduler.waiting), scheduler.waiting.peek()) == (1, 1, c)
    scheduler.retire(c)
    assert scheduler.queued == 0


def test_the_next_in_line_is_not_overtaken_by_who_needs_less():
    scheduler = scheduler_of(pages=6)
    a, large = submitted(scheduler, 7, 12), submitted(scheduler, 18, 22, first=50)
    small = submitted(scheduler, 3, first=90)
    step(scheduler)
    for _ in range(4):
        step(scheduler)
    assert (scheduler.running, scheduler.waiting.peek()) == ([a], large)
    scheduler.retire(a)
    step(scheduler)
    assert scheduler.running == [large, small]


def test_what_enters_the_tree_lets_in_who_could_not_pay_for_it_all():
    scheduler = scheduler_of(pages=12)
    first, longer = submitted(scheduler, 24, 30), submitted(scheduler, 25, 32)
    step(scheduler)
    assert scheduler.running == [first], "7 pages are not free; but 6 of them have just been computed"
    step(scheduler)
    assert (scheduler.running, longer.cached) == ([first, longer], 24)


def test_a_prompt_that_fills_every_page_is_admitted():
    scheduler = scheduler_of(pages=2)
    submitted(scheduler, 8, 8)
    assert kinds(step(scheduler)) == [(0, 8, "prefill")]


def test_a_prompt_for_which_the_budget_is_spent_is_not_hashed(hashed: list[bytes]):
    scheduler = scheduler_of(budget=10)
    submitted(scheduler, 40)
    submitted(scheduler, 12, first=50)
    step(scheduler)
    assert len(hashed) == 1 + 2, "one block of the first prompt was looked for, and two entered"


def test_a_prompt_that_must_wait_is_not_hashed_every_step(hashed: list[bytes]):
    scheduler = scheduler_of(pages=11, size=4)
    first = submitted(scheduler, 24, 44)
    step(scheduler)
    waiting = submitted(scheduler, 40, 44)
    step(scheduler)
    counted = len(hashed)
    assert counted == 1 + 6 + 7, "a miss, and 6 pages that entered; then 6 found, and a miss"
    for _ in range(10):
        step(scheduler)
    assert len(hashed) == counted, "nothing was released or entered, so nothing is looked up"
    scheduler.retire(first)
    step(scheduler)
    assert (scheduler.running, waiting.cached) == ([waiting], 24)


def test_a_full_queue_takes_all_answers_of_a_request_or_none():
    scheduler = scheduler_of(max_waiting=4, max_running=1)
    scheduler.submit(sequences(5, n=2))
    late = sequences(5, n=3, first=50)
    with pytest.raises(BusyError, match=r"^2 sequences wait and 3 more .*=4\. Fix: try again later$"):
        scheduler.submit(late)
    assert scheduler.queued == 2
    step(scheduler)
    scheduler.submit(late)
    assert scheduler.queued == 4, "one runs; its sibling still counts"
    with pytest.raises(BusyError):
        scheduler.submit([one(5)])


def test_a_request_of_more_answers_than_may_ever_wait_is_refused_for_good():
    scheduler = scheduler_of(max_waiting=2)
    with pytest.raises(RequestError, match=r"3 sequences .*max_waiting=2\. Fix: ask for fewer"):
        scheduler.submit(sequences(5, n=3))
    assert not scheduler.busy
