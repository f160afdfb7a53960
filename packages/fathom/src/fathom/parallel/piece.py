"""A part of a forward pass that autograd sees alone; gradients enter and leave it by hand.

Communication lies between pieces, so that a pipeline decides when it starts and what runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Piece:
    """`function(*inputs)`, run now; its backward pass is run when `backward` is called, once.

    The function takes tensors with a gradient and returns a tuple of tensors.
    """

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, recompute: bool = False
    ) -> None:
        """With `recompute` the function runs again in the backward pass and nothing is stored till then."""
        self._function, self._inputs = function, tuple(x.detach().requires_grad_() for x in inputs)
        made = self._run()
        self._made: tuple[Tensor, ...] | None = None if recompute else made
        self.outputs = tuple(y.detach() for y in made)

    def _run(self) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            return self._function(*self._inputs)

    def backward(self, *grads: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the outputs -> of the inputs (zeros where none depends); weights get theirs added."""
        made = self._made if self._made is not None else self._run()
        reached = [(y, g) for y, g in zip(made, grads, strict=True) if y.requires_grad]
        torch.autograd.backward([y for y, _ in reached], [g for _, g in reached])
        found = tuple(x.grad if x.grad is not None else torch.zeros_like(x) for x in self._inputs)
        self._made, self._inputs = None, ()
        return found
