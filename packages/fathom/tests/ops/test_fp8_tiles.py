"""Tiles and columns: how far a number may move, what a second cut may cost, that no size breaks them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fathom.ops.fp8.e5m6 import E5M6_MAX, pack_e5m6, round_e5m6, unpack_e5m6
from fathom.ops.fp8.tiles import (
    BLOCK,
    E4M3_MAX,
    Quantized,
    dequantize_columns,
    dequantize_tiles,
    quantize_blocks,
    quantize_columns,
    quantize_tiles,
    tiles_to_columns,
)

SIZES = st.integers(1, 300)
SEEDS = st.integers(0, 10**6)
QUICK = settings(max_examples=40, deadline=None)


def numbers(N: int, D: int, seed: int, decades: float = 4.0) -> Tensor:
    """Numbers of either sign over many orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    size = 10.0 ** (decades * (torch.rand(N, D, generator=generator) * 2 - 1))
    return size * torch.randn(N, D, generator=generator)


def assert_within(back: Tensor, x: Tensor, unit: Tensor) -> None:
    """The bound that quantisation promises; `unit` is the scale of each number."""
    error = (back - x).abs()
    normal = x.abs() >= 2**-6 * unit
    assert (error <= 2**-4 * x.abs())[normal].all()
    assert (error <= 2**-10 * unit * (1 + 2**-20))[~normal].all()


