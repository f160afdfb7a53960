"""Weight gradients that wait are the same ones, and are made when they are asked for, not before."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.data.batch import Batch
from fathom.model.transformer import Transformer
from fathom.ops.deferred import Left, WeightGradients, finish
from fathom.ops.experts import experts_grouped, experts_loop
from fathom.ops.grouped_experts import grouped_experts
from fathom.ops.kernels import FastKernels
from fathom.ops.linear import FastLinear
from fathom.ops.padded_experts import PaddedExperts
from fathom.train.step import Weights, backward


@pytest.mark.parametrize("held", [True, False], ids=["in place", "new"])
def test_a_map_hands_over_its_weight_and_nothing_else(held, generator):
    later = WeightGradients()
    linear = FastLinear(6, 4, later).double()
    torch.nn.init.normal_(linear.weight, generator=generator)
    x = torch.randn(5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    expected = torch.autograd.grad(linear(x).square().sum(), (x, linear.weight))
    linear.weight.grad = torch.ones_like(linear.weight) if held else None
    left: Left = []
    with later.later(left):
        linear(x).square().sum().backward()
    assert torch.equal(x.grad, expected[0]) and len(left) == 1
    assert linear.weight.grad is None or linear.weight.grad.eq(1).all()
    finish(left)
    assert not left
    torch.testing.assert_close(linear.weight.grad - (1 if held else 0), expected[1])


@pytest.mark.parametrize("counts", [[3, 0, 4], [0, 0, 2]])
def test_experts_hand_over_their_weights(counts, generator):
    later = WeightGradients()
    experts = PaddedExperts(3, 6, 8, later).double()
    for weight in experts.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    x = torch.randn(sum(counts), 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weight_R = torch.rand(sum(counts), dtype=torch.float64, generator=generator, requires_grad=True)

    def loss() -> Tensor:
        return experts(x, torch.tensor(counts), weight_R).square().sum()

    expected = torch.autograd.grad(loss(), (x, weight_R, *experts.parameters()))
    left: Left = []
    with later.later(left):
        loss().backward()
    assert all(w.grad is None for w in experts.parameters())
    finish(left)
    for got, wanted in zip((x, weight_R, *experts.parameters()), expected, strict=True):
        torch.testing.assert_close(got.grad, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("held", [True, False], ids=["in place", "new"])
def test_grouped_experts_are_the_loop(dtype, wait, held, generator):
    counts = torch.tensor([3, 0, 5])
    shapes = ((3, 24, 16), (3, 24, 16), (3, 16, 24))
    weights = tuple((0.3 * torch.randn(s, generator=generator)).to(dtype).requires_grad_() for s in shapes)
    x = torch.randn(8, 16, generator=generator).to(dtype).requires_grad_()
    weight_R = torch.rand(8, generator=generator).to(dtype).requires_grad_()
    wide = [t.detach().double().requires_grad_() for t in (x, weight_R, *weights)]
    truth = experts_loop(wide[0], *wide[2:], counts, wide[1])
    dy = torch.randn(truth.shape, generator=generator).to(dtype)
    truth.backward(dy.double())
    plain = [t.detach().clone().requires_grad_() for t in (x, weight_R, *weights)]
    experts_grouped(plain[0], *plain[2:], counts, plain[1]).backward(dy)
    for weight in weights:
        weight.grad = torch.zeros_like(weight) if held else None
    places = [w.grad.data_ptr() for w in weights if w.grad is not None]  # as views of an optimizer's buffer
    later = WeightGradients()
    left: Left = []
    with later.later(left) if wait else contextlib.nullcontext():
        grouped_experts(x, weights, weight_R, counts, later).backward(dy)
    assert len(left) == wait and (not wait or all(w.grad is None or not w.grad.any() for w in weights))
    finish(left)
    assert not held or places == [w.grad.data_ptr() for w in weights]
    for got, theirs, wanted in zip((x, weight_R, *weights), plain, wide, strict=True):
        error, plain_error = ((t.grad.double() - wanted.grad).abs().max() for t in (got, theirs))
        assert error <= 1.5 * plain_error + 1e-6, "no further from the truth than PyTorch's own backward pass"


def test_a_whole_model_has_the_same_gradients(generator):
    """Every matrix of a block but the router hands over; the loss makes the head's gradient itself."""
    config = ModelConfig(
        vocab_size=64, hidden_size=32, num_layers=2, dense_layers=1, dense_size=48,
        moe=MoEConfig(num_experts=4, num_groups=2, groups_per_token=1, experts_per_token=2, expert_size=16),
        attention=AttentionConfig(num_heads=2, q_rank=12, kv_rank=8, nope_head=8, rope_head=4, value_head=8),
        mtp=MTPConfig(depth=1),
    )  # fmt: skip
    token_BT1 = torch.randint(64, (2, 9), generator=generator)
    batch = Batch(token_BT1, torch.zeros_like(token_BT1))
    grads = []
    for wait in (False, True):
        kernels = FastKernels()
        model = Transformer(config, kernels=kernels, seed=3).double()
        left: Left = []
        if wait:
            with kernels.weight_gradients.later(left):
                backward(model, batch, Weights(0.3, 1e-3))
            assert model.layers[1].attention.out.weight.grad is None and len(left) > 10
            finish(left)
        else:
            backward(model, batch, Weights(0.3, 1e-3))
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-12, atol=1e-14, msg=name)
