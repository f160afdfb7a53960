"""A corpus of a few stories, and a recipe that uses everything at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fathom.config.data import DataConfig
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.config.recipe import Recipe
from fathom.config.train import OptimConfig, ScheduleConfig, TrainConfig
from fathom.data.build import build_corpus

DATA = DataConfig(sources=("smallworld",), documents=150, held_out=0.1, vocab_size=400, workers=1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "corpus"
    build_corpus(DATA, folder)
    return folder


@pytest.fixture
def recipe(corpus) -> Recipe:
    model = ModelConfig(
        name="test", vocab_size=400, hidden_size=32, num_layers=2, dense_layers=1, dense_size=48,
        max_positions=128, init_std=0.1,
        attention=AttentionConfig(num_heads=2, q_rank=16, kv_rank=16, nope_head=8, rope_head=8, value_head=8),
        moe=MoEConfig(num_experts=4, experts_per_token=2, num_groups=2, groups_per_token=1, expert_size=16),
        mtp=MTPConfig(depth=1),
    )  # fmt: skip
    train = TrainConfig(
        steps=6, lr=3e-3, seq_len=48, batch_size=4, micro_batch=2, precision="fp32",
        optim=OptimConfig(ema=0.9), schedule=ScheduleConfig(warmup_steps=2),
    )  # fmt: skip
    return Recipe(model=model, data=replace(DATA, corpus=str(corpus)), train=train)
