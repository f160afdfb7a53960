"""A small network that was trained for a few seconds: it repeats itself, so its drafts are often right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from fathom.checkpoint.find import latest
from fathom.checkpoint.load import load_model
from fathom.config.data import DataConfig
from fathom.config.engine import EngineConfig
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.config.recipe import Recipe
from fathom.config.train import LogConfig, ScheduleConfig, TrainConfig
from fathom.data.build import build_corpus
from fathom.data.tokenizer import Tokenizer
from fathom.engine import prefix
from fathom.engine.engine import Engine
from fathom.model.transformer import Transformer
from fathom.train.start import start

DATA = DataConfig(sources=("smallworld",), documents=400, held_out=0.05, vocab_size=400, workers=1)
MODEL = ModelConfig(
    name="small-test", vocab_size=400, hidden_size=48, num_layers=3, dense_layers=1, dense_size=96,
    max_positions=512, init_std=0.08,
    attention=AttentionConfig(num_heads=4, q_rank=24, kv_rank=16, nope_head=8, rope_head=8, value_head=8),
    moe=MoEConfig(num_experts=8, experts_per_token=2, num_groups=4, groups_per_token=2, expert_size=24),
    mtp=MTPConfig(depth=1),
)  # fmt: skip
TRAIN = TrainConfig(
    steps=120, lr=8e-3, seq_len=96, batch_size=6, precision="fp32",
    schedule=ScheduleConfig(warmup_steps=10), log=LogConfig(eval_every=0),
)  # fmt: skip


class Trained(NamedTuple):
    """A checkpoint and what is in it."""

    folder: Path
    model: Transformer
    tokenizer: Tokenizer

    def engine(self, **settings: object) -> Engine:
        """An engine over its weights that checks every invariant after every step."""
        config = EngineConfig(**{"debug": True, "page_size": 16, "pages": 128, "device": "cpu"} | settings)
        return Engine.of(self.model.config, self.model.state_dict(), self.tokenizer, config)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("engine")
    build_corpus(DATA, folder / "corpus")
    data = replace(DATA, corpus=str(folder / "corpus"))
    start(Recipe(model=MODEL, data=data, train=TRAIN), folder / "run", quiet=True).train()
    place = latest(folder / "run")
    assert place is not None
    return Trained(place, load_model(place), Tokenizer.load(place))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every block that was hashed."""
    blocks: list[bytes] = []
    real: Callable[[bytes, bytes], bytes] = prefix.block_key

    def counting(parent: bytes, block: bytes) -> bytes:
        blocks.append(block)
        return real(parent, block)

    monkeypatch.setattr(prefix, "block_key", counting)
    return blocks
