"""E5M6: a sign, five bits of exponent, six of mantissa; two numbers in three bytes (report section 3.3.3).

For the input of attention's output map, which the backward pass of attention reads too. The report gives the
widths alone; exponents are those of fp16 here, so an E5M6 number is an fp16 number without its last 4 bits.

Axes:  N rows   D columns   G tiles of a row, ceil(D/128)   P bytes of a row, 3 ceil(D/2)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.ops.fp8.tiles import BLOCK, SMALLEST_SCALE, round_scale

E5M6_MAX = 65024.0  # (2 - 2**-6) 2**15
SMALLEST_NORMAL = 2.0**-14
STEP = 2.0**-20  # between numbers below the smallest normal one
DROPPED = 17  # of the 23 mantissa bits of fp32


class E5M6(NamedTuple):
    """A matrix in twelve bits a number."""

    bytes_NP: Tensor  # uint8
    scale_NG: Tensor  # float32, powers of two


def pack_e5m6(x_ND: Tensor) -> E5M6:
    """Rows with a power-of-two scale for each 1 x 128 tile, twelve bits a number.

    x_ND        [N, D], any float dtype and size
    guarantee   |unpack_e5m6(...) - x| <= 2**-7 |x|, or <= 2**-21 scale where x is below 2**-14 scale; what is
                E5M6 already comes back as it is; a tile with a NaN or an infinity has a scale that is one too
    """
    D = x_ND.shape[1]
    tile_NGd = F.pad(x_ND.float(), (0, -D % BLOCK)).unflatten(1, (-1, BLOCK))
    amax_NG = tile_NGd.abs().amax(-1) if x_ND.numel() else tile_NGd.new_zeros(tile_NGd.shape[:2])
    scale_NG = torch.where(amax_NG == 0, 1.0, (amax_NG / E5M6_MAX).clamp_min(SMALLEST_SCALE))
    scale_NG = round_scale(scale_NG)
    y_NGd = round_e5m6((tile_NGd / scale_NG[..., None]).clamp_(-E5M6_MAX, E5M6_MAX))
    y_ND = F.pad(y_NGd.flatten(1)[:, :D], (0, D % 2))
    a, b = (y_ND.half().view(torch.int16).int() >> 4 & 0xFFF).unflatten(1, (-1, 2)).unbind(-1)
    three = torch.stack((a >> 4, (a & 0xF) << 4 | b >> 8, b & 0xFF), -1)
    return E5M6(three.flatten(1).to(torch.uint8), scale_NG)


def unpack_e5m6(packed: E5M6, width: int) -> Tensor:
    """The rows again, D = `width` wide. -> float32 [N, D]."""
    first, middle, last = packed.bytes_NP.int().unflatten(1, (-1, 3)).unbind(-1)
    twelve = torch.stack((first << 4 | middle >> 4, (middle & 0xF) << 8 | last), -1).flatten(1)
    y_ND = (twelve << 4).to(torch.int16).view(torch.float16).float()[:, :width]
    tile_NGd = F.pad(y_ND, (0, -width % BLOCK)).unflatten(1, (-1, BLOCK))
    return (tile_NGd * packed.scale_NG[..., None]).flatten(1)[:, :width]


def round_e5m6(x: Tensor) -> Tensor:
    """The nearest E5M6 number of fp32 ones, ties to even; magnitudes up to E5M6_MAX."""
    bits = x.contiguous().view(torch.int32)
    half = (1 << (DROPPED - 1)) - 1 + (bits >> DROPPED & 1)
    normal = ((bits + half) >> DROPPED << DROPPED).view(torch.float32)
    below = (x / STEP).round() * STEP
    return torch.where(x.abs() < SMALLEST_NORMAL, below, normal).clamp(-E5M6_MAX, E5M6_MAX)
