"""What the FP8 layers of a model share: inputs read once, and the memory of who first saw a NaN."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor, nn

from fathom.ops.fp8.cpu import Cpu
from fathom.ops.fp8.kernels import Fp8Kernels
from fathom.ops.fp8.reference import Reference

N, X, Y = 210, 200, 136


def seeded(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module) -> nn.Module:
    for at, parameter in enumerate(module.parameters()):
        parameter.data = seeded(*parameter.shape, seed=at + 10, size=0.05)
    return module


@pytest.fixture(params=["reference", "cpu"])
def kernels(request: pytest.FixtureRequest) -> Fp8Kernels:
    return Fp8Kernels(Reference() if request.param == "reference" else Cpu(torch.float32))


def test_what_was_read_one_way_is_not_handed_out_another_way(kernels):
    """One tensor read with fp32 scales, then with powers of two."""
    x = seeded(N, X)
    low, finer = filled(kernels.linear(X, Y)), filled(kernels.linear(X, Y, "finer"))
    both = low(x), finer(x)
    alone = low(x.clone()), finer(x.clone())
    assert all(torch.equal(a, b) for a, b in zip(both, alone, strict=True))
    assert not torch.equal(*both)


def test_nothing_is_remembered_of_a_tensor_that_is_gone(kernels):
    layer, x = filled(kernels.linear(X, Y)), seeded(N, X)
    with torch.no_grad():
        layer(x)
    assert len(kernels.shared._last) == 1
    del x
    assert not kernels.shared._last
    again = pickle.loads(pickle.dumps(layer))
    assert torch.equal(again(seeded(N, X)), layer(seeded(N, X)))


def test_two_maps_that_read_one_tensor_hold_it_once(kernels):
    gate, up = filled(kernels.linear(X, Y)), filled(kernels.linear(X, Y))
    x, places = seeded(N, X).requires_grad_(), set()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (places.add(t.data_ptr()), t)[1], lambda t: t):
        (gate(x) + up(x)).sum()
    assert len(places) == 2, "numbers and scales, of both"
    before = gate(x)
    with torch.no_grad():
        x += 1.0
    assert not torch.equal(gate(x), before), "a tensor that was changed in place is read anew"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_layer_that_first_saw_a_bad_number_is_named(kernels, bad):
    model = nn.Sequential(filled(kernels.linear(X, X)), nn.Identity(), filled(kernels.linear(X, Y)))
    found = kernels.shared.not_finite
    x = seeded(N, X)
    model(x.clone().requires_grad_()).sum().backward()
    assert found.first(model) is None
    x[3, 5] = bad
    model(x)
    assert found.first(model).what == "0: its input"
    found.clear()
    with torch.no_grad():
        model[2].weight[0, 0] = bad
    model(seeded(N, X).requires_grad_()).sum().backward()
    assert found.first(model).what == "2: its weight"
    found.clear()
    with torch.no_grad():
        model[2].weight[0, 0] = 0.0
    model(seeded(N, X).requires_grad_()).backward(torch.full((N, Y), bad))
    assert found.first(model).what == "2: the gradient of its output"
