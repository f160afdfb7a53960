"""The first reading of a source: which text is held out, and a sample for the tokenizer.

A document is held out by a hash of its text, so the same document has the same fate in every corpus. A source
of too few documents for that to come near the share, a single book for example, holds out the end of its
longest document.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

REMEMBERED = 1 << 26  # characters of a source that are kept in memory
TOO_MUCH = 4  # times the share: if the hashes hold out more, the end of one document is held out instead
SPACE = re.compile(r"\s")
SAMPLE_PIECE = 1 << 14  # characters; long documents are sampled in pieces


class Part(NamedTuple):
    """Some text and the split it belongs to."""

    split: str
    text: str


@dataclass(slots=True)
class Survey:
    """What the reading found, and the rule of the split that follows from it."""

    share: float  # of the text that is to be held out; 0 = none, or the source holds out its own
    documents: int = 0
    characters: int = 0
    bytes: int = 0
    hashed: int = 0  # characters of the documents whose hash says held out
    longest: tuple[int, int] = (0, 0)  # its length in characters and its hash
    texts: list[str] | None = field(default_factory=list)  # all of a small source, so as to read it only once

    def see(self, text: str) -> int:
        """Count one document; its hash, 64 bits."""
        raw = text.encode()
        digest = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
        self.documents += 1
        self.characters += len(text)
        self.bytes += len(raw)
        self.hashed += len(text) if self._by_hash(digest) else 0
        self.longest = max(self.longest, (len(text), digest))
        if self.texts is not None:
            self.texts.append(text)
        if self.characters > REMEMBERED:
            self.texts = None
        return digest

    def kept(self, length: int, digest: int) -> int:
        """How many of a document's first characters are for training."""
        most = min(TOO_MUCH * self.share, (1 + self.share) / 2) * self.characters
        if 0 < self.hashed <= most:
            return 0 if self._by_hash(digest) else length
        if self.share == 0 or (length, digest) != self.longest:
            return length
        return length - min(length // 2, max(1, round(self.share * self.characters)))

    def _by_hash(self, digest: int) -> bool:
        return digest < self.share * 2**64

    def split(self, text: str) -> Iterator[Part]:
        """The parts of one document; the end that is held out begins after a space."""
        digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        kept = self.kept(len(text), digest)
        if 0 < kept < len(text):
            border = SPACE.search(text, kept, (kept + len(text)) // 2)  # forward: the sample stops at `kept`
            kept = border.end() if border else kept
            kept = kept if text[:kept].strip() else len(text)
        for part in (Part("train", text[:kept]), Part("held_out", text[kept:])):
            if part.text.strip():
                yield part


class Scrap(NamedTuple):
    """A piece of a document in the sample; the smallest hashes stay."""

    rank: int  # minus the hash of the piece: the heap drops the largest hash first
    text: str
    start: int  # in its document
    length: int  # of its document
    digest: int  # of its document


@dataclass(slots=True)
class Sample:
    """At most `limit` characters drawn evenly from all training text; the same for any order of documents."""

    limit: int
    size: int = 0
    heap: list[Scrap] = field(default_factory=list)
    lost: int | None = None  # the best rank that was dropped; nothing at or below it may come in later

    def offer(self, text: str, digest: int) -> None:
        """Take part of a document, perhaps to drop it later."""
        for start in range(0, len(text), SAMPLE_PIECE):
            piece = text[start : start + SAMPLE_PIECE]
            raw = hashlib.blake2b(piece.encode(), digest_size=8, person=b"sample").digest()
            rank = -int.from_bytes(raw, "little")
            if self.lost is None or rank > self.lost:
                heapq.heappush(self.heap, Scrap(rank, piece, start, len(text), digest))
                self.size += len(piece)
        self.shrink(self.limit)

    def shrink(self, limit: int) -> None:
        """Keep at most `limit` characters (or one piece)."""
        self.limit = limit
        while self.size > self.limit and len(self.heap) > 1:
            dropped = heapq.heappop(self.heap)
            self.size -= len(dropped.text)
            self.lost = dropped.rank if self.lost is None else max(self.lost, dropped.rank)

    def texts(self, survey: Survey) -> Iterator[str]:
        """What was drawn, without the characters that `survey` holds out."""
        for scrap in sorted(self.heap, reverse=True):
            yield scrap.text[: max(0, survey.kept(scrap.length, scrap.digest) - scrap.start)]
