"""Products of what FP8 numbers stand for, as wholes, in the numbers that the machine is fast in: for CPUs.

It differs from the reference by the order of sums, and where the machine multiplies bf16 by their rounding:
scales of fp32 times E4M3 are rounded to 8 bits then.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fathom.ops.fp8.reference import Reference
from fathom.ops.fp8.tiles import BLOCK, Quantized
from fathom.ops.matmul import multiplies_bf16

EXPONENTS = 2.0**120  # between those of E4M3, with 7 in the middle, and of fp32, with 127


class Cpu(Reference):
    """A `Backend` of whole products."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        """`dtype` of the products; by default bf16 where the machine has instructions for it, else fp32."""
        self.dtype = dtype or (torch.bfloat16 if multiplies_bf16() else torch.float32)
        self.name = f"FP8 multiplied as {'bf16' if self.dtype == torch.bfloat16 else 'fp32'}"

    def dequantize(self, x: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return _spread(x, 1, BLOCK).to(dtype)

    def tiles_to_columns(self, x: Quantized, *, power_of_two: bool = False) -> Quantized:
        """As `Backend`."""
        return self.columns(_spread(x, 1, BLOCK), power_of_two=power_of_two)

    def forward(self, x: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return (self._rows(x) @ self._blocks(w).T).to(dtype)

    def backward(self, dy: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return (self._rows(dy) @ self._blocks(w)).to(dtype)

    def add_outer(self, into_YX: Tensor, dy: Quantized, x: Quantized) -> None:
        """As `Backend`."""
        self._add(into_YX, self._columns(dy), self._columns(x))

    def grouped_forward(self, x: Quantized, w: Quantized, count_E: Tensor, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return self._grouped(self._rows(x), self._blocks(w).transpose(1, 2), count_E).to(dtype)

    def grouped_backward(self, dy: Quantized, w: Quantized, count_E: Tensor, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return self._grouped(self._rows(dy), self._blocks(w), count_E).to(dtype)

    def add_grouped_outer(self, into_EYX: Tensor, dy: Quantized, x: Quantized, count_E: Tensor) -> None:
        """As `Backend`."""
        counts = count_E.tolist()
        parts = zip(into_EYX, self._columns(dy).split(counts), self._columns(x).split(counts), strict=True)
        for into_YX, dy_rY, x_rX in parts:
            if len(dy_rY):
                self._add(into_YX, dy_rY, x_rX)

    def _grouped(self, x_RX: Tensor, w_EXY: Tensor, count_E: Tensor) -> Tensor:
        y_RY = x_RX.new_empty(len(x_RX), w_EXY.shape[2])
        counts = count_E.tolist()
        for x_rX, w_XY, y_rY in zip(x_RX.split(counts), w_EXY, y_RY.split(counts), strict=True):
            if len(x_rX):
                torch.mm(x_rX, w_XY, out=y_rY)
        return y_RY

    def _add(self, into_YX: Tensor, dy_NY: Tensor, x_NX: Tensor) -> None:
        if dy_NY.dtype == into_YX.dtype:
            into_YX.addmm_(dy_NY.T, x_NX)
        else:
            into_YX += dy_NY.T @ x_NX

    def _rows(self, x: Quantized) -> Tensor:
        return _spread(x, 1, BLOCK).to(self.dtype)

    def _columns(self, x: Quantized) -> Tensor:
        return _spread(x, BLOCK, 1).to(self.dtype)

    def _blocks(self, w: Quantized) -> Tensor:
        return _spread(w, BLOCK, BLOCK).to(self.dtype)


def _spread(x: Quantized, rows: int, columns: int) -> Tensor:
    """Numbers times their scales. -> float32, of the shape of `x.q`."""
    y_RC = widen(x.q)
    R, C = y_RC.shape[-2:]
    if R % rows == 0 and C % columns == 0:
        y_RC.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows)).mul_(x.scale[..., :, None, :, None])
        return y_RC
    scale = x.scale.repeat_interleave(rows, -2)[..., :R, :] if rows > 1 else x.scale
    scale = scale.repeat_interleave(columns, -1)[..., :C] if columns > 1 else scale
    return y_RC.mul_(scale)


def widen(q: Tensor) -> Tensor:
    """E4M3 as float32, at a tenth of the cast's time: the bits moved to their places, then the exponent.

    A NaN becomes 480; its tile has a scale that is NaN. q [...] -> float32 [...].
    """
    bits = q.contiguous().view(torch.int8).to(torch.int32)  # the sign fills what is above it
    return bits.bitwise_left_shift_(20).bitwise_and_(~0x78000000).view(torch.float32).mul_(EXPONENTS)
