"""Every page is free or held, counted exactly, and never handed out twice."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.engine.pages import PagePool


def test_all_pages_are_handed_out_once_and_then_none():
    pool = PagePool(5)
    assert (pool.free, pool.total) == (5, 5)
    assert sorted(pool.take() for _ in range(5)) == [0, 1, 2, 3, 4]
    assert pool.free == 0
    with pytest.raises(IndexError):
        pool.take()
    assert [pool.count(page) for page in range(5)] == [1] * 5, "a refusal changes nothing"


def test_the_page_released_last_is_taken_first():
    pool = PagePool(4)
    for _ in range(4):
        pool.take()
    for page in (2, 0, 3):
        pool.release(page)
    assert [pool.take() for _ in range(3)] == [3, 0, 2]


def test_a_shared_page_is_free_when_all_have_released_it():
    pool = PagePool(2)
    page = pool.take()
    pool.share(page)
    pool.release(page)
    assert (pool.count(page), pool.free) == (1, 1)
    pool.release(page)
    assert (pool.count(page), pool.free) == (0, 2)


def test_a_free_page_is_neither_released_nor_shared():
    pool = PagePool(2)
    page = pool.take()
    pool.release(page)
    with pytest.raises(AssertionError, match="released more often"):
        pool.release(page)
    with pytest.raises(AssertionError, match="cannot be shared"):
        pool.share(page)
    assert sorted(pool.unused()) == [0, 1], "a refusal changes nothing"


@given(st.integers(1, 6), st.lists(st.tuples(st.sampled_from("tsr"), st.integers(0, 50)), max_size=80))
@settings(max_examples=150, deadline=None)
def test_the_counts_are_those_of_a_plain_list_of_holders(pages: int, moves: list[tuple[str, int]]):
    pool, held = PagePool(pages), []
    for move, which in moves:
        if move == "t" and pool.free:
            page = pool.take()
            assert page not in held
            held.append(page)
        elif move == "s" and held:
            page = held[which % len(held)]
            pool.share(page)
            held.append(page)
        elif move == "r" and held:
            pool.release(held.pop(which % len(held)))
        counts = Counter(held)
        assert [pool.count(page) for page in range(pages)] == [counts[page] for page in range(pages)]
        assert sorted(pool.unused()) == [page for page in range(pages) if not counts[page]]
        assert pool.free == pages - len(counts)
