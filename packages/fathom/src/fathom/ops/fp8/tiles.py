"""Matrices as E4M3 numbers, one scale for each tile of 128 numbers or block of 128 x 128 (report 3.3.2).

Scales are online: of this matrix alone, its largest magnitude in a tile at 448. Ragged edges are tiles too.

Axes:  N rows (tokens)   D columns (channels)
       G tiles of a row, ceil(D/128)   T tiles of a column, ceil(N/128)
       R, C rows and columns of a weight   A, B its blocks, ceil(R/128) and ceil(C/128)
Weights may be stacks of matrices, [..., R, C], quantised one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128  # numbers that share a scale, along an axis (report section 3.3.2)
E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0  # largest finite E4M3; the format has a NaN and no infinity
SMALLEST_SCALE = torch.finfo(torch.float32).tiny  # below it, dividing by the scale is no longer exact enough


class Quantized(NamedTuple):
    """A matrix in FP8."""

    q: Tensor  # float8_e4m3fn, of the matrix's shape
    scale: Tensor  # float32, one for each tile: what q is multiplied by to get the matrix back


def quantize_tiles(x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
    """Rows in 1 x 128 tiles: activations and their gradients where channels are summed over.

    x_ND          [N, D], any float dtype and size; the last tile of a row may be ragged
    power_of_two  scales rounded up to powers of two before anything is divided by them: tiles that are cut
                  another way afterwards then lose nothing that still fits (report section 3.3.3)
    returns       q [N, D] and scale [N, G]
    guarantee     |q scale - x| <= 2**-4 |x|, or <= 2**-10 scale where x is below 2**-6 scale, for tiles whose
                  largest magnitude is 448 * 2**-126 or more; tiles of zeros come back as zeros; with powers
                  of two, doing it again changes no value. A tile with a NaN or an infinity has a scale that
                  is one too: nothing is raised here, so that no accelerator has to wait for the answer
    """
    return _quantize(x_ND, 1, BLOCK, power_of_two)


def quantize_columns(x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
    """Columns in 128 x 1 tiles: both sides of a weight's gradient, where tokens are summed over.

    As `quantize_tiles` of the transpose. -> q [N, D] and scale [T, D].
    """
    return _quantize(x_ND, BLOCK, 1, power_of_two)


def quantize_blocks(w_RC: Tensor, *, power_of_two: bool = False) -> Quantized:
    """A weight in 128 x 128 blocks, with the guarantees of `quantize_tiles`. -> q [R, C] and scale [A, B]."""
    return _quantize(w_RC, BLOCK, BLOCK, power_of_two)


def dequantize_tiles(q_ND: Tensor, scale_NG: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The rows that 1 x 128 tiles stand for, rounded once from the fp32 product. -> [N, D] in `dtype`."""
    return _dequantize(q_ND, scale_NG, 1, BLOCK, dtype)


def dequantize_columns(q_ND: Tensor, scale_TD: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The columns that 128 x 1 tiles stand for. -> [N, D] in `dtype`."""
    return _dequantize(q_ND, scale_TD, BLOCK, 1, dtype)


def dequantize_blocks(q_RC: Tensor, scale_AB: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The weight that blocks stand for. -> [R, C] in `dtype`.

    scale_AB    float32; the official checkpoint calls it `weight_scale_inv`, yet it multiplies
    """
    return _dequantize(q_RC, scale_AB, BLOCK, BLOCK, dtype)


def tiles_to_columns(x: Quantized, *, power_of_two: bool = False) -> Quantized:
    """Rows in 1 x 128 tiles as columns in 128 x 1 tiles: read, multiplied out, written anew (report 3.5.2).

    Where both have scales that are powers of two, every number that is not below 2**-6 of its new scale keeps
    its exact value.
    """
    return quantize_columns(dequantize_tiles(*x, torch.float32), power_of_two=power_of_two)


def scale_shape(R: int, C: int) -> tuple[int, int]:
    """[A, B] of the scales of an [R, C] matrix in blocks."""
    return -(-R // BLOCK), -(-C // BLOCK)


def round_scale(raw: Tensor) -> Tensor:
    """Scales rounded up to powers of two; NaN and infinity stay."""
    mantissa, exponent = raw.frexp()  # raw = mantissa 2**exponent, mantissa in [0.5, 1)
    up = torch.ldexp(torch.ones_like(raw), exponent - (mantissa == 0.5).int())
    return torch.where(raw.isfinite(), up, raw)


def _quantize(x_RC: Tensor, rows: int, columns: int, power_of_two: bool) -> Quantized:
    R, C = x_RC.shape[-2:]
    x_ArBc = _cut(x_RC.float(), rows, columns)
    if x_RC.numel():
        amax_AB = torch.maximum(x_ArBc.amax((-3, -1)), -x_ArBc.amin((-3, -1)))
    else:
        amax_AB = x_ArBc.new_zeros(*x_ArBc.shape[:-3], x_ArBc.shape[-2])
    scale_AB = torch.where(amax_AB == 0, 1.0, (amax_AB / E4M3_MAX).clamp_min(SMALLEST_SCALE))
    if power_of_two:
        scale_AB = round_scale(scale_AB)
    # The division may round past 448, which older casts turn into NaN.
    q_ArBc = (x_ArBc / scale_AB[..., :, None, :, None]).clamp_(-E4M3_MAX, E4M3_MAX)
    return Quantized(_join(q_ArBc, R, C).to(E4M3), scale_AB)


def _dequantize(q_RC: Tensor, scale_AB: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    R, C = q_RC.shape[-2:]
    want = (*q_RC.shape[:-2], -(-R // rows), -(-C // columns))
    assert q_RC.dtype == E4M3, f"{q_RC.dtype} is not E4M3"
    assert scale_AB.shape == want, f"scales {scale_AB.shape} for a matrix {q_RC.shape}"
    x_ArBc = _cut(q_RC.float(), rows, columns) * scale_AB[..., :, None, :, None]
    return _join(x_ArBc, R, C).to(dtype)


def _cut(x_RC: Tensor, rows: int, columns: int) -> Tensor:
    """[..., R, C] -> [..., A, rows, B, columns], ragged edges filled with zeros."""
    R, C = x_RC.shape[-2:]
    if R % rows or C % columns:
        x_RC = F.pad(x_RC, (0, -C % columns, 0, -R % rows))
    return x_RC.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))


def _join(x_ArBc: Tensor, R: int, C: int) -> Tensor:
    """The inverse of `_cut`."""
    return x_ArBc.flatten(-2).flatten(-3, -2)[..., :R, :C]
