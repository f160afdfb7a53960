"""The router's published vectors, and what the bias and the two losses do."""

from __future__ import annotations

import pytest
import torch

from fathom.config.model import MoEConfig
from fathom.model.router import Router, affinity, choose, combine_weights, sequence_balance

TOY = MoEConfig(num_experts=8, experts_per_token=3, num_groups=4, groups_per_token=2, expert_size=4)
LOGITS = torch.tensor([[0.2, -1.0, 1.5, 0.0, -0.5, 2.0, 0.9, 0.8]])
BIAS = torch.tensor([0.30, 0.0, -0.60, 0.10, 0.0, -0.40, 0.05, 0.05])


def chosen(bias: torch.Tensor) -> list[int]:
    return sorted(choose(affinity(LOGITS, TOY), bias, TOY)[0].tolist())


def test_toy_vector():
    """Groups 3 and 0 are kept, so the raw-best expert 5 is not chosen."""
    score = affinity(LOGITS, TOY)
    expert = choose(score, BIAS, TOY)
    assert chosen(BIAS) == [0, 6, 7]
    weights = combine_weights(score, expert, TOY)
    weight = dict(zip(expert[0].tolist(), weights[0].tolist(), strict=True))
    assert weight == pytest.approx({0: 0.704641, 6: 0.911120, 7: 0.884239}, abs=1e-6)
    assert sum(weight.values()) == pytest.approx(2.5)


def test_masked_groups_lose_even_when_all_affinities_are_negative():
    """With 0.0 instead of -inf experts of masked groups win: transformers issue #45440."""
    assert chosen(torch.full((8,), -2.0) + BIAS) == [0, 6, 7]
    biased = affinity(LOGITS, TOY) + BIAS - 2.0
    zero_masked = biased.masked_fill(torch.tensor([[False] * 2 + [True] * 4 + [False] * 2]), 0.0)
    assert sorted(zero_masked.topk(3).indices[0].tolist()) == [2, 3, 4]


def test_installed_transformers_masks_as_we_do_or_shows_the_known_difference():
    """transformers issue #45440: releases that mask with 0.0 choose [2, 3, 4] here, later ones as we do."""
    modeling = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    from transformers import DeepseekV3Config

    peer = modeling.DeepseekV3TopkRouter(
        DeepseekV3Config(
            n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, hidden_size=8
        )
    )
    peer.weight.data = torch.eye(8)
    peer.e_score_correction_bias.copy_(BIAS - 2.0)
    picked = sorted(peer(LOGITS)[2][0].tolist())
    assert picked in ([0, 6, 7], [2, 3, 4])
    if picked == [2, 3, 4]:
        assert chosen(BIAS - 2.0) != picked


def test_bias_moves_the_choice_but_not_the_weight():
    score = affinity(LOGITS, TOY)
    expert = torch.tensor([[1, 2, 3]])
    before = combine_weights(score, expert, TOY)
    push = torch.zeros(8)
    push[1:4] = 50.0
    assert chosen(push) == [1, 2, 3]
    torch.testing.assert_close(combine_weights(score, choose(score, push, TOY).sort(-1).values, TOY), before)


def test_tiny_affinities_survive_a_large_bias():
    """s is never rebuilt as (s + b) - b, which would be 0 for s = 1e-8 and b = 12."""
    score = torch.full((1, 8), 1e-8)
    expert = choose(score, torch.full((8,), 12.0), TOY)
    torch.testing.assert_close(combine_weights(score, expert, TOY).sum(), torch.tensor(2.5))


def test_softmax_groups_are_ranked_by_their_best():
    moe = MoEConfig(
        num_experts=4, experts_per_token=1, num_groups=2, groups_per_token=1, expert_size=4, score="softmax"
    )
    score = torch.tensor([[0.4, 0.0, 0.3, 0.3]])  # sums would prefer the second group
    assert choose(score, torch.zeros(4), moe).tolist() == [[0]]


def route(x_BTD: torch.Tensor, real_BT: torch.Tensor, **kwargs):
    router = Router(8, TOY)
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(0))
    return router(x_BTD, real_BT, **kwargs)


def test_padding_counts_in_no_load_and_no_loss():
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    real = torch.tensor([[True] * 5, [True, True, False, False, False]])
    routing = route(x, real)
    assert routing.count_E.sum() == 7 * TOY.experts_per_token
    x[1, 2:] = 100.0
    again = route(x, real)
    assert (again.count_E == routing.count_E).all()
    torch.testing.assert_close(again.sequence_loss, routing.sequence_loss)


def test_given_choices_are_kept_and_weighted():
    x, real = torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool)
    given = torch.tensor([[7, 1, 0]] * 4)
    routing = route(x, real, expert_NK=given)
    assert (routing.expert_NK == given).all()
    torch.testing.assert_close(routing.weight_NK.sum(-1), torch.full((4,), 2.5))


def test_router_works_in_fp32_and_its_bias_is_no_parameter():
    router = Router(8, TOY)
    assert router.bias.dtype == torch.float32 and "bias" in router.state_dict()
    assert [n for n, _ in router.named_parameters()] == ["weight"]
    torch.nn.init.normal_(router.weight)
    x = torch.randn(1, 3, 8).bfloat16()
    assert router(x, torch.ones(1, 3, dtype=torch.bool)).weight_NK.dtype == torch.float32


def test_sequence_loss_is_one_when_balanced():
    """Uniform affinities give 1, whoever is chosen: f alone does not raise the loss, P must follow."""
    real = torch.ones(1, 16, dtype=torch.bool)
    uniform = torch.full((1, 16, 8), 0.5)
    torch.testing.assert_close(sequence_balance(uniform, TOY, real), torch.tensor(1.0))
    skewed = uniform.clone()
    skewed[..., :3] = 0.9
    f_kept = (8 / 3) * 3 * 0.9 / (3 * 0.9 + 5 * 0.5)
    torch.testing.assert_close(sequence_balance(skewed, TOY, real), torch.tensor(f_kept))


def test_sequence_loss_counts_unbiased_affinities_per_sequence_and_lowers_the_loaded():
    score = torch.full((2, 4, 8), 0.3)
    score[0, :, :3] = 0.9  # row 0 loads experts 0-2, row 1 loads 3-5: the batch is balanced, no row is
    score[1, :, 3:6] = 0.9
    score.requires_grad_()
    loss = sequence_balance(score, TOY, torch.ones(2, 4, dtype=torch.bool))
    assert loss > 1.2
    (grad,) = torch.autograd.grad(loss, score)
    assert (grad[0, :, :3] > 0).all() and (grad[0, :, 3:] < 0).all()
