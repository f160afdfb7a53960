"""Tensors in safetensors files: written and read piece by piece, checked before they are read.

Reading and writing are done here rather than by the library so that memory is what is asked for and no more
(a mapped file counts as memory), and so that a full disk is the system's own error. A file is 8 bytes of
header length, a JSON header, and the bytes of the tensors end to end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fathom.config.errors import DataError, plain

MAX_HEADER = 100_000_000  # bytes; the format's own ceiling
MAX_ELEMENTS = 2**62  # above it, sizes are no longer whole numbers of the machine
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
TORCH = {name: dtype for dtype, name in DTYPES.items()}
FIX = "copy the file again from where it came from, or use another checkpoint"


class Kind(NamedTuple):
    """What a tensor looks like in a file."""

    dtype: str  # a value of DTYPES
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * TORCH[self.dtype].itemsize


class Stored(NamedTuple):
    """What a header says of one tensor, and where its data is."""

    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int  # of its first byte in the file


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype] | None = None
) -> None:
    """Write `tensors`, any device and any strides; `dtypes` names those that are converted on the way."""
    cast = dtypes or {}
    kinds = {
        name: Kind(DTYPES[cast.get(name, tensor.dtype)], tuple(tensor.shape))
        for name, tensor in tensors.items()
    }
    with Writer(path, kinds) as writer:
        for name in writer.order:
            writer.put(name, tensors[name])


class Writer:
    """Writes one file of tensors whose kinds are known, each from its first piece to its last; in any order.

    A context manager. What is given must be all that was announced: anything else is an author's mistake.
    """

    def __init__(self, path: Path, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds
        # Widest first, so that every tensor starts at a multiple of its own item size.
        self.order = sorted(kinds, key=lambda name: (-TORCH[kinds[name].dtype].itemsize, name))
        head, spans = _head(kinds, self.order)
        self._at = {name: len(head) + start for name, (start, _) in spans.items()}
        self._end = {name: len(head) + end for name, (_, end) in spans.items()}
        self._file = path.open("wb")
        self._file.write(head)

    def put(self, name: str, piece: Tensor) -> None:
        """Write the next piece of `name`, in the dtype that was announced."""
        flat = piece.detach().to("cpu", TORCH[self._kinds[name].dtype]).contiguous().reshape(-1)
        self._file.seek(self._at[name])
        self._at[name] += self._file.write(flat.view(torch.uint8).numpy().data)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        assert error or self._at == self._end, f"ends {self._at}, announced {self._end}"


def _head(kinds: Mapping[str, Kind], order: list[str]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The bytes before the data, and first and last byte of each tensor from there."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    spans, start = {}, 0
    for name in order:
        spans[name] = (start, start + kinds[name].nbytes)
        header[name] = {**kinds[name]._asdict(), "data_offsets": spans[name]}
        start = spans[name][1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, spans


def read_header(path: Path) -> dict[str, Stored]:
    """Names, dtypes and shapes in `path`; DataError unless header and file agree to the byte."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(8)
            length = int.from_bytes(start, "little")
            text = file.read(length) if len(start) == 8 and length <= min(size - 8, MAX_HEADER) else None
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Fix: {FIX}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Fix: {FIX}") from error
    if start == b"version ":
        raise DataError(f"{path} is a Git LFS pointer, not the weights. Fix: fetch them with `git lfs pull`")
    if text is None:
        why = "its header is too large" if size - 8 >= length else "too short for its header"
        raise DataError(f"{path} is truncated or not a safetensors file ({why}). Fix: {FIX}")
    tensors, promised = _parse(path, text)
    if size != 8 + length + promised:
        state = "truncated" if size < 8 + length + promised else "too long"
        raise DataError(
            f"{path} is {state}: {size} bytes where its header promises {8 + length + promised}. Fix: {FIX}"
        )
    return tensors


def _parse(path: Path, text: bytes) -> tuple[dict[str, Stored], int]:
    """The tensors of a header, and how many bytes of data they take; they must lie end to end."""
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = {name: _entry(path, 8 + len(text), name, entry) for name, entry in entries.items()}
        end = 0
        for start, stop, name in sorted((*entry["data_offsets"], name) for name, entry in entries.items()):
            if start != end:
                raise ValueError(f"{plain(name)} does not lie where it should")
            end = stop
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is not a safetensors file, or its header is damaged ({why}). Fix: {FIX}"
        ) from error
    return tensors, end


def _entry(path: Path, data: int, name: str, entry: dict[str, Any]) -> Stored:
    """One tensor of a header; `data` is where the file's data begins."""
    (start, stop), shape, dtype = entry["data_offsets"], tuple(entry["shape"]), entry["dtype"]
    whole = all(type(n) is int and n >= 0 for n in (start, stop, *shape)) and isinstance(dtype, str)
    if not (whole and start <= stop and math.prod(n or 1 for n in shape) <= MAX_ELEMENTS):
        raise ValueError(f"{plain(name)} has no sound place or shape")
    if dtype in TORCH and stop - start != Kind(dtype, shape).nbytes:
        raise ValueError(f"{plain(name)} has {stop - start} bytes for {dtype} {list(shape)}")
    return Stored(dtype, shape, path, data + start)


class Reader:
    """Reads tensors by name, whole or some rows of them, into memory of their own; a context manager.

    One file is open at a time, whatever the number of shards.
    """

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        """`stored` says where each tensor is, as `read_header` does."""
        self._stored = stored
        self._file: FileIO | None = None
        self._path: Path | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, name: str) -> Tensor:
        """The whole tensor; DataError if its file cannot be read, or no longer is what it was."""
        stored = self._stored[name]
        return self._fill(name, stored.shape, 0)

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Rows `first` to `last`, exclusive, of a tensor with at least one axis. Errors as `read`."""
        shape = self._stored[name].shape
        return self._fill(name, (last - first, *shape[1:]), first * math.prod(shape[1:]))

    def _fill(self, name: str, shape: tuple[int, ...], skip: int) -> Tensor:
        stored = self._stored[name]
        if stored.dtype not in TORCH:
            raise DataError(f"{stored.path}: {name} is {plain(stored.dtype)}, which is not read. Fix: {FIX}")
        tensor = torch.empty(shape, dtype=TORCH[stored.dtype])
        left = tensor.reshape(-1).view(torch.uint8).numpy().data
        try:
            file = self._open(stored.path)
            file.seek(stored.start + skip * tensor.itemsize)
            while left:  # the system reads at most 2 GiB at once
                got = file.readinto(left)
                if not got:
                    raise DataError(f"{stored.path} ends inside {name}: it has changed. Fix: {FIX}")
                left = left[got:]
        except OSError as error:
            raise DataError(f"{stored.path}: {name} cannot be read ({error.strerror}). Fix: {FIX}") from error
        return tensor

    def _open(self, path: Path) -> FileIO:
        if self._file is None or path != self._path:
            if self._file is not None:
                self._file.close()
            self._file, self._path = path.open("rb", buffering=0), path
        return self._file


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file, in memory of their own."""
    stored = read_header(path)
    with Reader(stored) as reader:
        return {name: reader.read(name) for name in stored}
