"""The products as the report defines them, one run of 128 after the other: the oracle of every other backend.

C[m, n] = sum over runs k of scale_a[m, k] scale_b[n, k] sum_j a[m, k, j] b[n, k, j], inner sums in fp32 over
E4M3 numbers as they are, outer sums in fp32 too: tensor cores that keep 14 bits hand over to fp32 registers
every 128 (report section 3.3.2; the published kernel does the same).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.ops.fp8.tiles import (
    BLOCK,
    Quantized,
    dequantize_tiles,
    quantize_blocks,
    quantize_columns,
    quantize_tiles,
    tiles_to_columns,
)


def promoted_product(a_MK: Tensor, scale_MG: Tensor, b_NK: Tensor, scale_NG: Tensor) -> Tensor:
    """a b^T with fp32 promotion every 128 of K, G = ceil(K/128). -> float32 [M, N]."""
    c_MN = a_MK.new_zeros(len(a_MK), len(b_NK), dtype=torch.float32)
    for k, (scale_M, scale_N) in enumerate(zip(scale_MG.T, scale_NG.T, strict=True)):
        run = slice(k * BLOCK, (k + 1) * BLOCK)
        c_MN += (a_MK[:, run].float() @ b_NK[:, run].float().T) * (scale_M[:, None] * scale_N)
    return c_MN


def each(scale_AG: Tensor, count: int) -> Tensor:
    """The scale of every row of a matrix in blocks. [A, G] -> [count, G]."""
    return scale_AG.repeat_interleave(BLOCK, 0)[:count]


class Reference:
    """A `Backend` of plain PyTorch, for any device."""

    name = "FP8 reference"

    def tiles(self, x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
        """As `Backend`."""
        return quantize_tiles(x_ND, power_of_two=power_of_two)

    def columns(self, x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
        """As `Backend`."""
        return quantize_columns(x_ND, power_of_two=power_of_two)

    def tiles_to_columns(self, x: Quantized, *, power_of_two: bool = False) -> Quantized:
        """As `Backend`."""
        return tiles_to_columns(x, power_of_two=power_of_two)

    def blocks(self, w: Tensor) -> Quantized:
        """As `Backend`."""
        return quantize_blocks(w)

    def dequantize(self, x: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return dequantize_tiles(*x, dtype)

    def swiglu(
        self, g_RF: Tensor, u_RF: Tensor, weight_R: Tensor | None
    ) -> tuple[Quantized, Quantized, Quantized]:
        """As `Backend`."""
        h_RF = F.silu(g_RF.float()) * u_RF.float()
        if weight_R is not None:
            h_RF = h_RF * weight_R.float()[:, None]
        return self.tiles(g_RF), self.tiles(u_RF), self.tiles(h_RF)

    def forward(self, x: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return promoted_product(*x, w.q, each(w.scale, len(w.q))).to(dtype)

    def backward(self, dy: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return promoted_product(*dy, w.q.T, each(w.scale.T, w.q.shape[1])).to(dtype)

    def add_outer(self, into_YX: Tensor, dy: Quantized, x: Quantized) -> None:
        """As `Backend`."""
        into_YX += promoted_product(dy.q.T, dy.scale.T, x.q.T, x.scale.T)

    def grouped_forward(self, x: Quantized, w: Quantized, count_E: Tensor, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        pairs = zip(rows_of(x, count_E), _weights(w), strict=True)
        return torch.cat([self.forward(x_e, w_e, dtype) for x_e, w_e in pairs])

    def grouped_backward(self, dy: Quantized, w: Quantized, count_E: Tensor, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        pairs = zip(rows_of(dy, count_E), _weights(w), strict=True)
        return torch.cat([self.backward(dy_e, w_e, dtype) for dy_e, w_e in pairs])

    def add_grouped_outer(self, into_EYX: Tensor, dy: Quantized, x: Quantized, count_E: Tensor) -> None:
        """As `Backend`."""
        parts = zip(into_EYX, columns_of(dy, count_E), columns_of(x, count_E), strict=True)
        for into_YX, dy_e, x_e in parts:
            self.add_outer(into_YX, dy_e, x_e)


def rows_of(x: Quantized, count_E: Tensor) -> list[Quantized]:
    """Each expert's part of rows in tiles."""
    counts = count_E.tolist()
    return [Quantized(*part) for part in zip(x.q.split(counts), x.scale.split(counts), strict=True)]


def columns_of(x: Quantized, count_E: Tensor) -> list[Quantized]:
    """Each expert's part of columns in tiles: its rows are whole tiles."""
    counts = count_E.tolist()
    assert all(count % BLOCK == 0 for count in counts), f"rows of experts are not multiples of {BLOCK}"
    tiles = [count // BLOCK for count in counts]
    return [Quantized(*part) for part in zip(x.q.split(counts), x.scale.split(tiles), strict=True)]


def _weights(w: Quantized) -> list[Quantized]:
    return [Quantized(*part) for part in zip(*w, strict=True)]
