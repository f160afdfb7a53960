"""What a row is written as: nothing lost, the stated error, and the stated number of bytes."""

from __future__ import annotations

import pytest
import torch

from fathom.ops.fp8.tiles import E4M3, quantize_tiles
from fathom.parallel.payload import BF16, FP8, Plain, pack_rows, unpack_rows

V3_WIDTH = 7168


def rows(N: int, D: int, seed: int = 0) -> torch.Tensor:
    """Tiles of very different sizes, and one of zeros."""
    g = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(N, D, generator=g) * torch.randn(N, 1, generator=g).mul(8).exp2()
    x_ND[:, :128] *= 1e-3
    x_ND[0, :128] = 0
    return x_ND


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_plain_rows_come_back_to_the_bit(dtype):
    x_ND = rows(5, 40).to(dtype)
    back_ND = Plain().decode(Plain().encode(x_ND), 40, dtype)
    assert back_ND.dtype == dtype and torch.equal(back_ND, x_ND)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bf16_is_half_the_bytes_within_its_error(dtype):
    x_ND = rows(7, 300).to(dtype)
    sent = BF16().encode(x_ND)
    back_ND = BF16().decode(sent, 300, dtype)
    assert sent.element_size() == 2 and back_ND.dtype == dtype
    assert ((back_ND - x_ND).abs() <= 2**-8 * x_ND.abs()).all()
    assert not torch.equal(back_ND, x_ND)


def test_a_row_of_v3_is_7392_bytes():
    sent = FP8().encode(rows(3, V3_WIDTH).bfloat16())
    assert sent.dtype == torch.uint8 and sent.shape == (3, 7392)


@pytest.mark.parametrize("D", [1, 127, 128, 129, 640, V3_WIDTH])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_fp8_within_its_error_at_any_width(D, dtype):
    x_ND = rows(6, D, seed=D).to(dtype)
    _, scale_NG = quantize_tiles(x_ND, power_of_two=True)
    back_ND = FP8().decode(FP8().encode(x_ND), D, torch.float32)
    scale_ND = scale_NG.repeat_interleave(128, 1)[:, :D]
    bound_ND = torch.maximum(2**-4 * x_ND.float().abs(), 2**-10 * scale_ND)
    assert ((back_ND - x_ND.float()).abs() <= bound_ND).all()
    assert (back_ND[0, :128] == 0).all()


def test_rows_survive_any_order_and_an_empty_message():
    x_ND = rows(9, 256)
    pick = torch.tensor([8, 2, 2, 0])
    sent = FP8().encode(x_ND)
    there = FP8().decode(sent.index_select(0, pick), 256, torch.float32)
    assert torch.equal(there, FP8().decode(sent, 256, torch.float32)[pick])
    assert FP8().decode(FP8().encode(x_ND[:0]), 256, torch.bfloat16).shape == (0, 256)


@pytest.mark.parametrize("N", [0, 1, 2])
def test_packing_is_undone_to_the_bit(N):
    q_ND = torch.arange(0, 254, dtype=torch.uint8).view(2, 127)[:N].view(E4M3)
    scale_NG = torch.tensor([[1.5], [2.0**-30]])[:N]
    q, scale = unpack_rows(pack_rows(q_ND, scale_NG), 127)
    assert torch.equal(q.view(torch.uint8), q_ND.view(torch.uint8)) and torch.equal(scale, scale_NG)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so_and_spoils_only_its_tile(bad):
    x_ND = torch.ones(2, 256)
    x_ND[0, 3] = bad
    back_ND = FP8().decode(FP8().encode(x_ND), 256, torch.float32)
    assert not back_ND[0, :128].isfinite().all()
    assert torch.equal(back_ND[0, 128:], torch.ones(128)) and torch.equal(back_ND[1], torch.ones(256))
