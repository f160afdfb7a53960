"""Matrix products whose every row has the same bits whatever the number of rows beside it.

An ordinary product does not promise that: for one row, four or a hundred, libraries take other kernels, which
sum in another order. Inference in batches needs the promise, or an answer depends on who else is asking.
A compiled kernel is one more class with `pack` here; nothing else changes.

Axes:  N rows   X width in   Y width out
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

PACKED_FOR = 16  # rows the layout is chosen for; then one row and a thousand are summed in one order
TILE = 16  # rows of every product where only equal shapes can be trusted
WIDTH = 16  # and widths are multiples of this: rows that start at odd places take other kernels


class Product(Protocol):
    """One weight, ready to be multiplied by."""

    def __call__(self, x_NX: Tensor) -> Tensor:
        """x W^T. [N, X] -> [N, Y], in the dtype of `x_NX`."""
        ...


class Products(Protocol):
    """A way of multiplying."""

    name: str  # for the engine's start-up line

    def pack(self, weight_YX: Tensor) -> Product:
        """Take a weight; the caller may drop it afterwards."""
        ...


def fill(x: Tensor) -> Tensor:
    """`x` with zeros behind its last axis up to a multiple of WIDTH; itself where nothing is missing."""
    return F.pad(x, (0, -x.shape[-1] % WIDTH)) if x.shape[-1] % WIDTH else x


class PlainProducts:
    """`F.linear` as it is: the plain form. Its rows depend on their number."""

    name = "plain products"

    def pack(self, weight_YX: Tensor) -> Product:
        """Keep the weight as it is."""
        return lambda x_NX: F.linear(x_NX, weight_YX)


class PackedProducts:
    """oneDNN with weights in its own blocked layout, made once; on a CPU.

    Its kernels walk the inner width in blocks that the layout fixes, so all rows are summed alike. It is also
    the faster form: an ordinary product lays the weight out anew at every call.
    """

    name = "oneDNN products on weights packed once"

    def pack(self, weight_YX: Tensor) -> Product:
        """Lay the weight out in blocks."""
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_YX.detach().contiguous(), PACKED_FOR)

        multiply = torch.ops.mkldnn._linear_pointwise.default

        def product(x_NX: Tensor) -> Tensor:
            y_NY: Tensor = multiply(x_NX.contiguous(), packed, None, "none", [], "")
            return y_NY

        return product

    @staticmethod
    def available(dtype: torch.dtype) -> bool:
        """Whether this build and machine have them."""
        try:
            y = PackedProducts().pack(torch.ones(4, 8, dtype=dtype))(torch.ones(3, 8, dtype=dtype))
        except (RuntimeError, AttributeError):
            return False
        return bool((y == 8).all())


class TiledProducts:
    """Every product has TILE rows, filled up with zeros: equal shapes, equal kernels, equal bits.

    It trusts no library to be more than repeatable, on a GPU too, and pays for it: a weight is read once for
    every TILE rows.
    """

    name = f"products of {TILE} rows at a time"

    def pack(self, weight_YX: Tensor) -> Product:
        """Keep the weight, its widths filled up with zeros."""
        Y, X = weight_YX.shape
        filled_YX = F.pad(weight_YX, (0, -X % WIDTH, 0, -Y % WIDTH))

        def product(x_NX: Tensor) -> Tensor:
            N = len(x_NX)
            filled_NX = F.pad(x_NX, (0, -X % WIDTH, 0, -N % TILE)).contiguous()
            return torch.cat([F.linear(tile, filled_YX) for tile in filled_NX.split(TILE)])[:N, :Y]

        return product


def choose_products(device: torch.device, dtype: torch.dtype) -> Products:
    """The fastest form that is exact on this kind of device; `row_exact` tests it."""
    if device.type == "cpu" and PackedProducts.available(dtype):
        return PackedProducts()
    return TiledProducts()


def row_exact(products: Products, weight_YX: Tensor, counts: tuple[int, ...]) -> bool:
    """Whether rows have the same bits in products of all these numbers of rows, at any place among them."""
    generator = torch.Generator().manual_seed(0)
    x_NX = torch.randn(max(counts), weight_YX.shape[1], generator=generator).to(weight_YX)
    product = products.pack(weight_YX)
    y_NY = product(x_NX)
    first = all(torch.equal(product(x_NX[:n].clone()), y_NY[:n]) for n in counts)
    return first and all(torch.equal(product(x_NX[-n:].clone()), y_NY[-n:]) for n in counts)
