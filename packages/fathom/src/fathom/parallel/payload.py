"""How rows of activations are written for a journey: as they are, in BF16, or as FP8 bytes (report 3.3.3).

A codec turns each row into one row of something else, so rows may be picked and reordered while written.

Axes:  N rows   D width   G tiles of a row, ceil(D/128)   W what one row is written as
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fathom.ops.fp8.tiles import BLOCK, E4M3, dequantize_tiles, quantize_tiles

SCALE_BYTES = 4  # of one fp32 scale


class Payload(Protocol):
    """A form in which rows travel."""

    def encode(self, x_ND: Tensor) -> Tensor:
        """What is sent for every row. [N, D] -> [N, W], any dtype."""
        ...

    def decode(self, sent_NW: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """The rows again, D = `width` wide. [N, W] -> [N, D] in `dtype`."""
        ...


class Plain:
    """Rows as they are: nothing is lost."""

    def encode(self, x_ND: Tensor) -> Tensor:
        """The rows."""
        return x_ND

    def decode(self, sent_NW: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """The rows."""
        assert sent_NW.shape[1] == width, f"rows of {sent_NW.shape[1]} came, {width} were expected"
        return sent_NW.to(dtype)


class BF16:
    """Rows in bfloat16: each element within 2**-8 of itself (the report's combine, section 3.3.3)."""

    def encode(self, x_ND: Tensor) -> Tensor:
        """Rounded to nearest."""
        return x_ND.bfloat16()

    def decode(self, sent_NW: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """Widened again."""
        return Plain().decode(sent_NW, width, dtype)


class FP8:
    """E4M3 bytes and a power of two for each 1 x 128 tile: D + 4G bytes a row (the report's dispatch)."""

    def encode(self, x_ND: Tensor) -> Tensor:
        """uint8 [N, D + 4G]."""
        return pack_rows(*quantize_tiles(x_ND, power_of_two=True))

    def decode(self, sent_NW: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """Each number times the scale of its tile, rounded once."""
        return dequantize_tiles(*unpack_rows(sent_NW, width), dtype)


def pack_rows(q_ND: Tensor, scale_NG: Tensor) -> Tensor:
    """Numbers, then scales, as bytes: one row of D + 4G for one message. -> uint8 [N, D + 4G]."""
    assert q_ND.dtype == E4M3 and scale_NG.dtype == torch.float32, f"{q_ND.dtype}, {scale_NG.dtype}"
    return torch.cat([q_ND.contiguous().view(torch.uint8), scale_NG.contiguous().view(torch.uint8)], 1)


def unpack_rows(sent_NW: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The inverse of `pack_rows` for rows of `width` numbers. -> float8_e4m3fn [N, D], float32 [N, G]."""
    bytes_in_row = width + SCALE_BYTES * -(-width // BLOCK)
    assert sent_NW.shape[1] == bytes_in_row, f"{sent_NW.shape[1]} bytes came, not {bytes_in_row}"
    scale_Ns = sent_NW[:, width:].clone(memory_format=torch.contiguous_format)  # to an aligned place
    return sent_NW[:, :width].contiguous().view(E4M3), scale_Ns.view(torch.float32)
