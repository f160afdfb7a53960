"""Quantisation on a GPU: a matrix read once, written once, in the bytes and scales of `tiles` (report 3.5.2).

A program makes one patch; 128 x 128 are 128 tiles of a row, 128 of a column, or one block. Division is
IEEE's, and the step to E4M3 is integer arithmetic on the bits of fp32, so that every machine makes the same
bytes. Triton's interpreter does as well, whose own cast rounds ties up, may lose a carry into the exponent
and cuts off numbers below 2^-6.

Axes:  N, R rows   D, C, F columns   G tiles of a row   T tiles of a column   A, B tiles down and across
       E matrices   Y, X a weight's sides
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from fathom.ops.fp8.tiles import BLOCK, E4M3, Quantized

try:  # by name: its types are not there for everyone who checks ours
    triton: Any = import_module("triton")
    tl: Any = import_module("triton.language")
except ImportError:
    triton = tl = None

jit: Callable[[Any], Any] = triton.jit if triton else lambda kernel: kernel
LAUNCH = {"num_warps": 8, "enable_fp_fusion": False}  # a fused product would not round as `tiles` does
SWIGLU_ROWS = 32  # of a patch: g, u and h of 128 rows do not fit into a program's registers


def tiles(x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
    """`quantize_tiles`."""
    return _launch(x_ND, None, "rows", power_of_two)


def columns(x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
    """`quantize_columns`; q [N, D] lies in memory as [D, N]: tensor cores want the summed axis last."""
    return _launch(x_ND, None, "columns", power_of_two)


def tiles_to_columns(x: Quantized, *, power_of_two: bool = False) -> Quantized:
    """`tiles_to_columns`, without the matrix in between; q lies in memory as that of `columns`."""
    return _launch(x.q, x.scale, "columns", power_of_two)


def blocks(w: Tensor) -> Quantized:
    """`quantize_blocks` of [Y, X] or [E, Y, X]."""
    return _launch(w, None, "blocks", False)


def dequantize(x: Quantized, dtype: torch.dtype) -> Tensor:
    """`dequantize_tiles`. -> [N, D] in `dtype`."""
    y_ND = torch.empty(x.q.shape, dtype=dtype, device=x.q.device)
    if y_ND.numel():
        both = (x.q, *x.q.stride(), x.scale, *x.scale.stride())
        _dequantize_patch[_patches(y_ND)](both, (y_ND, *y_ND.stride()), tuple(y_ND.shape), **LAUNCH)
    return y_ND


def swiglu(g_RF: Tensor, u_RF: Tensor, weight_R: Tensor | None) -> tuple[Quantized, Quantized, Quantized]:
    """g, u and h = SiLU(g) u weight in 1 x 128 tiles, h computed in fp32, in one pass over g and u."""
    assert g_RF.shape == u_RF.shape, f"g {g_RF.shape} and u {u_RF.shape}"
    made = tuple(_empty(g_RF, "rows") for _ in range(3))
    if g_RF.numel():
        weight = None if weight_R is None else (weight_R, weight_R.stride(0))
        out = tuple(tensor for x in made for tensor in (x.q.view(torch.uint8), x.scale))
        _swiglu_patch[_patches(g_RF, SWIGLU_ROWS)](
            (g_RF, *g_RF.stride()), (u_RF, *u_RF.stride()), weight, out, tuple(g_RF.shape),
            **LAUNCH,
        )
    return made[0], made[1], made[2]


def _launch(x: Tensor, scale_NG: Tensor | None, tile: str, power_of_two: bool) -> Quantized:
    made = _empty(x, tile)
    if x.numel():
        batch = (0,) * (3 - x.dim())  # the stride of a single matrix
        given = None if scale_NG is None else (scale_NG, *scale_NG.stride())
        q, scale = made.q.view(torch.uint8), made.scale
        _quantize_patch[_patches(x)](
            (x, *batch, *x.stride()), given, (q, *batch, *q.stride(), scale, *batch, *scale.stride()),
            tuple(x.shape[-2:]), TILE=tile, POWER_OF_TWO=power_of_two,
            **LAUNCH,
        )
    return made


def _empty(x: Tensor, tile: str) -> Quantized:
    *stack, R, C = x.shape
    A = R if tile == "rows" else -(-R // BLOCK)
    B = C if tile == "columns" else -(-C // BLOCK)
    across = tile == "columns"
    q = torch.empty(*stack, *((C, R) if across else (R, C)), dtype=E4M3, device=x.device)
    return Quantized(q.mT if across else q, torch.empty(*stack, A, B, dtype=torch.float32, device=x.device))


def _patches(x: Tensor, rows: int = BLOCK) -> tuple[int, ...]:
    R, C = x.shape[-2:]
    return -(-C // BLOCK), -(-R // rows), len(x) if x.dim() == 3 else 1


@jit
def _here(ROWS: tl.constexpr):
    """Rows and columns of this program's patch, as 64-bit numbers: a matrix may hold more than 2^31."""
    r = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return r, tl.program_id(0).to(tl.int64) * 128 + tl.arange(0, 128)


