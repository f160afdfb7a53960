"""A network small enough to check by hand, with everything on."""

from __future__ import annotations

import pytest
import torch

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig(
        vocab_size=64, hidden_size=32, num_layers=3, dense_layers=1, dense_size=48, max_positions=64,
        init_std=0.2,
        attention=AttentionConfig(num_heads=4, q_rank=24, kv_rank=16, nope_head=8, rope_head=4, value_head=8),
        moe=MoEConfig(num_experts=8, experts_per_token=2, num_groups=4, groups_per_token=2, expert_size=16),
        mtp=MTPConfig(depth=2),
    )  # fmt: skip


@pytest.fixture
def token_BT() -> torch.Tensor:
    return torch.randint(0, 64, (3, 12), generator=torch.Generator().manual_seed(0))
