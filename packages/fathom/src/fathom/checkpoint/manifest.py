"""manifest.json: the size and SHA-256 of every file of a checkpoint, and of every tensor in it.

Headers and lengths say that a file is whole; only a hash says that no byte of it has changed since. Files are
read in pieces, never whole, and a few at a time (hashlib lets go of the interpreter's lock).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fathom.checkpoint.json_file import read_json, write_json
from fathom.config.errors import DataError, need

MANIFEST = "manifest.json"
FORMAT = 1
TENSORS = ".safetensors"
STATE = "state"  # the folder that only a run writes
PIECE = 1 << 20  # bytes read at a time
READERS = 4  # files read at a time
FIX = "use another checkpoint, or copy it again; if the change was meant, delete manifest.json"
NO_HEADER = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what parsing raises
log = logging.getLogger(__name__)


class Span(NamedTuple):
    """Where a tensor's bytes lie in its file; the header is the span without a name."""

    name: str
    start: int
    end: int


def write_manifest(folder: Path) -> None:
    """Write `folder`/manifest.json over every file below it; call it last.

    format   {"format": 1, "files": {"state/ema.safetensors": {"size": bytes, "sha256": hex, and of files of
             tensors "header": hex, "tensors": {name: hex}}}}, paths relative to `folder`
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(READERS) as pool:
        entries = list(pool.map(_describe, paths))
    names = [path.relative_to(folder).as_posix() for path in paths]
    write_json(folder / MANIFEST, {"format": FORMAT, "files": dict(zip(names, entries, strict=True))})


def outside_state(name: str) -> bool:
    """Whether a path inside a checkpoint is of the model, not of the run that made it."""
    return not name.startswith(f"{STATE}/")


def verify(folder: Path, *, only: Callable[[str], bool] = lambda name: True) -> bool:
    """Read every file of `folder` again (or those whose paths inside `only` picks) and compare.

    Files of tensors and JSON that the manifest does not name are damage too; others may have been added.

    returns   False if there is no manifest, as in other programs' folders; said aloud if a run wrote it
    errors    DataError that names the first file that differs, and the tensor in it (or its header)
    """
    files = read_manifest(folder)
    if files is None:
        if (folder / STATE).is_dir():
            log.warning("%s has no %s: what is in its files could not be checked", folder, MANIFEST)
        return False
    there = (path for path in folder.rglob("*") if path.suffix in (TENSORS, ".json") and path.is_file())
    for name in (path.relative_to(folder).as_posix() for path in there):
        named = name in files or name == MANIFEST or not only(name)
        need(named, f"{folder / name} is not in {MANIFEST}", fix=FIX, error=DataError)
    chosen = sorted(filter(only, files))
    with ThreadPoolExecutor(READERS) as pool:
        for _ in pool.map(lambda name: _compare(folder, name, files[name]), chosen):
            pass
    return True


def check_sizes(folder: Path) -> None:
    """The cheap part of `verify`: every file that the manifest names is there with its size."""
    for name, entry in (read_manifest(folder) or {}).items():
        _check_size(folder / name, entry)


def read_manifest(folder: Path) -> dict[str, dict[str, Any]] | None:
    """What the manifest says of each file; None if there is none, DataError if it is no manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    table = read_json(path)
    files = table.get("files")
    sound = isinstance(files, dict) and all(_is_entry(name, entry) for name, entry in files.items())
    need(
        sound and table.get("format") == FORMAT,
        f"{path} is not a manifest of format {FORMAT}",
        fix=FIX,
        error=DataError,
    )
    assert isinstance(files, dict)
    return files


def _is_entry(name: str, entry: Any) -> bool:
    path = PurePosixPath(name)
    inside = "\0" not in name and not path.is_absolute() and ".." not in path.parts
    return (
        inside
        and isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("header", ""), str)
        and isinstance(entry.get("tensors", {}), dict)
    )


def _describe(path: Path) -> dict[str, Any]:
    """The manifest's entry of one file, in one pass over it."""
    entry: dict[str, Any] = {"size": path.stat().st_size}
    if path.suffix != TENSORS:
        return entry | {"sha256": _digest(path)}
    whole = hashlib.sha256()
    parts: dict[str, Any] = {}
    for span, piece in _pieces(path):
        whole.update(piece)
        parts.setdefault(span.name, hashlib.sha256()).update(piece)
    hashes = {name: part.hexdigest() for name, part in parts.items()}
    return entry | {"sha256": whole.hexdigest(), "header": hashes.pop(""), "tensors": hashes}


def _compare(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """DataError unless the file is what `entry` says."""
    path = folder / name
    _check_size(path, entry)
    try:
        if _digest(path) == entry["sha256"]:
            return
        where = _altered(path, entry) if path.suffix == TENSORS else ""
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Fix: {FIX}") from error
    raise DataError(f"{path} is damaged: {where}its SHA-256 is not that of {MANIFEST}. Fix: {FIX}")


def _check_size(path: Path, entry: dict[str, Any]) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} is missing ({error.strerror}). Fix: {FIX}") from None
    if size == entry["size"]:
        return
    state = "truncated" if size < entry["size"] else "too long"
    lost = _first_beyond(path, size) if path.suffix == TENSORS else ""
    raise DataError(f"{path} is {state}{lost}: {size} bytes, not {entry['size']}. Fix: {FIX}")


def _altered(path: Path, entry: dict[str, Any]) -> str:
    """Which part of a file of tensors differs from its entry."""
    try:
        found = _describe(path)
    except NO_HEADER:
        return "its header cannot be read, and "
    if found["header"] != entry.get("header"):
        return "its header has changed, and "
    known = entry.get("tensors", {})
    differ = [name for name, digest in found["tensors"].items() if known.get(name) != digest]
    if not differ:
        return "no tensor in it has changed, but "
    more = f" and {len(differ) - 1} more tensors have" if len(differ) > 1 else " has"
    return f"{differ[0]}{more} changed, and "


def _first_beyond(path: Path, size: int) -> str:
    """The first tensor that a cut at `size` bytes reaches."""
    try:
        cut = next((span.name for span in _spans(path) if span.end > size), "")
    except NO_HEADER:
        return " in its header"
    return f" in {cut}" if cut else ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pieces(path: Path) -> Iterator[tuple[Span, bytes]]:
    """A file of tensors from its first byte to its last, in pieces that lie in one span each."""
    spans = _spans(path)
    with path.open("rb") as file:
        for span in spans:
            yield span, b""  # a tensor without elements has a hash too
            for start in range(span.start, span.end, PIECE):
                yield span, file.read(min(PIECE, span.end - start))


def _spans(path: Path) -> list[Span]:
    """Header and tensors in the order of their bytes; ValueError and its like if there is no such header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("the header is longer than its file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    begin = 8 + length
    tensors = [
        Span(name, *(begin + int(at) for at in entry["data_offsets"])) for name, entry in header.items()
    ]
    return [Span("", 0, begin), *sorted(tensors, key=lambda span: span[1:])]
