"""Weights from one official layout into another, FP8 or not, a few rows at a time.

Memory does not grow with the model: what is held are some rows of one tensor, before and after.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fathom.checkpoint.fp8_blocks import F8, check_finite, is_scale, scale_name
from fathom.checkpoint.stream import Shard, write_index
from fathom.checkpoint.tensors import TORCH, Reader, Stored, Writer
from fathom.config.errors import DiskError
from fathom.ops.fp8.tiles import BLOCK, E4M3_MAX, dequantize_blocks, quantize_blocks

STRIP = 1 << 20  # elements converted at once: 4 MiB in fp32, and arithmetic needs a few of these
Told = Callable[[int, int], None]  # bytes written so far, bytes in all


def convert(
    source: Mapping[str, Stored], shards: Sequence[Shard], folder: Path, *, told: Told | None = None
) -> None:
    """Write `shards` and their index into `folder`, an existing one.

    source   where each weight comes from, under the name it is written with; scales beside those in FP8.
             FP8 stays as it is to the bit, or is dequantised; other floats are rounded, or quantised
    told     is called as the work goes on
    errors   DataError that names a weight with a NaN or an infinity; DiskError if there is no room
    """
    total, done = sum(shard.nbytes for shard in shards), 0
    _check_room(folder, total)
    with Reader(source) as reader:
        for shard in shards:
            with Writer(folder / shard.file, shard.kinds) as writer:
                for name, piece in _pieces(reader, source, shard):
                    writer.put(name, piece)
                    done += piece.nbytes
                    if told:
                        told(done, total)
    write_index(folder, shards)


def _pieces(reader: Reader, source: Mapping[str, Stored], shard: Shard) -> Iterator[tuple[str, Tensor]]:
    """The shard's tensors as they are to be written, piece by piece."""
    for name, kind in shard.kinds.items():
        if is_scale(name):  # comes with its weight
            continue
        stored = source[name]
        for first, last in _strips(stored.shape):
            piece = reader.rows(name, first, last)
            scale = None
            if stored.dtype == F8:
                scale = reader.rows(scale_name(name), first // BLOCK, -(-last // BLOCK))
            if kind.dtype == F8:
                piece, scale = _in_fp8(piece, scale, name, stored.path)
                yield scale_name(name), scale
            else:
                piece = _in_floats(piece, scale, TORCH[kind.dtype])
                check_finite(piece, name, stored.path)
            yield name, piece


def _in_fp8(piece: Tensor, scale: Tensor | None, name: str, path: Path) -> tuple[Tensor, Tensor]:
    """Rows in FP8, with finite values: as they are if they come with a scale, else quantised."""
    if scale is not None:
        check_finite(dequantize_blocks(piece, scale), name, path)
        return piece, scale
    q, scale = quantize_blocks(piece)
    check_finite((scale * E4M3_MAX).bfloat16(), name, path)  # the largest of each block
    return q, scale


def _in_floats(piece: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Rows in `dtype`, from FP8 if they come with a scale."""
    return piece.to(dtype) if scale is None else dequantize_blocks(piece, scale, dtype)


def _strips(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """First and last row, exclusive, of pieces of about STRIP elements, in whole blocks."""
    rows, width = shape[0], math.prod(shape[1:])
    step = max(1, STRIP // max(1, width) // BLOCK) * BLOCK
    return ((first, min(first + step, rows)) for first in range(0, rows, step))


def _check_room(folder: Path, needed: int) -> None:
    """DiskError now rather than hours later; another program may still fill the disk."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskError(
            f"{folder.parent} has {free / 1e9:,.1f} GB free, and the weights take {needed / 1e9:,.1f} GB. "
            f"Fix: free some space, or write to another disk"
        )
