"""Rows of a product have the same bits whatever their number, and so have the operations between products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.ops.products import (
    TILE,
    WIDTH,
    PackedProducts,
    PlainProducts,
    Product,
    TiledProducts,
    choose_products,
    row_exact,
)
from fathom.ops.rowwise import RowNorm, gated, max_runs, sigmoid, sum_runs

COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 17, 23, 33, 64, 65, 129, 200)
SHAPES = ((48, 32), (33, 20), (400, 48), (7, 5), (1024, 384), (1, 1), (96, 1000))
packed = pytest.mark.skipif(
    not PackedProducts.available(torch.float32), reason="this build of torch has no oneDNN products"
)
FORMS = [pytest.param(PackedProducts(), marks=packed, id="packed"), pytest.param(TiledProducts(), id="tiled")]


class Liar:
    """A product whose rows change in the last bits when there are 8 or more."""

    name = "products that change with company"

    def pack(self, weight_YX: Tensor) -> Product:
        def product(x_NX: Tensor) -> Tensor:
            y_NY = F.linear(x_NX, weight_YX)
            return y_NY * (1 + 2**-22) if len(x_NX) >= 8 else y_NY

        return product


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_have_the_same_bits_in_products_of_any_size(form, shape, generator):
    assert row_exact(form, torch.randn(shape, generator=generator), COUNTS)


@pytest.mark.parametrize("form", FORMS)
def test_rows_have_the_same_bits_on_one_thread_and_on_two(form, generator):
    x_NX, weight_YX = torch.randn(37, 96, generator=generator), torch.randn(200, 96, generator=generator)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = form.pack(weight_YX)(x_NX)
        torch.set_num_threads(1)
        assert torch.equal(two, form.pack(weight_YX)(x_NX))
    finally:
        torch.set_num_threads(before)


def test_the_test_of_exactness_can_fail(generator):
    assert not row_exact(Liar(), torch.randn(48, 32, generator=generator), COUNTS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, TILE - 1, TILE, TILE + 1, 70])
def test_every_form_multiplies(form, shape, rows, generator):
    weight_YX = torch.randn(shape, generator=generator)
    x_NX = torch.randn(rows, shape[1], generator=generator)
    expected = x_NX.double() @ weight_YX.double().T
    for product in (form.pack(weight_YX), PlainProducts().pack(weight_YX)):
        torch.testing.assert_close(product(x_NX).double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(8, 4), (2 * WIDTH, WIDTH)], ids=["to be filled up", "full"])
def test_a_packed_weight_is_a_copy(form, shape, generator):
    weight_YX, x_NX = torch.randn(shape, generator=generator), torch.randn(3, shape[1], generator=generator)
    product = form.pack(weight_YX)
    before = product(x_NX).clone()
    assert before.any()
    weight_YX.zero_()
    assert torch.equal(product(x_NX), before)


def test_slices_of_wider_rows_are_taken(generator):
    weight_YX, wide_NX = torch.randn(8, 4, generator=generator), torch.randn(5, 10, generator=generator)
    for form in (PackedProducts(), TiledProducts()):
        product = form.pack(weight_YX)
        assert torch.equal(product(wide_NX[:, 3:7]), product(wide_NX[:, 3:7].contiguous()))


def test_float64_is_tiled_and_float32_on_a_cpu_is_packed():
    assert isinstance(choose_products(torch.device("cpu"), torch.float64), TiledProducts)
    if PackedProducts.available(torch.float32):
        assert isinstance(choose_products(torch.device("cpu"), torch.float32), PackedProducts)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_elementwise_bits_do_not_depend_on_place_or_number(threads, generator):
    x = torch.randn(40_001, generator=generator) * 4
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        whole = sigmoid(x)
        for length in (*range(1, 70), 1000, 1003, 33_000):
            for start in (0, 1, 5):
                assert torch.equal(sigmoid(x[start : start + length].clone()), whole[start : start + length])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("width", [1, 5, 16, 24, 33])
def test_rows_of_a_gate_and_of_a_norm_do_not_depend_on_their_number(width, generator):
    x = torch.randn(70, 2 * width, generator=generator)
    norm = RowNorm(torch.randn(2 * width, generator=generator), 1e-6)
    for rows in range(1, 70):
        assert torch.equal(gated(x[:rows].clone()), gated(x)[:rows])
        assert torch.equal(norm(x[-rows:].clone()), norm(x)[-rows:])


def test_gate_and_norm_are_the_models_own(generator):
    x = torch.randn(9, 24, generator=generator)
    gate, up = x.chunk(2, -1)
    torch.testing.assert_close(gated(x), F.silu(gate) * up, rtol=1e-6, atol=1e-6)
    weight = torch.rand(24, generator=generator)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        y, w = x.to(dtype), weight.to(dtype)
        torch.testing.assert_close(RowNorm(w, 1e-6)(y), F.rms_norm(y, (24,), w, 1e-6))
    assert RowNorm(weight, 1e-6)(torch.zeros(1, 24)).eq(0).all()
    assert sigmoid(torch.tensor([-200.0, 200.0])).tolist() == [0.0, 1.0]


def test_runs_are_summed_one_after_the_other(generator):
    x = torch.randn(50, 3, 5, generator=generator)
    start = torch.tensor([0, 1, 4, 20])
    sums, largest = sum_runs(x, start), max_runs(x, start)
    for r, (first, last) in enumerate(((0, 1), (1, 4), (4, 20), (20, 50))):
        total = x[first].clone()
        for part in x[first + 1 : last]:
            total += part
        assert torch.equal(sums[r], total)
        assert torch.equal(largest[r], x[first:last].amax(0))
