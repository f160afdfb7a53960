"""The report's schedules, at the report's own milestones (section 4.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fathom.config.errors import ConfigError
from fathom.config.load import load_recipe
from fathom.config.train import BalanceConfig, ScheduleConfig, TrainConfig
from fathom.train.budget import Budget, Position
from fathom.train.schedule import batch_rows, bias_speed, learning_rate, mtp_weight

V3 = load_recipe("v3").recipe.train
ALL = 14.8e12


@pytest.mark.parametrize(
    "tokens,rate",
    [(5, 2.2e-4), (9.99, 2.2e-4), (11, 1.947324e-4), (12, 1.318277e-4), (12.15, 1.21e-4), (13, 6.339597e-5),
     (14, 2.436849e-5), (14.5, 2.2e-5), (14.7, 7.3e-6)],
)  # fmt: skip
def test_learning_rate_at_trillions_of_tokens(tokens, rate):
    assert learning_rate(V3, 10**6, tokens * 1e12 / ALL) == pytest.approx(rate, rel=1e-6)


def test_warm_up_is_linear_over_2000_steps():
    rates = [learning_rate(V3, step, 0.0) for step in (0, 499, 999, 1999, 5000)]
    assert rates == pytest.approx([2.2e-4 / 2000, 5.5e-5, 1.1e-4, 2.2e-4, 2.2e-4])


def test_warm_up_is_cut_short_when_a_share_of_the_run_has_passed():
    config = TrainConfig(steps=100, schedule=ScheduleConfig(warmup_steps=1000, warmup=0.1))
    assert learning_rate(config, 10, 0.1) == config.lr
    assert learning_rate(config, 5, 0.05) == pytest.approx(config.lr / 2)


def test_batch_grows_from_3072_to_15360_rows_over_469_billion_tokens():
    rows = [batch_rows(V3, t * 1e9 / ALL) for t in (0, 234.5, 469, 1000)]
    assert rows == [3072, 9216, 15360, 15360]


def test_bias_speed_stops_at_14_3_and_mtp_weight_falls_at_10_trillion():
    balance, schedule = V3.balance, V3.schedule
    assert [bias_speed(balance, schedule, t / 14.8) for t in (0, 14.2, 14.31)] == [0.001, 0.001, 0.0]
    assert [mtp_weight(balance, schedule, t / 14.8) for t in (0, 9.9, 10.1)] == [0.3, 0.3, 0.1]
    assert BalanceConfig().sequence_loss == 1e-4


@pytest.mark.parametrize(
    "settings,at",
    [({"steps": 10}, Position(step=5)), ({"tokens": 100}, Position(tokens=50)),
     ({"minutes": 1.0}, Position(elapsed_s=30.0))],
)  # fmt: skip
def test_budget_is_steps_or_tokens_or_time(settings, at):
    budget = Budget(replace(V3, **{"tokens": 0} | settings))
    assert budget.progress(at) == 0.5
    assert budget.progress(Position(10**9, 10**9, 1e9)) == 1.0


def test_a_run_needs_a_budget():
    with pytest.raises(ConfigError, match=r"no budget.*Fix: .*train\.steps"):
        Budget(TrainConfig())
