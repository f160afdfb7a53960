"""What makes FP8 matrices and multiplies them: one interface, several forms, one battery of tests for all.

Axes:  N rows (tokens)   X width in   Y width out   R rows sorted by expert   E experts   F inner width
Matrices in tiles and columns are `Quantized` as `fathom.ops.fp8.tiles` has them; their memory layout is the
backend's own affair.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fathom.ops.fp8.tiles import Quantized


class Backend(Protocol):
    """Quantisation and the three products of a linear map (report section 3.3.1, figure 6).

    Call `backward` with the same `Quantized` for one weight: what is made of it is kept with it. Numbers
    in columns may lie transposed in memory.

    Products of E4M3 numbers are summed along runs of 128, each run is multiplied by its two scales, and runs
    are summed in fp32 (section 3.3.2).
    """

    name: str  # for the log

    def tiles(self, x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
        """`quantize_tiles`."""
        ...

    def columns(self, x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
        """`quantize_columns`."""
        ...

    def tiles_to_columns(self, x: Quantized, *, power_of_two: bool = False) -> Quantized:
        """`tiles_to_columns`."""
        ...

    def blocks(self, w: Tensor) -> Quantized:
        """`quantize_blocks` of [Y, X], or of each matrix of [E, Y, X]."""
        ...

    def dequantize(self, x: Quantized, dtype: torch.dtype) -> Tensor:
        """`dequantize_tiles`."""
        ...

    def swiglu(
        self, g_RF: Tensor, u_RF: Tensor, weight_R: Tensor | None
    ) -> tuple[Quantized, Quantized, Quantized]:
        """g, u and h = SiLU(g) u weight, each in tiles; h is made of g and u as they come, in fp32."""
        ...

    def forward(self, x: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """Fprop: x W^T of x [N, X] in tiles and W [Y, X] in blocks. -> [N, Y] in `dtype`."""
        ...

    def backward(self, dy: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """Dgrad: dy W of dy [N, Y] in tiles and W [Y, X] in blocks. -> [N, X] in `dtype`."""
        ...

    def add_outer(self, into_YX: Tensor, dy: Quantized, x: Quantized) -> None:
        """Wgrad: add dy^T x, of dy [N, Y] and x [N, X] in columns, to `into`, float32 [Y, X]."""
        ...

    def grouped_forward(self, x: Quantized, w: Quantized, count_E: Tensor, dtype: torch.dtype) -> Tensor:
        """`forward` of rows sorted by expert with W [E, Y, X]. -> [R, Y].

        count_E   int64, rows of each expert, multiples of 128 that add up to R; the same in the next two
        """
        ...

    def grouped_backward(self, dy: Quantized, w: Quantized, count_E: Tensor, dtype: torch.dtype) -> Tensor:
        """`backward` of rows sorted by expert. -> [R, X]."""
        ...

    def add_grouped_outer(self, into_EYX: Tensor, dy: Quantized, x: Quantized, count_E: Tensor) -> None:
        """`add_outer` of every expert's rows to its part of `into`."""
        ...
