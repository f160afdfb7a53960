"""Which pages of the latent cache are in use, and by how many. The tensors live with the forward pass."""

from __future__ import annotations

from collections.abc import Iterable


class PagePool:
    """`total` pages with a count of holders each; a page that nobody holds is free."""

    def __init__(self, num_pages: int) -> None:
        assert num_pages > 0, f"a pool of {num_pages} pages"
        self._holders = [0] * num_pages
        self._free = list(range(num_pages))[::-1]  # the last is next: memory that was just read or written

    @property
    def total(self) -> int:
        """Pages, free or not."""
        return len(self._holders)

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def count(self, page: int) -> int:
        """How many hold this page; 0 = free."""
        return self._holders[page]

    def unused(self) -> Iterable[int]:
        """The free pages; what take() returns next comes last."""
        return tuple(self._free)

    def take(self) -> int:
        """A free page, held once from now on. Error: IndexError if there is none; ask `free` first."""
        page = self._free.pop()
        assert self._holders[page] == 0, f"page {page} is free and held by {self._holders[page]}"
        self._holders[page] = 1
        return page

    def share(self, page: int) -> None:
        """Hold a page that is held already once more."""
        assert self._holders[page] > 0, f"page {page} is free; it cannot be shared"
        self._holders[page] += 1

    def release(self, page: int) -> None:
        """Hold a page once less; the last holder frees it."""
        assert self._holders[page] > 0, f"page {page} is released more often than held"
        self._holders[page] -= 1
        if not self._holders[page]:
            self._free.append(page)
