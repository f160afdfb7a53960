"""Keys take turns, those who were preempted go before all, and nobody is lost."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.engine.queue import FairQueue
from fathom.engine.request import BusyError, SamplingParams
from fathom.engine.sequence import Sequence


def sequence(key: str, number: int = 0) -> Sequence:
    return Sequence(number, 0, key, (1, 2, 3), SamplingParams(), 10)


def queue_of(keys: str, bound: int = 1000) -> FairQueue:
    """One sequence per letter, numbered in the order they came."""
    queue = FairQueue(bound)
    for number, key in enumerate(keys):
        queue.push(sequence(key, number))
    return queue


def drained(queue: FairQueue) -> list[int]:
    return [queue.pop().request_id for _ in range(len(queue))]


def test_one_key_is_served_in_the_order_it_came():
    assert drained(queue_of("aaaa")) == [0, 1, 2, 3]


def test_keys_take_turns():
    assert drained(queue_of("aaabbc")) == [0, 3, 5, 1, 4, 2]


def test_one_request_beside_a_hundred_waits_one_turn():
    queue = queue_of("a" * 100 + "b")
    queue.pop()
    assert queue.pop().key == "b"


def test_a_key_that_comes_again_stands_behind_those_who_wait():
    queue = queue_of("ab")
    assert queue.pop().key == "a"
    queue.push(sequence("a"))
    queue.push(sequence("c"))
    assert [queue.pop().key for _ in range(3)] == ["b", "a", "c"]


def test_who_was_preempted_goes_first_and_costs_the_key_no_turn():
    queue = queue_of("aabb")
    old, new = sequence("b", 98), sequence("b", 99)
    queue.push_front(new)  # the newest loses its pages first
    queue.push_front(old)
    assert queue.peek() is old
    assert drained(queue) == [98, 99, 0, 2, 1, 3]


def test_siblings_stand_at_the_front_of_their_line_without_taking_the_turn():
    queue = queue_of("baa")
    queue.follow([sequence("a", 10), sequence("a", 11)])
    assert drained(queue) == [0, 10, 11, 1, 2]


def test_siblings_of_a_key_without_a_line_stand_behind_the_other_keys():
    queue = queue_of("bc")
    queue.follow([sequence("a", 10), sequence("a", 11)])
    assert drained(queue) == [0, 1, 10, 11]


def test_a_full_queue_says_so_in_one_line_and_takes_nobody():
    queue = queue_of("aab", bound=3)
    with pytest.raises(BusyError, match=r"^3 sequences wait .*max_waiting=3\. Fix: try again later$"):
        queue.push(sequence("c"))
    assert len(queue) == 3
    queue.push_front(sequence("c"))
    queue.follow([sequence("d")])
    assert len(queue) == 5, "these were let in before; no bound holds them back"
    with pytest.raises(BusyError):
        queue.push(sequence("a"))


def test_nobody_waits_in_an_empty_queue():
    queue = FairQueue(1)
    assert (queue.peek(), len(queue), list(queue)) == (None, 0, [])
    assert not queue.remove(sequence("a"))
    with pytest.raises(AssertionError, match="nobody waits"):
        queue.pop()


def test_nobody_waits_twice():
    queue, one = FairQueue(9), sequence("a")
    for first in (queue.push, queue.push_front, lambda s: queue.follow([s])):
        first(one)
        for again in (queue.push, queue.push_front, lambda s: queue.follow([s])):
            with pytest.raises(AssertionError, match="queued twice"):
                again(one)
        assert queue.remove(one) and len(queue) == 0


class SlowQueue:
    """The same order, said with lists."""

    def __init__(self) -> None:
        self.back: list[Sequence] = []
        self.lines: list[tuple[str, list[Sequence]]] = []

    def line(self, key: str) -> list[Sequence]:
        for name, line in self.lines:
            if name == key:
                return line
        self.lines.append((key, []))
        return self.lines[-1][1]

    def pop(self) -> Sequence:
        if self.back:
            return self.back.pop(0)
        key, line = self.lines.pop(0)
        first, *rest = line
        if rest:
            self.lines.append((key, rest))
        return first

    def remove(self, gone: Sequence) -> None:
        self.back = [s for s in self.back if s is not gone]
        lines = [(key, [s for s in line if s is not gone]) for key, line in self.lines]
        self.lines = [(key, line) for key, line in lines if line]

    def everyone(self) -> Iterable[Sequence]:
        return [*self.back, *(s for _, line in self.lines for s in line)]


moves = st.sampled_from(["push", "push", "push", "back", "follow", "pop", "remove"])


@given(st.lists(st.tuples(moves, st.integers(0, 3)), max_size=60), st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_the_order_is_that_of_plain_lists(steps: list[tuple[str, int]], bound: int):
    queue, slow = FairQueue(bound), SlowQueue()
    for number, (move, which) in enumerate(steps):
        one, two = (sequence("abcd"[which], 2 * number + i) for i in range(2))
        everyone = list(slow.everyone())
        if move == "push" and len(everyone) >= bound:
            with pytest.raises(BusyError):
                queue.push(one)
        elif move == "push":
            queue.push(one)
            slow.line(one.key).append(one)
        elif move == "back":
            queue.push_front(one)
            slow.back.insert(0, one)
        elif move == "follow":
            queue.follow([one, two])
            slow.line(one.key)[:0] = [one, two]
        elif everyone and move == "pop":
            first = queue.peek()
            assert first is queue.pop() is slow.pop()
        elif everyone and move == "remove":
            gone = everyone[which % len(everyone)]
            assert gone in queue and queue.remove(gone) and not queue.remove(gone)
            slow.remove(gone)
        queue.check()
        assert list(queue) == list(slow.everyone())
        assert len(queue) == len(list(queue))
    while len(queue):
        assert queue.pop() is slow.pop()
