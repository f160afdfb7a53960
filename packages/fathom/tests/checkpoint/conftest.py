"""A network with everything on (YaRN, groups, two MTP modules), its weights, and a tokenizer's folder."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fathom.checkpoint.training import TrainingState
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig, RopeConfig
from fathom.data.tokenizer import Tokenizer
from fathom.model.transformer import Transformer


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    return ModelConfig(
        name="toy", vocab_size=400, hidden_size=32, num_layers=3, dense_layers=1, dense_size=48,
        max_positions=128, init_std=0.2, rope=RopeConfig(factor=4.0, original_positions=32),
        attention=AttentionConfig(num_heads=4, q_rank=24, kv_rank=16, nope_head=8, rope_head=4, value_head=8),
        moe=MoEConfig(num_experts=8, experts_per_token=2, num_groups=4, groups_per_token=2, expert_size=16),
        mtp=MTPConfig(depth=2, trunk="post_norm", mask_borders=True),
    )  # fmt: skip


@pytest.fixture(scope="session")
def model(config: ModelConfig) -> Transformer:
    model = Transformer(config, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for name, buffer in model.named_buffers():
        if name.endswith("router.bias"):
            buffer.uniform_(-0.1, 0.1, generator=generator)
    return model


@pytest.fixture(scope="session")
def state(model: Transformer) -> dict[str, Tensor]:
    return model.state_dict()


@pytest.fixture
def token_BT() -> Tensor:
    return torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(["Mia has a red kite. The kite flies."] * 50, 300).save(folder)
    return folder


@pytest.fixture
def training(state: dict[str, Tensor]) -> Callable[[int], TrainingState]:
    """The training state of a step, with something of every kind in it."""

    def make(step: int) -> TrainingState:
        generator = torch.Generator().manual_seed(step)
        moments = {
            f"{kind}.{name}": torch.rand(tensor.shape, generator=generator)
            for kind in ("exp_avg", "exp_avg_sq")
            for name, tensor in state.items()
            if not name.endswith("router.bias")
        }
        average = {name: tensor + step for name, tensor in state.items()}
        version, numbers, gauss = random.Random(step).getstate()
        return TrainingState(
            step=step,
            tokens=1000 * step,
            elapsed_s=1.5,
            loader={"epoch": 1, "order": [3, 1, 2]},
            recipe={"train": {"lr": 3e-4}},
            optimizer=moments,
            ema=average,
            rng={"torch": generator.get_state(), "python": [version, list(numbers), gauss]},
            extra={"optimizer_step": step},
        )

    return make
