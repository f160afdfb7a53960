"""Gradients of weights that can wait: a backward pass leaves them, a pipeline's idle time makes them.

Splitting a backward pass by autograd's own means runs custom functions twice. Here the functions themselves
hand over what is left to do, and nothing runs twice (zero-bubble schedules, arXiv 2401.10241; report 3.2.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Left = list[Callable[[], None]]  # each adds one weight's gradient


class WeightGradients:
    """Where backward passes hand over weight gradients; made at once unless somebody wants them later."""

    def __init__(self) -> None:
        self._left: Left | None = None

    @property
    def wait(self) -> bool:
        """Whether somebody wants them later."""
        return self._left is not None

    def put(self, add: Callable[[], None]) -> None:
        """Hand over; only while `wait`."""
        assert self._left is not None, "nobody wants this weight's gradient later"
        self._left.append(add)

    @contextmanager
    def later(self, left: Left) -> Iterator[None]:
        """Append what backward passes in here hand over to `left`."""
        before, self._left = self._left, left
        try:
            yield
        finally:
            self._left = before


def finish(left: Left) -> None:
    """Make what was left, in order."""
    with torch.no_grad():
        for add in left:
            add()
    left.clear()


def make_or_leave(
    later: WeightGradients,
    weights: Sequence[Tensor],
    rows: Sequence[tuple[Any, Any]],
    wanted: Sequence[bool],
    outer: Callable[[Tensor, Any, Any], Tensor | None],
) -> list[Tensor | None]:
    """What a backward pass returns for its weights: their gradients, or nothing if they wait.

    rows    of each weight, what its gradient is made of: dy and x
    outer   `outer(weight, dy, x)`, dy^T x, or None where it was added to `weight.grad` at once
    """
    asked = [(weight, pair) for weight, pair, want in zip(weights, rows, wanted, strict=True) if want]

    def add() -> None:
        for weight, pair in asked:
            add_gradient(weight, outer(weight, *pair))

    if later.wait and asked:
        later.put(add)
        return [None] * len(weights)
    triples = zip(weights, rows, wanted, strict=True)
    return [outer(weight, *pair) if want else None for weight, pair, want in triples]


def add_gradient(weight: Tensor, made: Tensor | None) -> None:
    """What autograd does with a gradient that a function returns: in place, where there is one already."""
    if made is not None and weight.grad is not None:
        weight.grad.add_(made)
    elif made is not None:
        weight.grad = made
