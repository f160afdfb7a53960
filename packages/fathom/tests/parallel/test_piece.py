"""A piece of a forward pass has autograd's gradients, and holds what autograd holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fathom.parallel.piece import Piece


def both(a: Tensor, b: Tensor, unused: Tensor) -> tuple[Tensor, Tensor]:
    return (a * b).sin() + a, b.exp()


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_autograd(recompute):
    draw = torch.Generator().manual_seed(0)
    a, b, unused, *grads = (torch.randn(3, 4, generator=draw, dtype=torch.float64) for _ in range(5))
    piece = Piece(both, a, b, unused, recompute=recompute)
    made = piece.take()
    leaves = [t.clone().requires_grad_() for t in (a, b)]
    whole = both(*leaves, unused)
    assert all(torch.equal(x, y) for x, y in zip(made, whole, strict=True))
    torch.autograd.backward(whole, grads)
    *found, none = piece.backward(*grads)
    assert all(torch.equal(x, leaf.grad) for x, leaf in zip(found, leaves, strict=True))
    assert torch.equal(none, torch.zeros_like(unused)) and not a.requires_grad


def test_weights_get_their_gradients_added():
    layer = torch.nn.Linear(4, 2, bias=False)
    layer.weight.grad = torch.ones_like(layer.weight)
    x = torch.randn(3, 4)
    piece = Piece(lambda x: (layer(x),), x)
    piece.backward(torch.ones(3, 2))
    torch.testing.assert_close(layer.weight.grad, 1 + torch.ones(3, 2).T @ x)


class _Narrow(torch.autograd.Function):
    """Needs half of its input's bytes for the backward pass, as a layer in FP8 does."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.bfloat16())
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0].float()


@pytest.mark.parametrize("recompute", [False, True])
def test_an_input_that_nobody_saved_is_freed(recompute):
    x = torch.randn(64, 64)
    there = StorageWeakRef(x.untyped_storage())
    piece = Piece(lambda x: (_Narrow.apply(x),), x, recompute=recompute)
    piece.take()
    del x
    assert there.expired() is not recompute
    (found,) = piece.backward(torch.ones(64, 64))
    assert found.shape == (64, 64) and there.expired()
