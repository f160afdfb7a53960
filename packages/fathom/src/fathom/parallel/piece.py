"""A part of a forward pass that autograd sees alone; gradients enter and leave it by hand.

Communication lies between pieces, so that a pipeline decides when it starts and what runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

Edges = list[GradientEdge | None]


class Piece:
    """`function(*inputs)`, run now; its backward pass is run when `backward` is called, once.

    The function takes tensors with a gradient and returns a tuple of tensors. A piece keeps what autograd
    saved and no more.
    """

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, recompute: bool = False
    ) -> None:
        """With `recompute` the function runs again in the backward pass and nothing is stored till then."""
        self._function, self._inputs = function, tuple(x.detach().requires_grad_() for x in inputs)
        made = self._run()
        self._edges: Edges | None = None if recompute else _edges(made)
        self._outputs = tuple(y.detach() for y in made)

    def take(self) -> tuple[Tensor, ...]:
        """What the function returned, without its graph; to be taken once, the piece does not keep it."""
        taken, self._outputs = self._outputs, ()
        return taken

    def _run(self) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            return self._function(*self._inputs)

    def backward(self, *grads: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the outputs -> of the inputs (zeros where none depends); weights get theirs added."""
        edges = self._edges if self._edges is not None else _edges(self._run())
        reached = [(edge, g) for edge, g in zip(edges, grads, strict=True) if edge is not None]
        torch.autograd.backward([edge for edge, _ in reached], [g for _, g in reached])
        found = tuple(x.grad if x.grad is not None else torch.zeros_like(x) for x in self._inputs)
        self._edges, self._inputs = None, ()
        return found


def _edges(made: tuple[Tensor, ...]) -> Edges:
    """Where gradients of these enter the graph; None where nothing depends on them."""
    return [get_gradient_edge(y) if y.requires_grad else None for y in made]
