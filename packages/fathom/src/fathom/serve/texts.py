"""What tokens say: alone, joined, and where each begins in the joined text.

A token may hold only a part of a character. Its text is raw then: bytes that are no character stand as
Python's surrogate escapes, so that raw texts can be joined before anybody reads them.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from fathom.serve.wire import Link


def raw_bytes(raw: str) -> bytes:
    """What a raw text stands for."""
    return raw.encode("utf-8", "surrogateescape")


def shown(raw: str) -> str:
    """A raw text as people may see it: what is no character becomes U+FFFD."""
    return raw if raw.isascii() else raw_bytes(raw).decode("utf-8", "replace")


def _may_begin(data: bytes) -> bool:
    """Whether a text may begin with these bytes; else what was begun of a character is none."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


class Texts:
    """The raw text of each token, asked for once; no more are held than the vocabulary has."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[int, str] = {}

    async def fetch(self, ids: Iterable[int]) -> None:
        """Ask for those that are not known yet."""
        missing = sorted(set(ids) - self._known.keys())
        if missing:
            self._known.update(zip(missing, await self._link.decode(missing), strict=True))

    def raw(self, token: int) -> str:
        """One that was fetched."""
        return self._known[token]

    def __getitem__(self, token: int) -> str:
        """One that was fetched, as people may see it alone."""
        return shown(self._known[token])

    def joined(self, ids: Iterable[int]) -> str:
        """The text of all of them together; each was fetched."""
        return shown("".join(self._known[token] for token in ids))


class Offsets:
    """Where each token of a text begins, in characters; one inside a character begins where that does."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = 0

    def next(self, raw: str) -> int:
        """Of the next token."""
        data, begun = raw_bytes(raw), self._decoder.getstate()[0]
        broken = begun != b"" and not _may_begin(begun + data[:1])
        offset = self._length + broken  # by the sign that stands for what was begun
        self._length += len(self._decoder.decode(data))
        return offset

    def cut(self) -> None:
        """The text ends here, and what follows is decoded anew."""
        self._length += len(self._decoder.decode(b"", True))
        self._decoder.reset()
