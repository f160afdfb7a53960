"""A linear map whose three products are in FP8 (report section 3.3.1, figure 6).

Axes:  N rows   X width in   Y width out
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fathom.ops.deferred import make_or_leave
from fathom.ops.fp8.e5m6 import E5M6, pack_e5m6, unpack_e5m6
from fathom.ops.fp8.shared import GRADIENT, Shared
from fathom.ops.fp8.tiles import Quantized
from fathom.ops.linear import Linear


class Fp8Linear(Linear):
    """y = x W^T: x in 1 x 128 tiles, W in blocks; dx of dy in tiles; dW of dy and x in 128 x 1 tiles, fp32.

    The weight is fp32, read as FP8; its gradient is added up in fp32. Until the backward pass x is held in
    FP8, or with `finer` in E5M6, scales powers of two (report section 3.3.3).
    """

    def __init__(self, width_in: int, width_out: int, shared: Shared, *, finer: bool = False) -> None:
        super().__init__(width_in, width_out)
        self.shared, self.finer = shared, finer
        self._kept: Quantized | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[..., width_in] -> [..., width_out], in the dtype of `x`."""
        read, weight = self.shared.input(x, power_of_two=self.finer), self.quantized()
        if torch.is_grad_enabled():
            self.shared.not_finite.look(self, "its input", read.scale)
            self.shared.not_finite.look(self, "its weight", weight.scale)
        y: Tensor = _Linear.apply(x, self.weight, _How(self, read, weight))
        return y

    def quantized(self) -> Quantized:
        """The weight in blocks: as kept, or made now."""
        return self.shared.backend.blocks(self.weight.detach()) if self._kept is None else self._kept

    def keep(self) -> None:
        """Quantise the weight for all passes until the next call: whoever updates it says so."""
        self._kept = None
        self._kept = self.quantized()

    def _load_from_state_dict(self, *args: Any, **named: Any) -> None:
        """Other weights: what was kept is of no use."""
        self._kept = None
        super()._load_from_state_dict(*args, **named)


class _How(NamedTuple):
    layer: Fp8Linear
    x: Quantized
    weight: Quantized


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_YX: Tensor, how: _How) -> Tensor:
        layer = how.layer
        ctx.layer, ctx.weight, ctx.weight_YX, ctx.shape = layer, how.weight, weight_YX, x.shape
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*(pack_e5m6(x.flatten(0, -2)) if layer.finer else how.x))
        y_NY = layer.shared.backend.forward(how.x, how.weight, x.dtype)
        return y_NY.view(*x.shape[:-1], len(weight_YX))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        layer: Fp8Linear = ctx.layer
        shared, backend = layer.shared, layer.shared.backend
        dy_NY = grad[0].flatten(0, -2)
        wants_x, wants_weight, _ = ctx.needs_input_grad
        dx = None
        if wants_x:
            dy = shared.gradient(dy_NY)
            shared.not_finite.look(layer, GRADIENT, dy.scale)
            dx = backend.backward(dy, ctx.weight, dy_NY.dtype).view(ctx.shape)
        saved = ctx.saved_tensors

        def outer(weight_YX: Tensor, dy: Quantized, held: tuple[Tensor, Tensor]) -> Tensor | None:
            into_YX = gradient_of(weight_YX)
            if layer.finer:
                x = backend.columns(unpack_e5m6(E5M6(*held), ctx.shape[-1]), power_of_two=True)
            else:
                x = backend.tiles_to_columns(Quantized(*held))
            backend.add_outer(into_YX, dy, x)
            return None if into_YX is weight_YX.grad else into_YX

        rows = (backend.columns(dy_NY) if wants_weight else None, saved)
        made = make_or_leave(shared.weight_gradients, (ctx.weight_YX,), (rows,), (wants_weight,), outer)
        return dx, *made, None


def gradient_of(weight: Tensor) -> Tensor:
    """Where the fp32 gradient of `weight` is added up: in `weight.grad`, or in a new tensor."""
    ready = weight.grad is not None and weight.grad.dtype == torch.float32
    return weight.grad if ready and weight.grad is not None else torch.zeros_like(weight, dtype=torch.float32)
