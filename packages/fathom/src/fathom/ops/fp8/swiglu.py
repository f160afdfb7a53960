"""SwiGLU networks in FP8, one wide one or many over rows sorted by expert (report sections 3.3.2 and 3.3.3).

Held until the backward pass: x, and g and u, the inputs of SwiGLU, all in FP8; h is made again.

    forward    g = gate x    u = up x    h = SiLU(g) u w    y = down h
    backward   dh = down^T dy    dw = dh . SiLU(g) u    du = dh w SiLU(g)    dg = dh w u SiLU'(g)

Axes:  N tokens   R rows: tokens as they are, or copied for each expert and sorted   K copies of a token
       D model width   F inner width
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fathom.ops.deferred import make_or_leave
from fathom.ops.fp8.backend import Backend
from fathom.ops.fp8.linear import Fp8Linear, gradient_of
from fathom.ops.fp8.shared import GRADIENT, Shared
from fathom.ops.fp8.tiles import Quantized
from fathom.ops.permute import Copies, sum_rows
from fathom.ops.swiglu import SwiGLU


class Fp8SwiGLU(SwiGLU):
    """The dense feed-forward and the shared expert; `gate`, `up` and `down` hold the weights."""

    def __init__(self, width: int, inner: int, shared: Shared) -> None:
        super().__init__(width, inner, lambda width_in, width_out: Fp8Linear(width_in, width_out, shared))
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        read = self.shared.input(x)
        maps: list[Fp8Linear] = [self.gate, self.up, self.down]  # type: ignore[list-item]  # made above
        weights = tuple(m.quantized() for m in maps)
        how = How(self, self.shared, weights, Whole(self.shared.backend))
        return run(x.flatten(0, -2), read, tuple(m.weight for m in maps), how).view_as(x)


class Whole:
    """The three products of one network."""

    def __init__(self, backend: Backend) -> None:
        self.forward, self.backward, self.add_outer = backend.forward, backend.backward, backend.add_outer


class Grouped:
    """The three products of many networks, each with its part of the rows."""

    def __init__(self, backend: Backend, count_E: Tensor) -> None:
        self._backend, self._count_E = backend, count_E

    def forward(self, x: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend.grouped_forward`."""
        return self._backend.grouped_forward(x, w, self._count_E, dtype)

    def backward(self, dy: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend.grouped_backward`."""
        return self._backend.grouped_backward(dy, w, self._count_E, dtype)

    def add_outer(self, into: Tensor, dy: Quantized, x: Quantized) -> None:
        """As `Backend.add_grouped_outer`."""
        self._backend.add_grouped_outer(into, dy, x, self._count_E)


@dataclass(frozen=True, slots=True)
class How:
    """Everything of one call that has no gradient."""

    module: nn.Module  # for whoever asks where a NaN came from
    shared: Shared
    weights: tuple[Quantized, ...]  # gate, up and down
    products: Whole | Grouped
    power_of_two: bool = False  # rows may travel in FP8: either way the same numbers are read


def run(
    x: Tensor,
    read: Quantized,
    weights: tuple[Tensor, ...],
    how: How,
    weight_R: Tensor | None = None,
    copies: Copies | None = None,
) -> Tensor:
    """One or many networks over `x`, [N, D], or over its `copies`, [R, D]. -> [R, D], in the dtype of `x`.

    read      `x` as the networks read it
    weights   gate, up and down, fp32: their gradients are theirs, their values are in `how`
    weight_R  what h of each row is multiplied by
    """
    if torch.is_grad_enabled():
        how.shared.not_finite.look(how.module, "its input", read.scale)
        for weight in how.weights:
            how.shared.not_finite.look(how.module, "its weights", weight.scale)
    index = (None, None) if copies is None else (copies.token_R, copies.row_NK)
    y: Tensor = _SwiGLU.apply(x, *weights, weight_R, (read, *index, how))
    return y


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gate: Tensor,
        up: Tensor,
        down: Tensor,
        weight_R: Tensor | None,
        given: tuple[Quantized, Tensor | None, Tensor | None, How],
    ) -> Tensor:
        read, token_R, row_NK, how = given
        products, (wg, wu, wd) = how.products, how.weights
        x_R = copied(read, token_R, row_NK)
        g_RF, u_RF = products.forward(x_R, wg, x.dtype), products.forward(x_R, wu, x.dtype)
        g, u, h = how.shared.backend.swiglu(g_RF, u_RF, weight_R)
        # What recomputation is to free is saved, not remembered: How holds no activation.
        ctx.how, ctx.weights, ctx.dtype = how, (gate, up, down), x.dtype
        ctx.save_for_backward(*read, *g, *u, weight_R, token_R, row_NK)
        return products.forward(h, wd, x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        how: How = ctx.how
        shared, backend, products = how.shared, how.shared.backend, how.products
        *saved, weight_R, token_R, row_NK = ctx.saved_tensors
        read, g, u = (Quantized(*saved[i : i + 2]) for i in (0, 2, 4))
        wg, wu, wd = how.weights
        dy_RD = without_fill(grad[0], row_NK)
        dy = shared.gradient(dy_RD, power_of_two=how.power_of_two)
        shared.not_finite.look(how.module, GRADIENT, dy.scale)
        g_RF, u_RF = (backend.dequantize(part, torch.float32) for part in (g, u))
        dh_RF = products.backward(dy, wd, torch.float32)
        dg_RF, du_RF, h_RF, dweight_R = _through_swiglu(g_RF, u_RF, weight_R, dh_RF)
        dx_RD = products.backward(shared.gradient(dg_RF), wg, ctx.dtype)
        dx_RD += products.backward(shared.gradient(du_RF), wu, ctx.dtype)
        if how.power_of_two and shared.gradients == "tiles":
            dy_columns = backend.tiles_to_columns(dy, power_of_two=True)
        else:
            dy_columns = backend.columns(dy_RD, power_of_two=how.power_of_two)
        columns = backend.columns(dg_RF), backend.columns(du_RF), dy_columns
        made = _weight_gradients(ctx, (read, token_R, row_NK), columns, backend.columns(h_RF))
        return dx_RD if row_NK is None else sum_rows(dx_RD, row_NK), *made, dweight_R, None


def _through_swiglu(
    g_RF: Tensor, u_RF: Tensor, weight_R: Tensor | None, dh_RF: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """dg, du, h and dw, from fp32; `dh_RF` is overwritten."""
    s_RF = F.silu(g_RF)
    h_RF = s_RF * u_RF
    dweight_R = None
    if weight_R is not None:
        dweight_R = torch.linalg.vecdot(dh_RF, h_RF).to(weight_R.dtype)
        dh_RF.mul_(weight_R[:, None])
        h_RF.mul_(weight_R[:, None])
    du_RF = s_RF.mul_(dh_RF)
    dg_RF = torch.ops.aten.silu_backward(dh_RF.mul_(u_RF), g_RF)
    return dg_RF, du_RF, h_RF, dweight_R


def _weight_gradients(
    ctx: Any,
    source: tuple[Quantized, Tensor | None, Tensor | None],
    dy: tuple[Quantized, ...],
    h: Quantized,
) -> list[Tensor | None]:
    """Of gate, up and down, from gradients and h in columns; made now or left for later."""
    how: How = ctx.how
    columns: list[Quantized] = []  # of x, made once for gate and up

    def outer(weight: Tensor, dy: Quantized, of: Quantized | None) -> Tensor | None:
        if of is None and not columns:
            to_columns = how.shared.backend.tiles_to_columns
            columns.append(to_columns(copied(*source), power_of_two=how.power_of_two))
        into = gradient_of(weight)
        how.products.add_outer(into, dy, columns[0] if of is None else of)
        return None if into is weight.grad else into

    rows = tuple(zip(dy, (None, None, h), strict=True))
    return make_or_leave(how.shared.weight_gradients, ctx.weights, rows, ctx.needs_input_grad[1:4], outer)


def copied(x: Quantized, token_R: Tensor | None, row_NK: Tensor | None) -> Quantized:
    """Tokens, [N, D], as rows, [R, D]: held once, they are copied for each expert in both passes."""
    if token_R is None:
        return x
    bytes_RD = x.q.view(torch.uint8).index_select(0, token_R)
    bytes_RD = without_fill(bytes_RD, row_NK)
    return Quantized(bytes_RD.view(x.q.dtype), x.scale.index_select(0, token_R))


def without_fill(y_RD: Tensor, row_NK: Tensor | None) -> Tensor:
    """Rows with those that only fill up set to zero."""
    if row_NK is None or len(y_RD) == row_NK.numel():
        return y_RD
    fills_R = torch.ones(len(y_RD), dtype=torch.bool, device=y_RD.device)
    fills_R = fills_R.index_fill_(0, row_NK.flatten(), False)
    return y_RD.masked_fill(fills_R[:, None], 0)
