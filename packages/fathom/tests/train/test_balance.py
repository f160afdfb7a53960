"""The bias moves experts towards their share, and MaxVio says how far they are from it."""

from __future__ import annotations

import pytest
import torch

from fathom.model.transformer import Transformer
from fathom.train.balance import max_violation, routers, update_bias, update_biases


def test_bias_of_the_loaded_falls_and_of_the_idle_rises():
    bias = torch.zeros(4)
    update_bias(bias, torch.tensor([10, 0, 4, 2]), 0.001, "sign")
    torch.testing.assert_close(bias, torch.tensor([-0.001, 0.001, 0.0, 0.001]))


def test_centred_rule_keeps_the_mean():
    bias = torch.zeros(4)
    update_bias(bias, torch.tensor([10, 0, 4, 2]), 0.001, "centred")
    assert bias.sum().item() == pytest.approx(0.0, abs=1e-9)
    assert bias.argsort().tolist()[0] == 0


def test_small_steps_add_up_in_fp32_at_the_size_of_released_biases():
    bias = torch.full((2,), 5.0)  # near 5 bf16 numbers are 0.03 apart
    for _ in range(1000):
        update_bias(bias, torch.tensor([9, 1]), 0.001, "sign")
    torch.testing.assert_close(bias, torch.tensor([4.0, 6.0]), rtol=0, atol=2e-3)


def test_max_violation():
    assert max_violation(torch.tensor([[4, 4, 4, 4]])) == 0.0
    assert max_violation(torch.tensor([[16, 0, 0, 0]])) == 3.0  # N_r / K_r - 1, the ceiling
    assert max_violation(torch.tensor([[8, 0, 4, 4], [4, 4, 4, 4]])) == 0.5
    assert max_violation(torch.zeros(0, 0, dtype=torch.long)) == 0.0


def test_every_router_of_trunk_and_mtp_is_moved_by_its_own_loads(recipe):
    model = Transformer(recipe.model)
    layers = routers(model)
    assert len(layers) == 1 + recipe.model.mtp.depth
    out = model(torch.zeros(1, 4, dtype=torch.long), mtp=True)
    assert len(out.routing) == len(layers)
    update_biases(model, torch.tensor([[9, 1, 1, 1], [1, 9, 1, 1]]), 0.5, "sign")
    assert [r.bias.argmin().item() for r in layers] == [0, 1]


def test_a_skewed_router_is_balanced_by_the_bias_alone(recipe):
    """Affinities that favour expert 0 for every token: the bias spreads the load, gradients play no part."""
    moe = recipe.model.moe
    from fathom.model.router import choose

    generator = torch.Generator().manual_seed(0)
    score = torch.rand(512, moe.num_experts, generator=generator) * 0.2 + torch.tensor([0.7, 0.4, 0.3, 0.2])
    bias, counts = torch.zeros(moe.num_experts), []
    for _ in range(1500):
        counts.append(choose(score, bias, moe).flatten().bincount(minlength=moe.num_experts))
        update_bias(bias, counts[-1], 0.001, "sign")
    before, after = (max_violation(c[None]) for c in (counts[0], counts[-1]))
    assert before > 0.9 and after < 0.1
