"""FP8 weights: E4M3 numbers with one scale for each 128 x 128 block (report section 3.3.2).

Axes:  R rows   C columns   A blocks of rows, ceil(R/128)   B blocks of columns, ceil(C/128)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128  # rows and columns that share a scale (report section 3.3.2)
E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0  # largest finite E4M3; the format has a NaN and no infinity
SMALLEST_SCALE = torch.finfo(torch.float32).tiny  # below it, dividing by the scale is no longer exact enough


def quantize_blocks(w_RC: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as E4M3 with the largest magnitude of each block at 448; scales are of this matrix alone.

    w_RC        [R, C], any float dtype and size; the last blocks may be ragged
    returns     q_RC float8_e4m3fn [R, C]  and  scale_AB float32 [A, B], what q is multiplied by to get w back
    guarantee   |dequantize_blocks(q, scale, float32) - w| <= 2**-4 |w|, or <= 2**-10 scale where w is below
                2**-6 scale, for blocks whose largest magnitude is 448 * 2**-126 or more; blocks of zeros come
                back as zeros. A block with a NaN or an infinity has a scale that is one too: nothing is
                raised here, so that no accelerator has to wait for the answer
    """
    R, C = w_RC.shape
    block_ArBc = _blocks(w_RC.float())
    amax_AB = block_ArBc.abs().amax((1, 3)) if w_RC.numel() else w_RC.new_zeros(scale_shape(R, C)).float()
    scale_AB = torch.where(amax_AB == 0, 1.0, (amax_AB / E4M3_MAX).clamp_min(SMALLEST_SCALE))
    # The division may round past 448, which older casts turn into NaN.
    q_ArBc = (block_ArBc / scale_AB[:, None, :, None]).clamp_(-E4M3_MAX, E4M3_MAX)
    return q_ArBc.flatten(2).flatten(0, 1)[:R, :C].to(E4M3), scale_AB


def dequantize_blocks(q_RC: Tensor, scale_AB: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The matrix that E4M3 numbers and their scales stand for: each times the scale of its block.

    q_RC        float8_e4m3fn [R, C]
    scale_AB    float32 [A, B]; the official checkpoint calls it `weight_scale_inv`, yet it multiplies
    returns     [R, C] in `dtype`, rounded once from the fp32 product
    """
    R, C = q_RC.shape
    assert q_RC.dtype == E4M3, f"{q_RC.dtype} is not E4M3"
    assert scale_AB.shape == scale_shape(R, C), f"scales {scale_AB.shape} for a matrix {q_RC.shape}"
    w_ArBc = _blocks(q_RC.float()) * scale_AB[:, None, :, None]
    return w_ArBc.flatten(2).flatten(0, 1)[:R, :C].to(dtype)


def scale_shape(R: int, C: int) -> tuple[int, int]:
    """[A, B] of the scales of an [R, C] matrix."""
    return -(-R // BLOCK), -(-C // BLOCK)


def _blocks(x_RC: Tensor) -> Tensor:
    """[R, C] -> [A, 128, B, 128], ragged edges filled with zeros."""
    R, C = x_RC.shape
    A, B = scale_shape(R, C)
    return F.pad(x_RC, (0, B * BLOCK - C, 0, A * BLOCK - R)).view(A, BLOCK, B, BLOCK)
