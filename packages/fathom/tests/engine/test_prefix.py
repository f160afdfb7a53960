"""The tree finds the longest known beginning, never a wrong one, and gives back exactly what nobody uses."""

from __future__ import annotations

from collections.abc import Sequence as Many

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.engine import prefix
from fathom.engine.invariants import check_tree
from fathom.engine.pages import PagePool
from fathom.engine.prefix import PrefixTree

SIZE = 2


def tree_of(pages: int = 16, beyond: int = 0) -> PrefixTree:
    return PrefixTree(PagePool(pages), SIZE, beyond)


def enter(tree: PrefixTree, tokens: Many[int]) -> list[int]:
    """Pages for these tokens, entered and still held by the caller."""
    pages = [tree.pool.take() for _ in range((len(tokens) - tree.beyond) // SIZE)]
    assert tree.insert(tokens, pages) is not None
    return pages


def leave(tree: PrefixTree, tokens: Many[int]) -> list[int]:
    """The same, and the caller is gone."""
    pages = enter(tree, tokens)
    tree.release(pages)
    return pages


def test_the_longest_chain_of_full_blocks_is_found():
    tree = tree_of()
    pages = leave(tree, [1, 2, 3, 4, 5, 6])
    assert tree.find([1, 2, 3, 4, 5, 6, 7], 99) == pages
    assert tree.find([1, 2, 3, 4, 9, 6], 99) == pages[:2]
    assert tree.find([1, 2, 3], 99) == pages[:1], "half a page is none"
    assert tree.find([9, 2, 3, 4], 99) == []
    assert tree.find([], 99) == []


@pytest.mark.parametrize(("most", "found"), [(6, 3), (5, 2), (4, 2), (1, 0), (0, 0)])
def test_no_more_is_found_than_asked_for(most: int, found: int):
    tree = tree_of()
    pages = leave(tree, [1, 2, 3, 4, 5, 6])
    assert tree.find([1, 2, 3, 4, 5, 6], most) == pages[:found]


def test_a_block_is_not_found_behind_other_blocks():
    tree = tree_of()
    leave(tree, [1, 2, 3, 4])
    assert tree.find([3, 4], 99) == []
    other = leave(tree, [5, 6, 3, 4])
    assert tree.find([5, 6, 3, 4], 99) == other


def test_what_is_matched_is_held_until_it_is_released():
    tree = tree_of(3)
    pages = leave(tree, [1, 2, 3, 4])
    assert tree.match([1, 2, 3, 4], 99) == pages
    assert [tree.pool.count(page) for page in pages] == [2, 2]
    assert (tree.evictable, tree.evict(9)) == (0, 0)
    tree.release(pages)
    assert tree.evictable == 2
    assert tree.evict(9) == 2
    assert (tree.pool.free, len(tree)) == (3, 0)


def test_a_known_block_keeps_its_page_and_the_caller_theirs():
    tree = tree_of()
    first, second = enter(tree, [1, 2, 3, 4]), enter(tree, [1, 2, 3, 4, 5, 6])
    assert tree.find([1, 2, 3, 4, 5, 6], 99) == [*first, second[2]]
    assert [tree.pool.count(page) for page in second] == [1, 1, 2]
    assert len(tree) == tree.inserted == 3
    tree.release(second)
    assert tree.pool.free == 16 - 3, "copies that are not in the tree are free"
    check_tree(tree)


def test_the_least_recently_used_leave_first_and_ends_before_beginnings():
    tree = tree_of()
    long, short = leave(tree, [1, 2, 3, 4, 5, 6]), leave(tree, [7, 8])
    assert tree.evict(1) == 1
    assert tree.find([1, 2, 3, 4, 5, 6], 99) == long[:2]
    tree.release(tree.match([1, 2, 3, 4], 99))  # now the other one was used longer ago
    tree.evict(1)
    assert (tree.find([7, 8], 99), tree.find([1, 2, 3, 4], 99)) == ([], long[:2])
    assert tree.pool.count(short[0]) == 0


def test_entering_what_is_known_counts_as_use():
    tree = tree_of()
    one = leave(tree, [1, 2])
    leave(tree, [3, 4])
    leave(tree, [1, 2])
    tree.evict(1)
    assert (tree.find([1, 2], 99), tree.find([3, 4], 99)) == (one, [])


def test_an_idle_block_leaves_even_if_a_running_sequence_holds_pages_behind_it():
    """Two computed one block: the tree has the first one's page, and behind it a page of the second one."""
    tree = tree_of(4)
    first, second = enter(tree, [1, 2]), enter(tree, [1, 2, 3, 4])
    tree.release(first)
    assert (tree.evictable, tree.pool.free) == (1, 1)
    assert tree.evict(1) == 1
    assert (len(tree), tree.pool.free) == (0, 2)
    assert [tree.pool.count(page) for page in second] == [1, 1], "what is held stays with its holder"
    check_tree(tree)
    tree.release(second)
    assert tree.pool.free == 4


def test_a_chain_can_be_continued_until_its_end_is_evicted():
    tree = tree_of()
    a, b = (tree.pool.take() for _ in range(2))
    key = tree.insert([1, 2], [a])
    assert key is not None
    last = tree.insert([3, 4], [b], key)
    assert tree.find([1, 2, 3, 4], 99) == [a, b]
    assert tree.key_of([a, b]) == last
    assert tree.key_of([]) == prefix.ROOT
    tree.release([a, b])
    tree.evict(1)
    entered = tree.inserted
    assert last is not None
    assert tree.insert([5, 6], [tree.pool.take()], last) is None
    assert tree.inserted == entered


def test_blocks_with_one_key_never_answer_for_each_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefix, "block_key", lambda parent, block: b"same")
    tree = tree_of()
    page = leave(tree, [1, 2])
    assert tree.find([3, 4], 99) == []
    other = tree.pool.take()
    assert tree.insert([3, 4], [other]) is None, "the first stays, and the chain ends"
    assert (tree.pool.count(other), tree.find([1, 2], 99), tree.find([3, 4], 99)) == (1, page, [])
    assert tree.find([1, 2, 1, 2], 99) == page, "nor does a block answer for itself at another place"


def test_hits_and_queries_count_tokens_of_matches_only():
    tree = tree_of()
    leave(tree, [1, 2, 3, 4])
    tree.find([1, 2, 3, 4], 4)
    assert (tree.hits, tree.queries) == (0, 0)
    tree.match([1, 2, 9, 9, 9], 4)
    tree.match([9, 9], 99)
    assert (tree.hits, tree.queries) == (2, 4 + 2)


def test_clear_forgets_all_and_leaves_holders_their_pages():
    tree = tree_of()
    leave(tree, [1, 2, 3, 4])
    held = enter(tree, [1, 2, 5, 6])
    tree.clear()
    assert (len(tree), tree.evictable, tree.find([1, 2], 99)) == (0, 0, [])
    assert tree.pool.free == 16 - 2
    tree.release(held)
    assert tree.pool.free == 16
    leave(tree, [1, 2])
    check_tree(tree)


def test_a_token_beyond_the_block_tells_blocks_apart():
    tree = tree_of(beyond=1)
    pages = leave(tree, [1, 2, 3, 4, 5])
    assert tree.find([1, 2, 3, 4, 5, 6], 99) == pages
    assert tree.find([1, 2, 3, 4, 9], 99) == pages[:1], "the second page has seen the 5"
    assert tree.find([1, 2, 3, 4], 99) == pages[:1], "nobody knows what follows"
    assert tree.find([1, 2, 3], 2) == pages[:1], "looking beyond is not asking for more"
    other = leave(tree, [1, 2, 3, 4, 9])
    assert tree.find([1, 2, 3, 4, 9], 99) == [pages[0], other[1]]


@pytest.mark.parametrize("tokens", [[1], [1, 2, 3]])
def test_pages_that_are_not_full_do_not_enter(tokens: list[int]):
    tree = tree_of()
    with pytest.raises(AssertionError, match="do not fill"):
        tree.insert(tokens, [tree.pool.take()])
    assert len(tree) == 0


def test_work_is_in_proportion_to_pages_and_not_to_what_the_tree_holds(hashed: list[bytes]):
    tree = tree_of(1000)
    key: bytes | None = prefix.ROOT
    for i in range(500):
        assert key is not None
        key = tree.insert([i, i], [tree.pool.take()], key)
    assert len(hashed) == 500, "to go on from a key hashes no block before it"
    hashed.clear()
    assert tree.find([7, 7, *range(1000)], 999) == []
    assert len(hashed) == 1, "the first unknown block ends the search"


alphabet = st.lists(st.integers(0, 1), min_size=1, max_size=9)
steps = st.lists(st.tuples(st.sampled_from("emlrvvc"), alphabet, st.integers(0, 9)), max_size=50)


@pytest.mark.parametrize("beyond", [0, 1])
@given(steps=steps)
@settings(max_examples=120, deadline=None)
def test_every_answer_spells_the_tokens_that_were_asked(beyond: int, steps: list[tuple[str, list[int], int]]):
    """Against memory that is really written: a page holds all that its positions depend on."""
    tree = tree_of(12, beyond)
    memory: dict[int, tuple[int, ...]] = {}
    holders: list[list[int]] = []
    for move, tokens, number in steps:
        count = (len(tokens) - beyond) // SIZE
        if move == "e" and tree.pool.free + tree.evictable >= count > 0:
            tree.evict(count - tree.pool.free)
            pages = [tree.pool.take() for _ in range(count)]
            memory |= {p: tuple(tokens[: (i + 1) * SIZE + beyond]) for i, p in enumerate(pages)}
            tree.insert(tokens[: count * SIZE + beyond], pages)
            assert len(tree.find(tokens, 99)) == count
            holders.append(pages)
        elif move in "ml":
            free, evictable = tree.pool.free, tree.evictable
            pages = tree.match(tokens, number)
            for i, page in enumerate(pages):
                assert memory[page] == tuple(tokens[: (i + 1) * SIZE + beyond])
            assert len(pages) * SIZE <= number
            assert (tree.pool.free, tree.evictable >= evictable - len(pages)) == (free, True)
            holders.append(pages)
        elif move == "r" and holders:
            tree.release(holders.pop(number % len(holders)))
        elif move == "v":
            free, evictable = tree.pool.free, tree.evictable
            freed = tree.evict(number)
            assert min(number, evictable) <= freed <= evictable
            assert (tree.pool.free, tree.evictable) == (free + freed, evictable - freed)
        elif move == "c" and number == 0:
            tree.clear()
        check_tree(tree)
        for pages in holders:
            assert all(tree.pool.count(page) for page in pages), "a page that is held was freed"
    for pages in holders:
        tree.release(pages)
    tree.evict(12)
    assert tree.pool.free == 12
