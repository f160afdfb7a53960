"""All parameters in one buffer: fp32 masters, their gradients, the bf16 copy that the model computes with.

One buffer means one pass for the norm, one for AdamW, one for the average, and no list of tensors to walk.
The model's parameters become views, and their gradients too, so backward passes add where AdamW reads.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fathom.ops.experts import Experts
from fathom.ops.fp8.experts import Fp8Experts
from fathom.ops.fp8.linear import Fp8Linear
from fathom.ops.linear import Linear

ALIGNMENT = 64  # elements: every view starts on a cache line


class Buffers:
    """fp32 masters and gradients of `model`, whose matrices compute in `dtype`.

    Order: matrices of products and the embedding (those that get a copy in `dtype`), other matrices (routers,
    which stay fp32, and what FP8 layers quantise), then vectors (norms), which stay fp32 too. Weight decay
    concerns what comes before `vectors`. Moving the model to another device afterwards would part it from
    its buffers.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        named = dict(model.named_parameters())
        products = [m for m in model.modules() if isinstance(m, Linear | Experts | nn.Embedding)]
        self._in_fp8 = [m for m in products if isinstance(m, Fp8Linear | Fp8Experts)]
        narrow = {
            id(p) for m in products if m not in self._in_fp8 for p in m.parameters(recurse=False)
        }
        order = sorted(named, key=lambda name: (named[name].ndim < 2, id(named[name]) not in narrow))
        self._place: dict[str, slice] = {}
        at, self.vectors, self.narrow = 0, 0, 0
        for name in order:
            parameter = named[name]
            self._place[name] = slice(at, at + parameter.numel())
            at += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
            self.narrow = at if id(parameter) in narrow else self.narrow
            self.vectors = at if parameter.ndim >= 2 else self.vectors
        self._shape = {name: parameter.shape for name, parameter in named.items()}
        device = next(iter(named.values())).device
        self.master = torch.zeros(at, device=device)
        self.grad = torch.zeros(at, device=device)
        self._copy = self._copy_grad = None
        if dtype != torch.float32:
            self._copy = torch.zeros(self.narrow, dtype=dtype, device=device)
            self._copy_grad = torch.zeros_like(self._copy)
        self._pending = False  # whether `grad` already holds what earlier micro-batches left
        self._parameters = named
        for name, parameter in named.items():
            self.view(self.master, name).copy_(parameter.detach())
        self._bind()
        self.refresh()

    def _bind(self) -> None:
        """Let every parameter of the model be a view, and its gradient too."""
        for name, parameter in self._parameters.items():
            weight, grad = self.master, self.grad
            copied = self._place[name].stop <= self.narrow
            if copied and self._copy is not None and self._copy_grad is not None:
                weight, grad = self._copy, self._copy_grad
            parameter.data = self.view(weight, name)
            parameter.grad = self.view(grad, name)

    def view(self, buffer: Tensor, name: str) -> Tensor:
        """The part of a buffer that belongs to a parameter, in its shape."""
        return buffer[self._place[name]].view(self._shape[name])

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """Every parameter's part of a buffer."""
        return {name: self.view(buffer, name) for name in self._place}

    def refresh(self) -> None:
        """Bring the copies that the model computes with up to the masters: bf16 ones, and FP8 ones."""
        if self._copy is not None:
            self._copy.copy_(self.master[: self.narrow])
        for layer in self._in_fp8:
            layer.keep()

    def accumulate(self) -> None:
        """After each backward pass: add bf16 gradients to the fp32 ones (report section 3.3.2, figure 6)."""
        if self._copy_grad is None:
            return
        into = self.grad[: self.narrow]
        if self._pending:
            into += self._copy_grad
        else:
            into.copy_(self._copy_grad)
        self._copy_grad.zero_()
        self._pending = True

    def clear(self) -> None:
        """Set all gradients to zero."""
        self.grad.zero_()
        if self._copy_grad is not None:
            self._copy_grad.zero_()
        self._pending = False

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take the masters from `weights`."""
        for name in self._place:
            self.view(self.master, name).copy_(weights[name])
        self.refresh()
