"""A corpus on disk: files of tokens that are mapped into memory, each with the borders of its documents.

One shard is one little-endian file: a header of 64 bytes, the tokens (uint16 where the vocabulary fits, else
uint32), zeros up to a multiple of 8, and the borders of its documents (int64, from 0 to tokens, one more than
documents). The header is written last, so a shard that was not finished is not a shard.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from fathom.config.errors import DataError

MAGIC, VERSION = b"fathomTK", 1
# Magic, version, bytes per token, tokens, documents, CRC-32 of the tokens, CRC-32 of the borders.
HEADER = struct.Struct("<8sIIqqII")
HEADER_BYTES = 64
CHECKED_BYTES = 256 << 20  # up to this size, opening a shard reads all of it once (about 0.2 s)
SHARD_TOKENS = 1 << 28  # a source goes on in a new file after this many tokens
_FIX = "build the corpus again with `fathom data build`, or copy the file again"


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class ShardWriter:
    """Write one shard document by document; memory grows by 8 bytes a document."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        self.path, self._dtype = path, token_dtype(vocab_size)
        self._borders, self._crc = [0], 0
        self._file: BinaryIO = path.open("wb")
        self._file.write(bytes(HEADER_BYTES))

    @property
    def tokens(self) -> int:
        """Tokens written so far."""
        return self._borders[-1]

    def add(self, ids: Sequence[int] | np.ndarray) -> None:
        """Append one document."""
        raw = np.asarray(ids, dtype=self._dtype).tobytes()
        self._file.write(raw)
        self._crc = zlib.crc32(raw, self._crc)
        self._borders.append(self._borders[-1] + len(ids))

    def close(self) -> None:
        """Finish the shard and bring it to the disk."""
        borders = np.array(self._borders, dtype="<i8").tobytes()
        self._file.write(bytes(-(self.tokens * self._dtype.itemsize) % 8))
        self._file.write(borders)
        self._file.seek(0)
        counts = (self._dtype.itemsize, self.tokens, len(self._borders) - 1)
        self._file.write(HEADER.pack(MAGIC, VERSION, *counts, self._crc, zlib.crc32(borders)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close the file without a header: nobody will take it for a shard."""
        with contextlib.suppress(OSError):  # the disk that was full for the last write is full for this one
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard, open: token_N and border_D1 live in the file, not in memory."""

    token_N: np.ndarray
    border_D1: np.ndarray

    @classmethod
    def open(cls, path: Path, *, full: bool | None = None) -> Shard:
        """Map a shard; DataError names the file when it is cut short or damaged.

        Length and borders are always checked; the tokens' checksum if `full`, by default up to CHECKED_BYTES.
        """
        try:
            raw = np.memmap(path, mode="r", dtype=np.uint8)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read the shard {path} ({error}). Fix: {_FIX}") from None
        if len(raw) < HEADER_BYTES or bytes(raw[: len(MAGIC)]) != MAGIC:
            raise DataError(f"{path} is not a finished shard. Fix: {_FIX}")
        _, version, itemsize, tokens, documents, crc_tokens, crc_borders = HEADER.unpack_from(raw.data)
        if version != VERSION or itemsize not in (2, 4):
            raise DataError(f"{path} has the shard format {version}, not {VERSION}. Fix: {_FIX}")
        stop = HEADER_BYTES + tokens * itemsize
        borders = stop + -(tokens * itemsize) % 8
        size = borders + 8 * (documents + 1)
        if len(raw) != size:
            raise DataError(f"{path} has {len(raw):,} bytes, not {size:,}. Fix: {_FIX}")
        check_tokens = len(raw) <= CHECKED_BYTES if full is None else full
        sound = zlib.crc32(raw[borders:].data) == crc_borders
        if not sound or (check_tokens and zlib.crc32(raw[HEADER_BYTES:stop].data) != crc_tokens):
            raise DataError(f"{path} is damaged: its checksum does not match. Fix: {_FIX}")
        return cls(raw[HEADER_BYTES:stop].view(f"<u{itemsize}"), raw[borders:].view("<i8"))


class SeriesWriter:
    """Write the documents of one source and one split to as many shards as they need."""

    def __init__(self, folder: Path, stem: str, vocab_size: int, *, shard_tokens: int = SHARD_TOKENS) -> None:
        self._folder, self._stem, self._vocab_size, self._limit = folder, stem, vocab_size, shard_tokens
        self._open: ShardWriter | None = None
        self.files: list[str] = []
        self.documents = self.tokens = 0

    def add(self, ids: Sequence[int] | np.ndarray) -> None:
        """Append one document, in a new shard when the last one is full."""
        if self._open is not None and self._open.tokens + len(ids) > self._limit:
            self.close()
        if self._open is None:
            self.files.append(f"{self._stem}-{len(self.files):05d}.tokens")
            self._open = ShardWriter(self._folder / self.files[-1], self._vocab_size)
        self._open.add(ids)
        self.documents += 1
        self.tokens += len(ids)

    def close(self) -> None:
        """Finish the shard that is open."""
        if self._open is not None:
            self._open.close()
        self._open = None

    def abandon(self) -> None:
        """Let go of the shard that is open, unfinished."""
        if self._open is not None:
            self._open.abandon()
        self._open = None


class Series:
    """Some shards read as one sequence of documents."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = list(shards)
        self.length_D = np.concatenate([np.zeros(0, np.int64), *(np.diff(s.border_D1) for s in self._shards)])
        self._end_S = np.cumsum([len(s.border_D1) - 1 for s in self._shards])

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.length_D.sum())

    def piece(self, document: int, start: int, length: int) -> np.ndarray:
        """`length` ids of one document from its token `start` on; a view of the file."""
        number = int(np.searchsorted(self._end_S, document, side="right"))
        shard = self._shards[number]
        first = int(self._end_S[number]) - (len(shard.border_D1) - 1)
        offset = int(shard.border_D1[document - first]) + start
        return shard.token_N[offset : offset + length]
