"""Products of FP8 matrices on a GPU: runs of 128 in tensor cores, summed in fp32 registers (report 3.3.2).

One kernel makes C = A B^T for all of them, summed over K, of which every 128 have a scale on both sides:

    product                A [M, K] in tiles, B [N, K] in blocks      Fprop x W^T, Dgrad dy (W^T)^T
    product_of_rows        the same, B that of the rows' expert
    add_product            A [M, K] and B [N, K] in tiles, added to C Wgrad dy^T x, of columns in tiles
    add_product_of_sums    the same, of each expert's part of K

Tensor cores of Hopper take FP8 with K last in memory from both sides, and nothing else. Any strides give the
right numbers here; those that have K last give them without a rearrangement in shared memory.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fathom.ops.fp8.tiles import BLOCK, Quantized
from fathom.ops.fp8.triton_quantize import jit, rounded, tl, triton


class Form(NamedTuple):
    """What a product is compiled for."""

    groups: str  # "", "rows" or "sums"
    in_blocks: bool  # B's scales: of 128 x 128, not of 1 x 128
    add: bool  # to what C holds
    whole: bool  # K is a multiple of 128


def product(a: Quantized, b: Quantized, dtype: torch.dtype) -> Tensor:
    """A B^T of A [M, K] in 1 x 128 tiles and B [N, K] in 128 x 128 blocks. -> [M, N] in `dtype`."""
    c_MN = torch.empty(len(a.q), len(b.q), dtype=dtype, device=a.q.device)
    _multiply(a, b, c_MN, None, Form("", True, False, a.q.shape[1] % BLOCK == 0))
    return c_MN


def add_product(into_MN: Tensor, a: Quantized, b: Quantized) -> None:
    """Add A B^T of A [M, K] and B [N, K], both in 1 x 128 tiles, to float32 [M, N]."""
    _multiply(a, b, into_MN, None, Form("", False, True, a.q.shape[1] % BLOCK == 0))


def product_of_rows(a: Quantized, b: Quantized, count_E: Tensor, dtype: torch.dtype) -> Tensor:
    """`product` of rows sorted by expert with B [E, N, K]; counts, multiples of 128, stay on the device."""
    M, (E, N, _) = len(a.q), b.q.shape
    c_MN = torch.empty(M, N, dtype=dtype, device=a.q.device)
    first_row = torch.arange(0, M, BLOCK, device=a.q.device)
    expert = torch.searchsorted(count_E.cumsum(0), first_row, right=True).clamp_max_(E - 1)
    _multiply(a, b, c_MN, expert, Form("rows", True, False, a.q.shape[1] % BLOCK == 0))
    return c_MN


def add_product_of_sums(into_EMN: Tensor, a: Quantized, b: Quantized, count_E: Tensor) -> None:
    """`add_product` of each expert's part of K, count_E multiples of 128, to its matrix of [E, M, N]."""
    _multiply(a, b, into_EMN, count_E.cumsum(0), Form("sums", False, True, True))


def _multiply(a: Quantized, b: Quantized, c: Tensor, groups: Tensor | None, form: Form) -> None:
    M, N = c.shape[-2:]
    K = a.q.shape[1]
    assert b.q.shape[-1] == K and c.stride(-1) == 1, f"K of {a.q.shape} and {b.q.shape}, C's {c.stride()}"
    if c.numel() == 0:
        return
    one = (0,) * (3 - b.q.dim())  # the stride of a single matrix
    left = (a.q, *a.q.stride(), a.scale, *a.scale.stride())
    right = (b.q, *one, *b.q.stride(), b.scale, *one, *b.scale.stride())
    sizes = (M, N, K, *((0,) * (3 - c.dim())), *c.stride()[:-1])
    patches = triton.cdiv(M, BLOCK) * triton.cdiv(N, BLOCK)
    _patch[(patches, len(c) if form.groups == "sums" else 1)](
        left, right, c, groups, sizes, tuple(form), enable_fp_fusion=True
    )


@jit
def _patch_of_product(a, b, c, groups, sizes, FORM: tl.constexpr):
    """128 x 128 of C.

    a, b      pointers and strides of numbers and scales
    groups    the expert of each 128 rows, or the end of each expert's part of K
    """
    GROUPS: tl.constexpr = FORM[0]
    IN_BLOCKS: tl.constexpr = FORM[1]
    ADD: tl.constexpr = FORM[2]
    WHOLE: tl.constexpr = FORM[3]
    a_ptr, a_m, a_k, as_ptr, as_m, as_g = a
    b_ptr, b_e, b_n, b_k, bs_ptr, bs_e, bs_n, bs_g = b
    M, N, K, c_e, c_m = sizes
    across, down = tl.cdiv(N, 128), tl.cdiv(M, 128)
    row, column = tl.program_id(0) // across, tl.program_id(0) % across
    row, column = tl.swizzle2d(row, column, down, across, 8)  # neighbours in time share the L2 cache's lines
    first, last = 0, tl.cdiv(K, 128)
    if GROUPS == "rows":
        e = tl.load(groups + row).to(tl.int64)
        b_ptr += e * b_e
        bs_ptr += e * bs_e
    if GROUPS == "sums":
        e = tl.program_id(1)
        first = (tl.load(groups + e - 1, mask=e > 0, other=0) // 128).to(tl.int32)
        last = (tl.load(groups + e) // 128).to(tl.int32)
        c += e.to(tl.int64) * c_e
    m = row.to(tl.int64) * 128 + tl.arange(0, 128)
    n = column.to(tl.int64) * 128 + tl.arange(0, 128)
    in_m, in_n = m % M, n % N  # past the edge, rows that are there: what comes of them is not stored
    sum_MN = tl.zeros([128, 128], tl.float32)
    for run in range(first, last):
        k = run * 128 + tl.arange(0, 128).to(tl.int64)
        a_at = a_ptr + in_m[:, None] * a_m + k[None, :] * a_k
        b_at = b_ptr + in_n[None, :] * b_n + k[:, None] * b_k
        if WHOLE:
            a_Mk, b_kN = tl.load(a_at), tl.load(b_at)
        else:
            a_Mk = tl.load(a_at, mask=(k < K)[None, :], other=0.0)
            b_kN = tl.load(b_at, mask=(k < K)[:, None], other=0.0)
        scale_M = tl.load(as_ptr + in_m * as_m + run * as_g)
        if IN_BLOCKS:
            scale_MN = (scale_M * tl.load(bs_ptr + column * bs_n + run * bs_g))[:, None]
        else:
            scale_MN = scale_M[:, None] * tl.load(bs_ptr + in_n * bs_n + run * bs_g)[None, :]
        sum_MN += tl.dot(a_Mk, b_kN) * scale_MN
    c_at = c + m[:, None] * c_m + n[None, :]
    inside = (m < M)[:, None] & (n < N)[None, :]
    if ADD:
        sum_MN += tl.load(c_at, mask=inside, other=0.0)
    tl.store(c_at, rounded(sum_MN, c.dtype.element_ty), mask=inside)


def _tuned(kernel: Any) -> Any:
    """The kernel with the fastest of some settings, tried once for each form; as it is in the interpreter."""
    if triton is None or not isinstance(kernel, triton.JITFunction):
        return kernel
    tried = [triton.Config({}, num_warps=w, num_stages=s) for w, s in ((8, 3), (8, 4), (4, 3), (4, 4))]
    return triton.autotune(configs=tried, key=["FORM"], restore_value=["c"])(kernel)


_patch = _tuned(_patch_of_product)
