"""FP8 blocks: how far a weight may move, what stays exact, and that no size or value breaks the format."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fathom.ops.fp8.tiles import (
    BLOCK,
    E4M3,
    E4M3_MAX,
    SMALLEST_SCALE,
    dequantize_blocks,
    quantize_blocks,
    scale_shape,
)

SIZES = st.integers(1, 300)
QUICK = settings(max_examples=60, deadline=None)


def every_number() -> Tensor:
    """All finite E4M3 numbers, as fp32."""
    every = torch.arange(256, dtype=torch.uint8).view(E4M3).float()
    return every[every.isfinite()]


def spread(R: int, C: int, seed: int, decades: float) -> Tensor:
    """Numbers of either sign over many orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    size = 10.0 ** (decades * (torch.rand(R, C, generator=generator) * 2 - 1))
    return size * torch.randn(R, C, generator=generator).sign()


def per_number(scale_AB: Tensor, w_RC: Tensor) -> Tensor:
    return scale_AB.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[: w_RC.shape[0], : w_RC.shape[1]]


def test_the_format_is_the_one_meant():
    """E4M3 without infinities: 448 at most, 2^-6 the smallest normal number, 2^-9 the smallest of all."""
    every = every_number().abs().unique()
    assert (len(every), every.max(), every[1]) == (127, E4M3_MAX, 2**-9)
    fractions = torch.frexp(every[every >= 2**-6])[0] * 16
    assert torch.equal(fractions, fractions.round()), "a normal number has three bits behind its first"


@QUICK
@given(SIZES, SIZES, st.integers(0, 10**6), st.sampled_from([0.5, 3.0, 8.0]))
def test_no_weight_moves_further_than_promised(R: int, C: int, seed: int, decades: float):
    w = spread(R, C, seed, decades)
    q, scale = quantize_blocks(w)
    assert (q.dtype, q.shape, scale.dtype, scale.shape) == (E4M3, w.shape, torch.float32, scale_shape(R, C))
    unit = per_number(scale, w)
    error = (dequantize_blocks(q, scale, torch.float32) - w).abs()
    normal = w.abs() >= 2**-6 * unit
    assert (error <= 2**-4 * w.abs())[normal].all()
    assert (error <= 2**-10 * unit * (1 + 2**-20))[~normal].all()
    near = (error > 2**-6 * w.abs())[normal].any()
    assert near or normal.sum() < 50, "nothing comes near the bound"


@QUICK
@given(SIZES, SIZES, st.integers(0, 10**6), st.integers(-30, 30))
def test_what_e4m3_can_say_is_kept_exactly(R: int, C: int, seed: int, exponent: int):
    """Numbers of the format times a power of two, with 448 in every block."""
    generator, every = torch.Generator().manual_seed(seed), every_number()
    q = every[torch.randint(len(every), (R, C), generator=generator)]
    q[::BLOCK, ::BLOCK] = -E4M3_MAX
    again, scale = quantize_blocks(q * 2.0**exponent)
    assert torch.equal(again.float(), q) and (scale == 2.0**exponent).all()
    assert torch.equal(dequantize_blocks(again, scale, torch.float32), q * 2.0**exponent)
    assert torch.equal(dequantize_blocks(again, scale).float(), q * 2.0**exponent), "in bf16 as well"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_largest_of_each_block_becomes_448(dtype: torch.dtype):
    w = torch.randn(300, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    q, scale = quantize_blocks(w)
    for a in range(3):
        for b in range(2):
            block = slice(a * BLOCK, (a + 1) * BLOCK), slice(b * BLOCK, (b + 1) * BLOCK)
            assert q[block].float().abs().max() == E4M3_MAX
            assert scale[a, b] == w[block].float().abs().max() / E4M3_MAX
            alone, its_scale = quantize_blocks(w[block])
            assert torch.equal(alone.float(), q[block].float()) and its_scale == scale[a, b], "blocks mix"


def test_blocks_of_zeros_come_back_as_zeros():
    w = torch.zeros(200, 260)
    w[150, 200] = 3.0
    q, scale = quantize_blocks(w)
    assert scale.isfinite().all() and (scale > 0).all()
    assert torch.equal(dequantize_blocks(q, scale, torch.float32), w)


@QUICK
@given(st.floats(min_value=0, max_value=2.0**127, width=32), st.booleans())
def test_no_finite_weight_becomes_anything_else(value: float, negative: bool):
    """From the smallest subnormal number to the largest power of two, and near where the scale allows it."""
    w = torch.full((2, 2), -value if negative else value)
    q, scale = quantize_blocks(w)
    back = dequantize_blocks(q, scale, torch.float32)
    assert q.float().isfinite().all() and (scale >= SMALLEST_SCALE).all() and back.isfinite().all()
    if value >= E4M3_MAX * SMALLEST_SCALE:
        torch.testing.assert_close(back, w, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows_in_its_blocks_scale(value: float):
    w = torch.ones(130, 140)
    w[129, 2] = value
    _, scale = quantize_blocks(w)
    assert torch.equal(scale.isfinite(), torch.tensor([[True, True], [False, True]]))


def test_the_scale_multiplies():
    q = torch.full((129, 130), 2.0).to(E4M3)
    w = dequantize_blocks(q, torch.tensor([[1.0, 3.0], [0.5, 0.25]]), torch.float32)
    assert (w[0, 0], w[0, 129], w[128, 127], w[128, 128]) == (2.0, 6.0, 1.0, 0.5)


def test_a_quantised_matrix_stays_where_it_is():
    """Quantising what was dequantised changes no number by more than a rounding of the scale."""
    w = torch.randn(200, 300, generator=torch.Generator().manual_seed(1))
    q, scale = quantize_blocks(w)
    again, rescaled = quantize_blocks(dequantize_blocks(q, scale, torch.float32))
    assert torch.equal(again.float(), q.float())
    torch.testing.assert_close(rescaled, scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (128, 128), (129, 127)])
def test_any_size_and_no_memory(shape: tuple[int, int]):
    for device in ("cpu", "meta"):
        q, scale = quantize_blocks(torch.ones(shape, device=device))
        back = dequantize_blocks(q, scale)
        assert q.shape == back.shape == shape and scale.shape == scale_shape(*shape)
        assert back.is_meta == (device == "meta") and back.dtype == torch.bfloat16


def test_a_scale_of_other_blocks_is_a_bug():
    with pytest.raises(AssertionError, match="scales"):
        dequantize_blocks(torch.ones(200, 5).to(E4M3), torch.ones(1, 1))
    with pytest.raises(AssertionError, match="E4M3"):
        dequantize_blocks(torch.ones(5, 5), torch.ones(1, 1))
