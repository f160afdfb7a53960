"""What always holds between pages, prefix tree and sequences. Slow: O(pages), for debugging and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence as Many

from fathom.engine.pages import PagePool
from fathom.engine.prefix import PrefixTree, block_key
from fathom.engine.sequence import Sequence


def check_pages(pool: PagePool, tree: PrefixTree, running: Many[Sequence], size: int) -> None:
    """Raise AssertionError unless every page is held by exactly those who know of it, and written by one."""
    holders = Counter(page for sequence in running for page in sequence.pages)
    holders.update(node.page for node in tree)
    for page in range(pool.total):
        count = pool.count(page)
        assert count == holders[page], f"page {page} counts {count} holders and has {holders[page]}"
    free = list(pool.unused())
    assert len(free) == len(set(free)) == pool.free, "a page is twice in the free list"
    unheld = {page for page in range(pool.total) if not holders[page]}
    assert set(free) == unheld, f"{set(free) ^ unheld} are either free and held, or neither"
    for sequence in running:
        pages, computed = sequence.pages, sequence.computed
        assert len(set(pages)) == len(pages), f"a page is twice in a sequence: {pages}"
        covered = len(pages) * size
        assert covered >= computed, f"pages cover {covered} positions, and {computed} are computed"
        assert sequence.cached <= computed, f"{sequence.cached} positions found, {computed} computed"
        shared = [page for page in pages[computed // size :] if pool.count(page) > 1]
        assert not shared, f"pages {shared} are shared and will be written"


def check_tree(tree: PrefixTree) -> None:
    """Raise AssertionError unless all nodes hang together, and those that only the tree holds are idle."""
    nodes = {node.key: node for node in tree}
    assert len(nodes) == len(tree), "two nodes have one key"
    for node in nodes.values():
        parent = node.parent
        assert parent is not None, f"page {node.page} has no parent"
        there = parent.parent is None or nodes.get(parent.key) is parent
        assert there, f"the parent of page {node.page} is gone"
        assert node in parent.children, f"page {node.page} is no child of its parent"
        right = node.key == block_key(parent.key, node.tokens)
        assert right, f"the key of page {node.page} is not its tokens'"
        lost = [child.page for child in node.children if nodes.get(child.key) is not child]
        assert not lost, f"page {node.page} has children that are gone: {lost}"
    idle = {node.page for node in nodes.values() if tree.pool.count(node.page) == 1}
    known = {page for page in idle if tree.idle([page])}
    assert idle == known and len(idle) == tree.evictable, f"{idle} are idle; the tree says {tree.evictable}"


def check_states(
    running: Many[Sequence], waiting: Many[Sequence], groups: Mapping[Sequence, Many[Sequence]]
) -> None:
    """Raise AssertionError unless every sequence is in one place, and holds pages only while it runs."""
    behind = [sequence for group in groups.values() for sequence in group]
    everyone = [*running, *waiting, *behind]
    assert len(everyone) == len(set(everyone)), "a sequence is in two places"
    for sequence in [*waiting, *behind]:
        assert not sequence.pages and not sequence.computed, "a sequence waits and holds pages"
    for sequence in everyone:
        final = sequence.computed >= len(sequence.prompt)
        assert final or not sequence.drafts, "drafts behind a prompt that is not computed"
    there = {*running, *waiting}
    for first, group in groups.items():
        assert group, "nobody waits behind the first of a request, and yet it is kept"
        assert first in there, "siblings wait behind a sequence that is gone"
        assert first.computed < len(first.prompt), "siblings wait behind a prompt that is computed"
