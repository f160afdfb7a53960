"""Tensors in safetensors files: written one at a time, checked before they are read.

Writing is done here rather than by the library so that one tensor at a time is brought to the CPU, and so
that a full disk is the system's own error. A file is 8 bytes of header length, a JSON header, and the bytes
of the tensors end to end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fathom.config.errors import DataError

MAX_HEADER = 100_000_000  # bytes; the format's own ceiling
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
SIZES = {name: dtype.itemsize for dtype, name in DTYPES.items()}
FIX = "copy the file again from where it came from, or use another checkpoint"


class Stored(NamedTuple):
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype] | None = None
) -> None:
    """Write `tensors`, any device and any strides; `dtypes` names those that are converted on the way."""
    cast = dtypes or {}
    kinds = {name: cast.get(name, tensor.dtype) for name, tensor in tensors.items()}
    # Widest first, so that every tensor starts at a multiple of its own item size.
    order = sorted(tensors, key=lambda name: (-kinds[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    start = 0
    for name in order:
        end = start + tensors[name].numel() * kinds[name].itemsize
        header[name] = {
            "dtype": DTYPES[kinds[name]],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            flat = tensors[name].detach().to("cpu", kinds[name]).contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


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
        spans = sorted((*entry["data_offsets"], name) for name, entry in entries.items())
        tensors = {name: Stored(entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
        end = 0
        for start, stop, name in spans:
            stored = tensors[name]
            width = SIZES.get(stored.dtype)
            if start != end or stop < start or (width and stop - start != width * math.prod(stored.shape)):
                raise ValueError(f"{name} does not lie where it should")
            end = stop
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is not a safetensors file, or its header is damaged ({why}). Fix: {FIX}"
        ) from error
    return tensors, end


class Reader:
    """Reads tensors by name from several files, each opened once; a context manager."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """`files` says which file holds which tensor."""
        self._files = files
        self._open: dict[Path, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, name: str) -> Tensor:
        """The tensor, perhaps still in the file: copy what must outlive the reader."""
        path = self._files[name]
        try:
            if path not in self._open:
                self._open[path] = self._stack.enter_context(safe_open(path, framework="pt"))
            tensor: Tensor = self._open[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: {name} cannot be read ({error}). Fix: {FIX}") from error
        return tensor


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file, in memory of their own."""
    names = read_header(path)
    with Reader(dict.fromkeys(names, path)) as reader:
        return {name: reader.read(name).clone() for name in names}
