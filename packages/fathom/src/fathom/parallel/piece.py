"""A part of a forward pass that autograd sees alone; gradients enter and leave it by hand.

Communication lies between pieces, so that a pipeline decides when it starts and what runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

Edges = list[GradientEdge | None]


class Piece:
    """`function(*inputs)`, run now; its backward pass is run when `backward` is called, once.

    The function takes tensors with a gradient and returns a tuple of tensors. A piece keeps what autograd
    saved and no more: not its inputs, unless they are among that.
    """

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, recompute: bool = False
    ) -> None:
        """With `recompute` the function runs again in the backward pass and nothing is stored till then."""
        self._function = function
        self._shapes = [(x.shape, x.dtype, x.device) for x in inputs]
        self._found: list[Tensor | None] = [None] * len(inputs)  # gradients of the inputs
        self._inputs = tuple(x.detach() for x in inputs) if recompute else ()
        made = self._run(*inputs)
        self._edges: Edges | None = None if recompute else _edges(made)
        self._outputs = tuple(y.detach() for y in made)

    def take(self) -> tuple[Tensor, ...]:
        """What the function returned, without its graph; to be taken once, the piece does not keep it."""
        taken, self._outputs = self._outputs, ()
        return taken

    def _run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaf = torch.empty(0, requires_grad=True)  # an input that were one would be held by its gradient
            entering = (_Enter.apply(leaf, x.detach(), self._found, place) for place, x in enumerate(inputs))
            return self._function(*entering)

    def backward(self, *grads: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the outputs -> of the inputs (zeros where none depends); weights get theirs added."""
        edges = self._edges if self._edges is not None else _edges(self._run(*self._inputs))
        reached = [(edge, g) for edge, g in zip(edges, grads, strict=True) if edge is not None]
        torch.autograd.backward([edge for edge, _ in reached], [g for _, g in reached])
        each = zip(self._found, self._shapes, strict=True)
        found = tuple(torch.zeros(s, dtype=t, device=d) if g is None else g for g, (s, t, d) in each)
        self._edges, self._inputs, self._found = None, (), []
        return found


class _Enter(torch.autograd.Function):
    """A tensor as it enters a piece; its gradient goes to a list."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor, x: Tensor, found: list[Tensor | None], place: int) -> Tensor:
        ctx.found, ctx.place = found, place
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[None, None, None, None]:
        ctx.found[ctx.place] = grad[0]
        return None, None, None, None


def _edges(made: tuple[Tensor, ...]) -> Edges:
    """Where gradients of these enter the graph; None where nothing depends on them."""
    return [get_gradient_edge(y) if y.requires_grad else None for y in made]
