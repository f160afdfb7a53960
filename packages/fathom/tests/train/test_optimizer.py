"""One buffer for all parameters changes no update, keeps fp32 masters, and adds bf16 gradients in fp32."""

from __future__ import annotations

import pytest
import torch

from fathom.config.train import OptimConfig
from fathom.data.batch import Batch
from fathom.model.transformer import Transformer
from fathom.ops.kernels import FastKernels, PlainKernels
from fathom.train.optimizer import Optimizer
from fathom.train.step import Weights, backward


def batch(seed: int) -> Batch:
    ids = torch.randint(0, 400, (4, 33), generator=torch.Generator().manual_seed(seed))
    return Batch(ids, torch.zeros_like(ids))


def learn(model, optimizer, steps: range, dtype: torch.dtype = torch.float32) -> list[float]:
    norms = []
    for seed in steps:
        options = {"micro_rows": 2, "dtype": dtype, "accumulate": optimizer.accumulate}
        backward(model, batch(seed), Weights(0.3, 1e-3), **options)
        norms.append(optimizer.clip())
        optimizer.step(1e-3)
    return norms


@pytest.mark.parametrize("clip", [0.0, 0.5, 100.0])
def test_updates_are_those_of_torch(recipe, clip):
    config = OptimConfig(clip=clip, ema=0.9, weight_decay=0.3)
    ours, theirs = (Transformer(recipe.model, kernels=PlainKernels(), seed=0) for _ in range(2))
    optimizer = Optimizer(ours, config)
    norms = learn(ours, optimizer, range(4))
    average = {name: p.detach().clone() for name, p in theirs.named_parameters()}
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": 0.3},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    for seed, norm in zip(range(4), norms, strict=True):
        backward(theirs, batch(seed), Weights(0.3, 1e-3), micro_rows=2)
        most = clip or float("inf")
        theirs_norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), most).item()
        assert theirs_norm == pytest.approx(norm, rel=1e-5)
        adamw.step()
        adamw.zero_grad()
        for name, p in theirs.named_parameters():
            average[name].lerp_(p.detach(), 0.1)
    weights, averages = optimizer.weights(), optimizer.averages()
    for name, p in theirs.named_parameters():
        torch.testing.assert_close(weights[name], p.detach(), rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(averages[name], average[name], rtol=1e-4, atol=2e-6)


def test_a_bf16_model_has_fp32_masters_routers_and_norms(recipe):
    model = Transformer(recipe.model, kernels=FastKernels(torch.bfloat16), seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Optimizer(model, OptimConfig(), torch.bfloat16)
    masters = optimizer.weights()
    assert all(masters[name].equal(p) for name, p in before.items())
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    for name, kind in kinds.items():
        wide = "norm" in name or "router" in name
        assert kind == (torch.float32 if wide else torch.bfloat16), name
        assert masters[name].dtype == torch.float32
    learn(model, optimizer, range(2), torch.bfloat16)
    for name, p in model.named_parameters():
        assert p.detach().equal(optimizer.weights()[name].to(p.dtype)), name
        assert not p.detach().equal(before[name]), name


def test_small_updates_are_not_lost_in_bf16(recipe):
    """An update below half a bf16 step of a weight leaves its copy, but the master moves."""
    model = Transformer(recipe.model, kernels=FastKernels(torch.bfloat16), seed=0)
    optimizer = Optimizer(model, OptimConfig(weight_decay=0.0), torch.bfloat16)
    start = optimizer.weights()["head.weight"].clone()
    copy = model.head.weight.detach().clone()
    for seed in range(3):
        options = {"dtype": torch.bfloat16, "accumulate": optimizer.accumulate}
        backward(model, batch(seed), Weights(0.3, 1e-3), **options)
        optimizer.clip()
        optimizer.step(1e-6)
    assert (optimizer.weights()["head.weight"] != start).float().mean() > 0.9
    assert (model.head.weight.detach() != copy).float().mean() < 0.1


def test_bf16_gradients_of_micro_batches_add_up_in_fp32(recipe):
    """Eight passes add 1 + 7 * 2^-9: in bf16 every small one would be rounded away."""
    model = Transformer(recipe.model, kernels=FastKernels(torch.bfloat16), seed=0)
    optimizer = Optimizer(model, OptimConfig(), torch.bfloat16)
    weight = model.head.weight
    for i in range(8):
        weight.grad.add_(1.0 if i == 0 else 2.0**-9)
        optimizer.accumulate()
    view = optimizer.buffers.view(optimizer.buffers.grad, "head.weight")
    assert (view == 1.0 + 7 * 2.0**-9).all()
    optimizer.skip()
    assert not optimizer.buffers.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_from_a_state_ends_in_the_same_bits(recipe, dtype):
    kernels, config = FastKernels(dtype), OptimConfig(ema=0.9)
    whole = Transformer(recipe.model, kernels=kernels, seed=0)
    first = Optimizer(whole, config, dtype)
    learn(whole, first, range(2), dtype)
    weights, averages = ({n: t.clone() for n, t in d.items()} for d in (first.weights(), first.averages()))
    moments, steps = first.state()
    learn(whole, first, range(2, 4), dtype)
    again = Transformer(recipe.model, kernels=kernels, seed=1)
    second = Optimizer(again, config, dtype)
    second.load_weights(weights)
    second.load(moments, steps, averages)
    learn(again, second, range(2, 4), dtype)
    for a, b in ((first.weights(), second.weights()), (first.averages(), second.averages())):
        assert all(a[name].equal(b[name]) for name in a)
    assert first.state()[1] == second.state()[1] == 4
    assert all(t.equal(second.state()[0][name]) for name, t in first.state()[0].items())


def test_the_norm_of_many_gradients_is_summed_with_care(recipe):
    """torch.linalg.vector_norm of 4e7 fp32 numbers at once is 0.3 % too small."""
    model = Transformer(recipe.model, seed=0)
    optimizer = Optimizer(model, OptimConfig())
    optimizer.buffers.grad = torch.full((30_000_000,), 1e-3)
    truth = 1e-3 * 30_000_000**0.5
    assert optimizer.clip() == pytest.approx(truth, rel=1e-4)