@QUICK
@given(SIZES, SIZES, SEEDS, st.booleans())
def test_no_number_moves_further_than_promised(N: int, D: int, seed: int, power_of_two: bool):
    x = numbers(N, D, seed)
    q, scale_NG = quantize_tiles(x, power_of_two=power_of_two)
    assert scale_NG.shape == (N, -(-D // BLOCK)) and q.float().abs().max() <= E4M3_MAX
    unit = scale_NG.repeat_interleave(BLOCK, 1)[:, :D]
    assert_within(dequantize_tiles(q, scale_NG, torch.float32), x, unit)
    q, scale_TD = quantize_columns(x, power_of_two=power_of_two)
    assert scale_TD.shape == (-(-N // BLOCK), D)
    unit = scale_TD.repeat_interleave(BLOCK, 0)[:N]
    assert_within(dequantize_columns(q, scale_TD, torch.float32), x, unit)


@QUICK
@given(SIZES, SIZES, SEEDS, st.booleans())
def test_columns_are_the_tiles_of_the_transpose(N: int, D: int, seed: int, power_of_two: bool):
    x = numbers(N, D, seed)
    q, scale = quantize_columns(x, power_of_two=power_of_two)
    q_t, scale_t = quantize_tiles(x.T.contiguous(), power_of_two=power_of_two)
    assert torch.equal(q.view(torch.uint8), q_t.view(torch.uint8).T) and torch.equal(scale, scale_t.T)


@example(448.0)
@example(448.0 * 2.0**-20)
@given(st.floats(min_value=2.0**-100, max_value=2.0**100, width=32))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_rounded_scales_are_the_smallest_powers_of_two_that_fit(largest: float):
    x_ND = torch.tensor([[largest, -largest / 3, 0.0]])
    q_ND, scale_NG = quantize_tiles(x_ND, power_of_two=True)
    scale = scale_NG.item()
    assert torch.frexp(scale_NG).mantissa.item() == 0.5
    assert largest <= 448 * scale and (largest > 224 * scale or largest / 448 == scale)
    again_ND, same_NG = quantize_tiles(q_ND.float() * scale, power_of_two=True)
    assert torch.equal(again_ND.float() * same_NG, q_ND.float() * scale)  # nothing is lost a second time


@QUICK
@given(SIZES, SIZES, SEEDS)
def test_with_powers_of_two_a_second_quantisation_changes_no_bit(N: int, D: int, seed: int):
    first = quantize_tiles(numbers(N, D, seed), power_of_two=True)
    for dtype in (torch.float32, torch.bfloat16):
        back = dequantize_tiles(*first, dtype)
        again = quantize_tiles(back, power_of_two=True)
        assert torch.equal(dequantize_tiles(*again, torch.float32), back.float())


@QUICK
@given(SIZES, SIZES, SEEDS)
def test_with_powers_of_two_another_cut_loses_only_what_no_longer_fits(N: int, D: int, seed: int):
    """The reason for them (report section 3.3.3): 1 x 128 tiles become 128 x 1 tiles for Wgrad."""
    tiles = quantize_tiles(numbers(N, D, seed, decades=2.0), power_of_two=True)
    x = dequantize_tiles(*tiles, torch.float32)
    q, scale_TD = tiles_to_columns(tiles, power_of_two=True)
    back = dequantize_columns(q, scale_TD, torch.float32)
    unit = scale_TD.repeat_interleave(BLOCK, 0)[:N]
    fits = x.abs() >= 2**-6 * unit
    assert torch.equal(back[fits], x[fits])
    assert ((back - x).abs() <= 2**-10 * unit)[~fits].all()


def test_without_powers_of_two_another_cut_costs_a_second_error():
    tiles = quantize_tiles(numbers(256, 256, 0, decades=0.5))
    x = dequantize_tiles(*tiles, torch.float32)
    q, scale = tiles_to_columns(tiles)
    assert (dequantize_columns(q, scale, torch.float32) - x).norm() > 0.01 * x.norm()


def test_the_scale_is_rounded_before_anything_is_divided_by_it():
    """Rounded afterwards, 300 would come back as 448 / 300 * 300: larger by the ratio of the two scales."""
    x = torch.full((1, 128), 300.0)
    back = dequantize_tiles(*quantize_tiles(x, power_of_two=True), torch.float32)
    assert ((back - x).abs() <= 2**-4 * x).all()


@pytest.mark.parametrize("quantize", [quantize_tiles, quantize_columns, quantize_blocks])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_zeros_stay_zeros_and_bad_numbers_spoil_only_their_tile(quantize, power_of_two):
    x = torch.ones(300, 300)
    x[:128, :128] = 0
    x[200, 200], x[299, 10] = float("nan"), -float("inf")
    q, scale = quantize(x, power_of_two=power_of_two)
    assert (q[:128, :128].float() == 0).all() and scale[0, 0].isfinite()
    R, C = 300 // len(scale) or 1, 300 // scale.shape[1] or 1  # 1, or 100 for the 128 of a tile
    bad = {(200 // (128 if R > 1 else 1), 200 // (128 if C > 1 else 1))}
    bad |= {(299 // (128 if R > 1 else 1), 10 // (128 if C > 1 else 1))}
    assert {tuple(at) for at in (~scale.isfinite()).nonzero().tolist()} == bad


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (0, 256)])
def test_nothing_is_nothing(shape):
    for quantize in (quantize_tiles, quantize_columns, quantize_blocks):
        q, scale = quantize(torch.zeros(shape))
        assert q.shape == shape and scale.numel() == 0
    assert unpack_e5m6(pack_e5m6(torch.zeros(shape)), shape[1]).shape == shape


@QUICK
@given(SIZES, SIZES, SEEDS)
def test_e5m6_is_twelve_bits_within_its_error(N: int, D: int, seed: int):
    x = numbers(N, D, seed, decades=5.0)
    packed = pack_e5m6(x)
    assert packed.bytes_NP.dtype == torch.uint8 and packed.bytes_NP.shape == (N, 3 * -(-D // 2))
    assert (torch.frexp(packed.scale_NG).mantissa == 0.5).all()
    back = unpack_e5m6(packed, D)
    unit = packed.scale_NG.repeat_interleave(BLOCK, 1)[:, :D]
    normal = x.abs() >= 2**-14 * unit
    assert ((back - x).abs() <= 2**-7 * x.abs())[normal].all()
    assert ((back - x).abs() <= 2**-21 * unit)[~normal].all()
    again = pack_e5m6(back)
    assert torch.equal(unpack_e5m6(again, D), back)


def test_e5m6_has_every_number_of_fp16_whose_last_four_bits_are_zero():
    every = torch.arange(0, 1 << 16, 16, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    every = every[every.isfinite()]
    assert len(every.unique()) == 2 * 31 * 64 - 1 and every.max() == E5M6_MAX
    assert torch.equal(round_e5m6(every), every)
    between = (every.unique()[:-1] + every.unique()[1:]) / 2  # ties go to the even neighbour
    steps = round_e5m6(between).half().view(torch.int16) >> 4
    assert (steps % 2 == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_e5m6_says_what_is_not_finite_by_its_scale(bad):
    x = torch.ones(2, 200)
    x[1, 150] = bad
    scale = pack_e5m6(x).scale_NG
    assert scale[0].isfinite().all() and scale[1, 0].isfinite() and not scale[1, 1].isfinite()


def test_a_stack_of_weights_is_quantised_one_by_one():
    stack = torch.stack([numbers(200, 130, seed) for seed in range(3)])
    q, scale = quantize_blocks(stack)
    for one, q_one, scale_one in zip(stack, q, scale, strict=True):
        want = quantize_blocks(one)
        assert torch.equal(q_one.view(torch.uint8), want.q.view(torch.uint8))
        assert torch.equal(scale_one, want.scale) and isinstance(want, Quantized)
