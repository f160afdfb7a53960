"""Rules between settings: each message proposes a change, and making that change works."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.data import DataConfig
from fathom.config.errors import ConfigError
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, RopeConfig
from fathom.config.recipe import Recipe
from fathom.config.train import BalanceConfig, OptimConfig, ScheduleConfig, TrainConfig

QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=100)


def follow_fixes(kind: Any, given_values: dict[str, Any], most: int = 4) -> Any:
    """Build `kind`, each time doing what the message says, at most `most` times."""
    for _ in range(most):
        try:
            return kind(**given_values)
        except ConfigError as error:
            fix = str(error).rpartition("Fix: ")[2].partition(" or num_groups")[0]
            changes = re.findall(r"(\w+) to (?:more than \S+, such as )?(-?\d[\d.e+-]*)", fix)
            assert changes, f"no number to set in: {fix}"
            for name, value in changes:
                given_values[name] = type(given_values[name])(float(value))
    return kind(**given_values)


SIZES = st.integers(1, 40)
SHARES = st.floats(0.0, 1.0)


@QUICK
@given(num_experts=SIZES, num_groups=SIZES, groups_per_token=SIZES, experts_per_token=SIZES)
def test_experts_split_into_groups_and_can_be_reached(**sizes: int) -> None:
    moe = follow_fixes(MoEConfig, sizes)
    assert moe.num_experts == moe.num_groups * moe.group_size
    assert moe.experts_per_token <= moe.groups_per_token * moe.group_size <= moe.num_experts


@QUICK
@given(decay_from=SHARES, decay_to=SHARES, tail_from=SHARES)
def test_milestones_follow_one_another(**shares: float) -> None:
    schedule = follow_fixes(ScheduleConfig, shares)
    assert schedule.decay_from <= schedule.decay_to <= schedule.tail_from


@QUICK
@given(beta_fast=st.floats(1e-9, 1e5), beta_slow=st.floats(1e-9, 1e5))
def test_yarn_keeps_the_fast_frequencies(**turns: float) -> None:
    rope = follow_fixes(RopeConfig, turns)
    assert rope.beta_fast > rope.beta_slow


@QUICK
@given(num_layers=SIZES, dense_layers=SIZES)
def test_dense_layers_are_layers(**layers: int) -> None:
    model = follow_fixes(ModelConfig, layers)
    assert [model.is_moe(i) for i in range(model.num_layers)].count(False) == model.dense_layers
    assert model.is_moe(model.num_layers) or model.dense_layers > model.num_layers, "MTP's block has experts"


@QUICK
@given(batch_size=SIZES, micro_batch=SIZES)
def test_a_micro_batch_is_part_of_the_batch(**rows: int) -> None:
    train = follow_fixes(TrainConfig, rows)
    assert train.micro_batch <= train.batch_size


@QUICK
@given(rope_head=st.integers(2, 99))
def test_channels_rotate_in_pairs(rope_head: int) -> None:
    assert follow_fixes(AttentionConfig, {"rope_head": rope_head}).rope_head % 2 == 0


def test_rows_are_no_longer_than_the_model_can_read() -> None:
    model = ModelConfig(max_positions=128)
    with pytest.raises(ConfigError, match=r"train\.seq_len=4096 .* Fix: set train\.seq_len to 128 or less"):
        Recipe(model=model)
    Recipe(model=model, train=TrainConfig(seq_len=128))
    with pytest.raises(ConfigError, match=r"model\.max_positions=1 is below 2"):
        ModelConfig(max_positions=1)  # a row has at least two tokens


def test_a_tokenizer_trained_here_fits_the_model() -> None:
    model, data = ModelConfig(vocab_size=512), DataConfig(vocab_size=1024)
    with pytest.raises(ConfigError, match=r"data\.vocab_size=1024 .* Fix: set model\.vocab_size to 1024"):
        Recipe(model=model, data=data)
    Recipe(model=replace(model, vocab_size=1024), data=data)
    Recipe(model=model, data=replace(data, corpus="there-already"))
    Recipe(model=model, data=replace(data, tokenizer="tokenizer.json"))


@pytest.mark.parametrize(
    "two", [{"steps": 1, "tokens": 1}, {"minutes": 0.5, "steps": 9}, {"tokens": 2, "minutes": 1}]
)
def test_one_budget(two: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"train\.\w+=.* Fix: set all but one to 0"):
        TrainConfig(**two)
    for name in two:
        TrainConfig(**(two | {name: 0}))


def test_one_weight_for_each_source() -> None:
    with pytest.raises(ConfigError, match=r"data\.weights has 1 values for 2 data\.sources\. Fix: "):
        DataConfig(sources=("smallworld", "pydocs"), weights=(1.0,))
    with pytest.raises(ConfigError, match=r"data\.sources names pydocs twice\. Fix: "):
        DataConfig(sources=("pydocs", "pydocs"))
    assert DataConfig(sources=("smallworld", "pydocs"), weights=(1, 3)).weights == (1.0, 3.0)


def test_values_become_exactly_their_type() -> None:
    """1 for a number and a list for a tuple are meant kindly; what is stored is what the annotation says."""
    assert type(TrainConfig(lr=1).lr) is float
    assert repr(TrainConfig(minutes=-0.0).minutes) == "0.0"
    assert DataConfig(sources=["a.txt"]).sources == ("a.txt",)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, False, "1", 1.0, None, 1j])
def test_nothing_but_a_whole_number_is_one(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.steps=.* is not a whole number\. Fix: "):
        TrainConfig(steps=value)


@pytest.mark.parametrize("value", [True, False, "1", None, 1j, "nan"])
def test_nothing_but_a_number_is_one(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr=.* is not a number\. Fix: "):
        TrainConfig(lr=value)


def test_configs_are_frozen() -> None:
    with pytest.raises(AttributeError):
        TrainConfig().lr = 1.0  # type: ignore[misc]


def test_the_defaults_are_the_report() -> None:
    """Report section 4.2, as fractions of its 14.8T tokens."""
    schedule, optim, balance = ScheduleConfig(), OptimConfig(), BalanceConfig()
    assert (optim.beta1, optim.beta2, optim.weight_decay, optim.clip) == (0.9, 0.95, 0.1, 1.0)
    assert (balance.bias_speed, balance.sequence_loss) == (0.001, 1e-4)
    assert (balance.mtp_weight, balance.mtp_weight_end) == (0.3, 0.1)
    peak = TrainConfig().lr
    assert (peak * schedule.lr_end, peak * schedule.lr_tail) == pytest.approx((2.2e-5, 7.3e-6))
    milestones = (schedule.decay_from, schedule.decay_to, schedule.tail_from, schedule.batch_full)
    assert [m * 14.8e12 for m in milestones] == pytest.approx([10e12, 14.3e12, 14.633e12, 469e9])


def test_softmax_scale_with_and_without_yarn() -> None:
    """1/sqrt(192) in pre-training at 4K; times (0.1 ln 40 + 1)^2 once extended; 0.707 in V2's family."""
    scale = {
        "v3 at 4K": ModelConfig().softmax_scale,
        "v3": ModelConfig(rope=RopeConfig(factor=40)).softmax_scale,
        "v2": ModelConfig(rope=RopeConfig(factor=40, mscale=0.707, mscale_all=0.707)).softmax_scale,
    }
    assert scale == pytest.approx({"v3 at 4K": 0.0721688, "v3": 0.1352338, "v2": 0.1147214}, rel=1e-6)
    assert RopeConfig(factor=40, mscale=0.707, mscale_all=0.707).table_factor == 1.0