@jit
def _scale_of(magnitude, POWER_OF_TWO: tl.constexpr):
    """The scale of a tile from the bits of its largest magnitude: as integers, NaN is the largest of all."""
    amax = magnitude.to(tl.float32, bitcast=True)
    raw = tl.div_rn(amax, tl.full(amax.shape, 448.0, tl.float32))
    smallest = 1.1754943508222875e-38  # SMALLEST_SCALE; a NaN is not below it
    scale = tl.where(amax == 0.0, 1.0, tl.where(raw < smallest, smallest, raw))
    if POWER_OF_TWO:
        bits = scale.to(tl.int32, bitcast=True)
        finite = bits < 0x7F800000
        up = (tl.where(finite, bits, 0) + 0x7FFFFF) & -0x800000  # the next exponent unless the mantissa is 0
        scale = tl.where(finite, up.to(tl.float32, bitcast=True), scale)
    return scale


@jit
def _encode(x, scale):
    """x / scale as bytes of E4M3: clamped to 448, rounded to nearest, ties to even."""
    bits = tl.div_rn(x, scale).to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    most = tl.minimum(magnitude, 0x43E00000)  # 448
    # 3 of 23 bits stay, and an exponent of 0 is 7, not 127.
    normal = ((most + 0x7FFFF + ((most >> 20) & 1)) >> 20) - (120 << 3)
    # Below 2^-6 steps are 2^-9, as those of fp32 are from 2^14 on: the sum's last bits are the byte.
    small = (most.to(tl.float32, bitcast=True) + 16384.0).to(tl.int32, bitcast=True) & 0xF
    byte = tl.where(most < 0x3C800000, small, normal)
    byte = tl.where(magnitude > 0x7F800000, 0x7F, byte)
    return (byte | ((bits >> 24) & 0x80)).to(tl.uint8)


@jit
def _tiles_of(x, POWER_OF_TWO: tl.constexpr):
    """A patch whose rows are tiles. -> bytes [128, 128] and scales [128, 1]."""
    magnitude = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    scale = _scale_of(tl.max(magnitude, 1)[:, None], POWER_OF_TWO)
    return _encode(x, tl.broadcast_to(scale, x.shape)), scale


