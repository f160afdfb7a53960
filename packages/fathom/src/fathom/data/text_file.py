"""Text files as streams: decoded, with the byte offset of what is wrong in them, and cut where they are long.

A document is about one training row of the report's 4,096 tokens: a longer text is split at a blank line, so
that a book becomes documents that can be shuffled, packed, and in part held out. A shorter file stays whole.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from fathom.config.errors import DataError, need

DOCUMENT_CHARS = (
    16_384  # about 4,096 tokens, the report's sequence length (section 4.2), at 4 characters a token
)
CHUNK_BYTES = 1 << 20
_TO_UTF8 = "save it as UTF-8 text, or take it out of data.sources"


def decoded(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in parts, with line ends as "\\n"; .gz and .zst are decompressed on the way.

    errors   DataError naming the file and the byte, counted after decompression, where it is no UTF-8 text
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset = 0
    for chunk in _bytes(path):
        nul = chunk.find(0)
        need(nul < 0, f"{path} is not text: byte {offset + nul} is NUL", fix=_TO_UTF8, error=DataError)
        text = _decode(decoder, chunk, path, offset)
        yield newlines.decode(text.removeprefix("\ufeff") if offset == 0 else text)
        offset += len(chunk)
    yield newlines.decode(_decode(decoder, b"", path, offset), final=True)


def _decode(decoder: codecs.IncrementalDecoder, chunk: bytes, path: Path, offset: int) -> str:
    waiting = len(decoder.getstate()[0])  # bytes of a character that the last chunk began
    try:
        return decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        at = offset - waiting + error.start
        raise DataError(f"{path} is not UTF-8 text: byte {at} ({error.reason}). Fix: {_TO_UTF8}") from None


def lines(chunks: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in parts, without their ends."""
    begun: list[str] = []
    for chunk in chunks:
        first, *rest = chunk.split("\n")
        begun.append(first)
        if rest:
            yield "".join(begun)
            yield from rest[:-1]
            begun = [rest[-1]]
    if last := "".join(begun):
        yield last


def documents(chunks: Iterable[str]) -> Iterator[str]:
    """A text as documents that end at the first blank line after DOCUMENT_CHARS characters.

    Where no blank line comes for as long again, the cut is at the end of a line; a line that is longer than a
    document is cut at spaces.
    """
    held: list[str] = []
    size = 0
    for line in lines(chunks):
        if size + len(line) > 2 * DOCUMENT_CHARS or (size > DOCUMENT_CHARS and not line.strip()):
            yield from _joined(held)
            held, size = [], 0
        while len(line) > DOCUMENT_CHARS:
            cut = line.rfind(" ", 1, DOCUMENT_CHARS) + 1 or DOCUMENT_CHARS
            yield from _joined([*held, line[:cut]])
            held, size, line = [], 0, line[cut:]
        held.append(line)
        size += len(line) + 1
    yield from _joined(held)


def _joined(held: list[str]) -> Iterator[str]:
    text = "\n".join(held).strip("\n")
    if text.strip():
        yield text


def _bytes(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                yield from _chunks(gzip.GzipFile(fileobj=raw))
            elif path.suffix == ".zst":
                yield from _zstandard(raw)
            else:
                yield from _chunks(raw)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path} cannot be read: {reason}. Fix: check the file, or fetch it again") from error


def _chunks(file: io.BufferedIOBase | gzip.GzipFile) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _zstandard(raw: io.BufferedIOBase) -> Iterator[bytes]:
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    inside = False  # a frame has begun and not ended
    for chunk in _chunks(raw):
        while chunk:
            try:
                text = frame.decompress(chunk)
            except zstandard.ZstdError as error:
                raise OSError(f"not zstandard data ({error})") from None
            inside, chunk = not frame.eof, frame.unused_data
            if text:
                yield text
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
    if inside:
        raise EOFError("it ends in the middle of a zstandard frame")
