"""Pages of earlier prompts by the tokens they stand for: what begins alike is computed once.

A node is one full page. Latents at a position depend on all tokens up to there, so a node's key is a hash of
its parent's key and its own tokens, and a path from the root spells a prompt. The MTP module's latents depend
on the next token as well (report eq 21): pages that hold them are known by one token `beyond` their own.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Many
from hashlib import blake2b

from fathom.engine.pages import PagePool

KEY_BYTES = 16  # 128 bits; tokens are compared as well, so two blocks of one key cost a miss and no error
ROOT = b""  # the key of no tokens at all


class Node:
    """One page in the tree."""

    __slots__ = ("children", "key", "page", "parent", "tokens")

    def __init__(self, key: bytes, parent: Node | None, tokens: bytes, page: int) -> None:
        self.key, self.parent, self.tokens, self.page = key, parent, tokens, page
        self.children: set[Node] = set()


class PrefixTree:
    """Holds every page in it once. Those that nobody else holds are idle and may be evicted.

    Whoever took pages from `match` or gave some to `insert` returns them by `release`, else they never idle.
    Cost: O(1) per page, and O(tokens) to hash.
    """

    def __init__(self, pool: PagePool, page_size: int, beyond: int = 0) -> None:
        self.pool, self.page_size, self.beyond = pool, page_size, beyond
        self.hits = self.queries = 0  # tokens found, tokens looked for
        self.inserted = 0  # pages that ever entered: while it stands still, no more can be found than before
        self._root = Node(ROOT, None, b"", -1)
        self._nodes = {ROOT: self._root}
        self._by_page: dict[int, Node] = {}
        self._idle: OrderedDict[int, Node] = OrderedDict()  # by page, least recently used first

    def __len__(self) -> int:
        return len(self._by_page)

    def __iter__(self) -> Iterator[Node]:
        return iter(tuple(self._by_page.values()))

    @property
    def evictable(self) -> int:
        """Pages that only the tree holds; evict() can free each of them."""
        return len(self._idle)

    def idle(self, pages: Iterable[int]) -> int:
        """How many of these only the tree holds."""
        return sum(page in self._idle for page in pages)

    def find(self, tokens: Many[int], most: int) -> list[int]:
        """Pages of the longest known chain of full blocks within the first `most` tokens. Changes nothing."""
        size, node, pages = self.page_size, self._root, []
        for start in range(0, min(most, len(tokens) - self.beyond) // size * size, size):
            block = _bytes(tokens[start : start + size + self.beyond])
            child = self._nodes.get(block_key(node.key, block))
            if child is None or not _same(child, node, block):
                break
            pages.append(child.page)
            node = child
        return pages

    def key_of(self, pages: Many[int]) -> bytes:
        """The key of the last of these pages, all of the tree; that of no tokens if there are none."""
        return self._by_page[pages[-1]].key if pages else ROOT

    def hold(self, pages: Many[int], asked: int) -> None:
        """Share with the caller what find() found among `asked` tokens."""
        for page in pages:
            self.pool.share(page)
            self._idle.pop(page, None)
        self.queries += asked
        self.hits += len(pages) * self.page_size

    def match(self, tokens: Many[int], most: int) -> list[int]:
        """find(), each page shared with the caller."""
        pages = self.find(tokens, most)
        self.hold(pages, min(most, len(tokens)))
        return pages

    def insert(self, tokens: Many[int], pages: Many[int], after: bytes = ROOT) -> bytes | None:
        """Enter full pages, held by the caller, for `tokens` (and `beyond`) behind the block of key `after`.

        A block that is known keeps the page it has, and the caller keeps theirs. Returns the key of the last
        block, to continue from; None where that cannot be: `after` was evicted, or two blocks have one key.
        """
        size, node, filled = self.page_size, self._nodes.get(after), len(tokens) - self.beyond
        assert filled == len(pages) * size, f"{filled} tokens do not fill {len(pages)} pages of {size}"
        if node is None:
            return None
        for i, page in enumerate(pages):
            block = _bytes(tokens[i * size : (i + 1) * size + self.beyond])
            key = block_key(node.key, block)
            child = self._nodes.get(key)
            if child is None:
                child = self._enter(key, node, block, page)
            elif not _same(child, node, block):
                return None  # two blocks of one key: the first stays
            elif child.page in self._idle:
                self._idle.move_to_end(child.page)
            node = child
        return node.key

    def release(self, pages: Many[int]) -> None:
        """The caller, who held these pages of one sequence, holds them no more."""
        for page in reversed(pages):  # the end of a prompt is of less use than its beginning: it goes first
            self.pool.release(page)
            node = self._by_page.get(page)
            if node is not None and self.pool.count(page) == 1:
                self._idle[page] = node

    def evict(self, count: int) -> int:
        """Free `count` idle pages or more, least recently used first, or all there are. Returns how many.

        A node takes its descendants with it. As a rule it has none: who holds a page holds those before it
        and releases them later. But where two sequences computed one block at the same time, the second holds
        its own copy of it, and pages behind the first one's; these leave the tree and stay with their holder.
        """
        freed = 0
        while freed < count and self._idle:
            freed += self._drop(next(iter(self._idle.values())))
        return freed

    def clear(self) -> None:
        """Forget everything; pages that sequences hold stay theirs."""
        for child in tuple(self._root.children):
            self._drop(child)

    def _enter(self, key: bytes, parent: Node, block: bytes, page: int) -> Node:
        assert page not in self._by_page, f"page {page} is in the tree already, for other tokens"
        self.pool.share(page)
        node = Node(key, parent, block, page)
        parent.children.add(node)
        self._nodes[key] = self._by_page[page] = node
        self.inserted += 1
        return node

    def _drop(self, top: Node) -> int:
        """Take a node and its descendants out; returns the pages this frees."""
        assert top.parent is not None, "the root is no page"
        top.parent.children.discard(top)
        before, stack = self.pool.free, [top]
        while stack:
            node = stack.pop()
            stack.extend(node.children)
            self._idle.pop(node.page, None)
            del self._nodes[node.key], self._by_page[node.page]
            self.pool.release(node.page)
        return self.pool.free - before


def block_key(parent: bytes, block: bytes) -> bytes:
    """The key of a block: a hash of its tokens, as int64, and of all before them by the key of its parent."""
    return blake2b(parent + block, digest_size=KEY_BYTES).digest()


def _bytes(tokens: Many[int]) -> bytes:
    return array("q", tokens).tobytes()


def _same(child: Node, parent: Node, block: bytes) -> bool:
    return child.parent is parent and child.tokens == block
