"""A recipe: the four sections of one run, and the rules that hold between them."""

from __future__ import annotations

from dataclasses import dataclass

from fathom.config.data import DataConfig
from fathom.config.errors import need
from fathom.config.model import ModelConfig
from fathom.config.parallel import ParallelConfig, check_parallel
from fathom.config.setting import check, setting
from fathom.config.train import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything `fathom train` needs to know."""

    model: ModelConfig = setting(ModelConfig, "the network")
    data: DataConfig = setting(DataConfig, "the corpus")
    train: TrainConfig = setting(TrainConfig, "the run")
    parallel: ParallelConfig = setting(ParallelConfig, "the ranks that share it")

    def __post_init__(self) -> None:
        check(self, "")
        need(
            self.train.seq_len <= self.model.max_positions,
            f"train.seq_len={self.train.seq_len} is above model.max_positions={self.model.max_positions}",
            fix=f"set train.seq_len to {self.model.max_positions} or less, or raise model.max_positions",
        )
        trained_here = not (self.data.corpus or self.data.tokenizer)
        need(
            not trained_here or self.data.vocab_size <= self.model.vocab_size,
            f"data.vocab_size={self.data.vocab_size} is above model.vocab_size={self.model.vocab_size}",
            fix=f"set model.vocab_size to {self.data.vocab_size} or more",
        )
        check_parallel(self.parallel, self.model, self.train)