@jit
def _quantize_patch(x, x_scale, out, sizes, TILE: tl.constexpr, POWER_OF_TWO: tl.constexpr):
    """One patch of x (pointer, strides of matrix, row, column), times the scales of its tiles if any."""
    x_ptr, x_e, x_r, x_c = x
    q_ptr, q_e, q_r, q_c, scale_ptr, s_e, s_r, s_c = out
    r, c = _here(128)
    e, row, column = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    inside = (r < sizes[0])[:, None] & (c < sizes[1])[None, :]
    patch = tl.load(x_ptr + e * x_e + r[:, None] * x_r + c[None, :] * x_c, mask=inside, other=0.0)
    patch = patch.to(tl.float32)
    if x_scale is not None:
        given_ptr, g_r, g_c = x_scale
        given = tl.load(given_ptr + r * g_r + column * g_c, mask=r < sizes[0], other=1.0)
        patch = patch * given[:, None]
    scale_ptr += e * s_e
    if TILE == "rows":
        byte, scale = _tiles_of(patch, POWER_OF_TWO)
        tl.store(scale_ptr + r[:, None] * s_r + column * s_c, scale, mask=(r < sizes[0])[:, None])
    else:
        magnitude = tl.max(patch.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0)[None, :]
        if TILE == "columns":
            scale = _scale_of(magnitude, POWER_OF_TWO)
            tl.store(scale_ptr + row * s_r + c[None, :] * s_c, scale, mask=(c < sizes[1])[None, :])
        else:
            scale = _scale_of(tl.max(magnitude, 1)[:, None], POWER_OF_TWO)
            here = tl.zeros([1, 1], tl.int64)
            tl.store(scale_ptr + row * s_r + column * s_c + here, scale)
        byte = _encode(patch, tl.broadcast_to(scale, patch.shape))
    tl.store(q_ptr + e * q_e + r[:, None] * q_r + c[None, :] * q_c, byte, mask=inside)


@jit
def _swiglu_patch(g, u, weight, out, sizes):
    """One patch of g and u, and of h; `out` holds bytes and scales of all three, rows after rows."""
    g_ptr, g_r, g_c = g
    u_ptr, u_r, u_c = u
    r, c = _here(32)
    inside = (r < sizes[0])[:, None] & (c < sizes[1])[None, :]
    g_patch = tl.load(g_ptr + r[:, None] * g_r + c[None, :] * g_c, mask=inside, other=0.0).to(tl.float32)
    u_patch = tl.load(u_ptr + r[:, None] * u_r + c[None, :] * u_c, mask=inside, other=0.0).to(tl.float32)
    h_patch = tl.div_rn(g_patch, 1.0 + tl.exp(-g_patch)) * u_patch
    if weight is not None:
        w = tl.load(weight[0] + r * weight[1], mask=r < sizes[0], other=0.0).to(tl.float32)
        h_patch = h_patch * w[:, None]
    at = r[:, None] * sizes[1] + c[None, :]
    scale_at = r[:, None] * tl.cdiv(sizes[1], 128) + tl.program_id(0)
    for i in tl.static_range(3):
        byte, scale = _tiles_of(g_patch if i == 0 else (u_patch if i == 1 else h_patch), False)
        tl.store(out[2 * i] + at, byte, mask=inside)
        tl.store(out[2 * i + 1] + scale_at, scale, mask=(r < sizes[0])[:, None])


@jit
def _dequantize_patch(x, y, sizes):
    """One patch of numbers times the scales of their tiles, rounded once."""
    q_ptr, q_r, q_c, scale_ptr, s_r, s_c = x
    y_ptr, y_r, y_c = y
    r, c = _here(128)
    inside = (r < sizes[0])[:, None] & (c < sizes[1])[None, :]
    patch = tl.load(q_ptr + r[:, None] * q_r + c[None, :] * q_c, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + r * s_r + tl.program_id(0) * s_c, mask=r < sizes[0], other=1.0)
    patch = rounded(patch * scale[:, None], y_ptr.dtype.element_ty)
    tl.store(y_ptr + r[:, None] * y_r + c[None, :] * y_c, patch, mask=inside)


@jit
def rounded(x, DTYPE: tl.constexpr):
    """fp32 in another dtype, to nearest and ties to even: Triton's interpreter cuts bf16 off."""
    if tl.bfloat16 == DTYPE:
        bits = x.to(tl.int32, bitcast=True)
        even = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        x = tl.where(x == x, even.to(tl.float32, bitcast=True), x)
    return x.to(DTYPE)
