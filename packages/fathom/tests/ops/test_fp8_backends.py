"""Every FP8 backend makes the bytes of `tiles` and the products that those bytes stand for.

Where TRITON_INTERPRET is 1 the battery is for Triton's kernels in their interpreter, and for nothing else:
`test_fp8_triton.py` starts it so in a process of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fathom.ops.fp8 import hopper, tiles
from fathom.ops.fp8.backend import Backend
from fathom.ops.fp8.cpu import Cpu
from fathom.ops.fp8.reference import Reference
from fathom.ops.fp8.tiles import E4M3, Quantized

ROUNDED = 2.0**-8  # at most, of a number in bf16
SHAPES = [(130, 200), (256, 128), (3, 300), (1, 1)]  # of x; ragged on both sides, whole, less than a tile
PRODUCTS = [(130, 300, 150), (128, 256, 128), (5, 136, 33)]  # N, X, Y
COUNTS = [[128, 0, 256, 0], [0, 0]]  # rows of each expert; of all experts, none


class Case(NamedTuple):
    """A backend, where it works, and how far a product may be from the exact one, as a share of |A| |B|^T."""

    make: Callable[[], Backend]
    device: str
    share: float


FP32 = 2.0**-18  # sums of some hundred products, in any order
CASES = {
    "reference": Case(Reference, "cpu", FP32),
    "cpu-fp32": Case(lambda: Cpu(torch.float32), "cpu", FP32),
    "cpu-bf16": Case(lambda: Cpu(torch.bfloat16), "cpu", 3.1 * ROUNDED),  # both factors, and the sum
    "gpu": Case(hopper.Hopper, "cuda", hopper.TRUSTED),
    "gpu-triton": Case(lambda: hopper.Hopper(scaled_mm=False), "cuda", hopper.TRUSTED),
    "interpreter": Case(lambda: hopper.Hopper(scaled_mm=False), "cpu", FP32),
}
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NAMES = ["interpreter"] if INTERPRETED else [name for name in CASES if name != "interpreter"]


@pytest.fixture(
    params=[pytest.param(n, marks=pytest.mark.gpu if CASES[n].device == "cuda" else ()) for n in NAMES]
)
def case(request: pytest.FixtureRequest) -> Case:
    tested = CASES[request.param]
    if tested.device == "cuda" and not hopper.available():
        pytest.skip(hopper.why_not())
    return tested


@pytest.fixture
def backend(case: Case) -> Backend:
    return case.make()


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Numbers of either sign over six orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    size = 10.0 ** (6 * torch.rand(shape, generator=generator) - 3)
    return (size * torch.randn(shape, generator=generator)).to(dtype)


def assert_same(made: Quantized, want: Quantized) -> None:
    """Bit for bit."""
    assert (made.q.dtype, made.q.shape, made.scale.dtype) == (E4M3, want.q.shape, torch.float32)
    assert torch.equal(made.scale.cpu(), want.scale)
    different = (made.q.cpu().view(torch.uint8) != want.q.view(torch.uint8)).sum()
    assert different == 0, f"{different} of {want.q.numel()} bytes differ"


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_quantisers_make_the_bytes_of_tiles(case, backend, shape, dtype, power_of_two):
    x = numbers(*shape, dtype=dtype)
    here = x.to(case.device)
    want = tiles.quantize_tiles(x, power_of_two=power_of_two)
    assert_same(backend.tiles(here, power_of_two=power_of_two), want)
    columns = tiles.quantize_columns(x, power_of_two=power_of_two)
    assert_same(backend.columns(here, power_of_two=power_of_two), columns)
    x_q = Quantized(*(part.to(case.device) for part in want))
    again = tiles.tiles_to_columns(want, power_of_two=power_of_two)
    assert_same(backend.tiles_to_columns(x_q, power_of_two=power_of_two), again)
    if not power_of_two:
        assert_same(backend.blocks(here), tiles.quantize_blocks(x))


def test_stacks_of_weights_are_quantised_one_by_one(case, backend):
    w = numbers(3, 200, 130)
    assert_same(backend.blocks(w.to(case.device)), tiles.quantize_blocks(w))


@pytest.mark.parametrize("power_of_two", [False, True])
def test_zeros_and_the_smallest_numbers_make_the_same_bytes(case, backend, power_of_two):
    """Tiles of zeros, of subnormal numbers, of what only the smallest scale keeps; both signs of zero."""
    x = numbers(130, 260)
    x[:, :128] = 0
    x[4] = -0.0
    x[5, 130:] = 1e-41
    x[6] *= 1e-38
    here = x.to(case.device)
    for name in ("tiles", "columns"):
        want = getattr(tiles, f"quantize_{name}")(x, power_of_two=power_of_two)
        assert_same(getattr(backend, name)(here, power_of_two=power_of_two), want)
    assert (backend.tiles(here).scale[:, 0] == 1).all(), "a tile of zeros has scale 1"


@pytest.mark.parametrize("sign", [1, -1])
def test_every_rounding_to_e4m3_is_to_nearest_and_ties_to_even(case, backend, sign):
    """Each number of the format, each middle of two, and the fp32 neighbours of both, under a scale of 1."""
    every = torch.arange(127, dtype=torch.uint8).view(E4M3).float()
    middles = (every[1:] + every[:-1]) / 2
    exact = torch.cat((every, middles))
    near = [torch.nextafter(exact, torch.full_like(exact, to)) for to in (0.0, 448.0)]
    x = sign * torch.cat((exact, *near))
    row = torch.nn.functional.pad(x, (0, -len(x) % 127)).reshape(-1, 127)
    row = torch.nn.functional.pad(row, (1, 0), value=448.0)
    made = backend.tiles(row.to(case.device))
    assert (made.scale == 1).all()
    assert torch.equal(made.q.cpu().view(torch.uint8), row.to(E4M3).view(torch.uint8))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # numpy's, of the interpreter
@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows_in_its_tiles_scale(case, backend, value, power_of_two):
    x = torch.ones(130, 140)
    x[129, 2] = value
    here = x.to(case.device)
    both = backend.tiles(here, power_of_two=power_of_two), backend.columns(here, power_of_two=power_of_two)
    again = backend.tiles_to_columns(both[0], power_of_two=power_of_two)
    for made, want in zip((*both, backend.blocks(here)), ((129, 0), (1, 2), (1, 0)), strict=True):
        assert (~made.scale.isfinite()).nonzero().tolist() == [list(want)]
    assert both[0].q.float()[129, 2].isnan() and both[1].q.float()[129, 2].isnan()
    assert (~again.scale.isfinite()).nonzero()[:, 0].unique().tolist() == [1], "the scale of the tile is lost"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_stand_for_the_same_rows(case, backend, dtype):
    """All 254 finite bytes under many scales, rounded once."""
    q = torch.arange(256, dtype=torch.uint8).repeat(130, 2)[:, :300]
    q[(q & 0x7F) == 0x7F] = 0
    x = Quantized(q.view(E4M3), numbers(130, 3).abs())
    made = backend.dequantize(Quantized(*(part.to(case.device) for part in x)), dtype)
    assert made.dtype == dtype and torch.equal(made.cpu(), tiles.dequantize_tiles(*x, dtype))


@pytest.mark.parametrize("shape", [(0, 200), (200, 0)])
def test_nothing_is_quantised_to_nothing(case, backend, shape):
    x = torch.empty(shape, device=case.device)
    for made, want in (
        (backend.tiles(x), tiles.quantize_tiles(x)),
        (backend.columns(x), tiles.quantize_columns(x)),
        (backend.blocks(x), tiles.quantize_blocks(x)),
    ):
        assert (made.q.shape, made.scale.shape) == (want.q.shape, want.scale.shape)


@pytest.mark.parametrize("weighted", [False, True])
def test_swiglu_makes_three_matrices(case, backend, weighted):
    """g and u bit for bit. h goes through an exponential whose last bits differ between libraries, so that a
    number near the middle of two, or under a scale that differs in its last bit, may be one step away."""
    g, u = (numbers(130, 200, dtype=torch.bfloat16, seed=seed).clamp(-30, 30) for seed in (1, 2))
    weight = numbers(130, seed=3) if weighted else None
    want_g, want_u, want_h = Reference().swiglu(g, u, weight)
    here = weight if weight is None else weight.to(case.device)
    made_g, made_u, made_h = backend.swiglu(g.to(case.device), u.to(case.device), here)
    assert_same(made_g, want_g)
    assert_same(made_u, want_u)
    torch.testing.assert_close(made_h.scale.cpu(), want_h.scale, rtol=2**-18, atol=0)
    step = made_h.q.cpu().view(torch.uint8).int() - want_h.q.view(torch.uint8).int()
    # An error of 2^-23 moves about 2^-19 of all numbers to another step, of 26,000 less than one in ten runs;
    # a GPU's exponential is off by some 2^-20 for the largest arguments.
    most = 8 if case.device == "cuda" else 2
    assert (step.abs() <= 1).all() and (step != 0).sum() <= most, f"{(step != 0).sum()} bytes differ"


class Operands(NamedTuple):
    """Inputs of the three products, quantised, and what they stand for, in float64."""

    x: Quantized
    dy: Quantized
    w: Quantized
    x_columns: Quantized
    dy_columns: Quantized
    exact: dict[str, Tensor]


def operands(case: Case, backend: Backend, N: int, X: int, *of_w: int) -> Operands:
    """x [N, X], dy [N, Y] and W [Y, X] or [E, Y, X]."""
    x, dy, w = numbers(N, X, seed=1), numbers(N, of_w[-1], seed=2), numbers(*of_w, X, seed=3)
    x, dy, w = (part.to(case.device) for part in (x, dy, w))
    made = backend.tiles(x), backend.tiles(dy), backend.blocks(w), backend.columns(x), backend.columns(dy)
    exact = {
        "x": tiles.dequantize_tiles(*made[0], torch.float32).double(),
        "dy": tiles.dequantize_tiles(*made[1], torch.float32).double(),
        "w": tiles.dequantize_blocks(*made[2], torch.float32).double(),
        "x_columns": tiles.dequantize_columns(*made[3], torch.float32).double(),
        "dy_columns": tiles.dequantize_columns(*made[4], torch.float32).double(),
    }
    return Operands(*made, exact)


def assert_product(case: Case, got: Tensor, a: Tensor, b: Tensor, before: Tensor | None = None) -> None:
    """`got` is a b and what was there before, as near as the backend promises; in bf16, rounded once more."""
    want = a @ b if before is None else a @ b + before
    bound = case.share * (a.abs() @ b.abs()) + 2**-22 * want.abs()
    if got.dtype == torch.bfloat16:
        bound += ROUNDED * (want.abs() + bound)
    worst = ((got.double() - want).abs() / bound.clamp_min(1e-300)).max() if want.numel() else 0
    assert got.shape == want.shape and worst <= 1, f"{worst} times further than promised"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", PRODUCTS)
def test_products_of_tiles_and_blocks(case, backend, sizes, dtype):
    """Fprop and Dgrad."""
    given = operands(case, backend, *sizes)
    y, dx = backend.forward(given.x, given.w, dtype), backend.backward(given.dy, given.w, dtype)
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    assert_product(case, y, given.exact["x"], given.exact["w"].T)
    assert_product(case, dx, given.exact["dy"], given.exact["w"])


@pytest.mark.parametrize("sizes", PRODUCTS)
def test_products_of_columns_are_added(case, backend, sizes):
    """Wgrad."""
    given = operands(case, backend, *sizes)
    into = numbers(sizes[2], sizes[1], seed=4).to(case.device)
    before = into.double()
    backend.add_outer(into, given.dy_columns, given.x_columns)
    assert_product(case, into, given.exact["dy_columns"].T, given.exact["x_columns"], before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("counts", COUNTS)
def test_grouped_products_are_those_of_each_expert(case, backend, counts, dtype):
    given = operands(case, backend, sum(counts), 200, len(counts), 150)
    count = torch.tensor(counts, device=case.device)
    y = backend.grouped_forward(given.x, given.w, count, dtype).split(counts)
    dx = backend.grouped_backward(given.dy, given.w, count, dtype).split(counts)
    x_e, dy_e = given.exact["x"].split(counts), given.exact["dy"].split(counts)
    for e, w in enumerate(given.exact["w"]):
        assert_product(case, y[e], x_e[e], w.T)
        assert_product(case, dx[e], dy_e[e], w)


@pytest.mark.parametrize("counts", COUNTS)
def test_grouped_columns_are_added_to_each_experts_part(case, backend, counts):
    given = operands(case, backend, sum(counts), 200, len(counts), 150)
    into = numbers(len(counts), 150, 200, seed=4).to(case.device)
    before = into.clone()
    count = torch.tensor(counts, device=case.device)
    backend.add_grouped_outer(into, given.dy_columns, given.x_columns, count)
    parts = zip(given.exact["dy_columns"].split(counts), given.exact["x_columns"].split(counts), strict=True)
    for e, (dy, x) in enumerate(parts):
        assert_product(case, into[e], dy.T, x, before[e].double())
        assert counts[e] or torch.equal(into[e], before[e]), "an expert without rows was written to"


def test_weights_that_change_in_place_are_seen(case, backend):
    """Dgrad may keep bytes of W in another order, but never old ones."""
    given = operands(case, backend, 5, 136, 33)
    backend.backward(given.dy, given.w, torch.float32)
    given.w.q.view(torch.uint8).bitwise_xor_(0x80)
    dx = backend.backward(given.dy, given.w, torch.float32)
    assert_product(case, dx, given.exact["dy"], -given.exact["w"])


def test_rows_that_were_gathered_multiply_as_well(case, backend):
    """Dispatch copies rows and scales; what comes of it need not lie in memory as a quantiser writes it."""
    given = operands(case, backend, 130, 300, 150)
    order = torch.arange(129, -1, -1, device=case.device)
    bytes_NX = given.x.q.view(torch.uint8)[order]
    x = Quantized(bytes_NX.view(E4M3), given.x.scale[order])
    y = backend.forward(x, given.w, torch.float32)
    assert_product(case, y, given.exact["x"].flip(0), given.exact["w"].T)
