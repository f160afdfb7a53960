"""The report's schedules: learning rate, batch size, bias speed, MTP weight (report section 4.2).

All are functions of progress, the share of the run's budget that is behind: tokens, steps or minutes. The
report's milestones in tokens are the default fractions, so one recipe serves 14.8T tokens and five minutes.
"""

from __future__ import annotations

import math

from fathom.config.train import BalanceConfig, ScheduleConfig, TrainConfig


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Rate of step `step` (0-based): warm-up, plateau, cosine, plateau, tail.

    Warm-up is linear in steps over `warmup_steps`, cut short once `warmup` of the run has passed.
    """
    s = config.schedule
    done = (step + 1) / s.warmup_steps if s.warmup_steps else 1.0
    if s.warmup:
        done = max(done, progress / s.warmup)
    return config.lr * min(done, 1.0) * _decay(s, progress)


def _decay(s: ScheduleConfig, progress: float) -> float:
    """The share of the full rate at `progress`: 1, cosine to lr_end, lr_end, lr_tail."""
    if progress < s.decay_from:
        return 1.0
    if progress >= s.tail_from and progress >= s.decay_to:
        return s.lr_tail
    if progress >= s.decay_to:
        return s.lr_end
    turn = (progress - s.decay_from) / (s.decay_to - s.decay_from)
    return s.lr_end + 0.5 * (1.0 - s.lr_end) * (1.0 + math.cos(math.pi * turn))


def batch_rows(config: TrainConfig, progress: float) -> int:
    """Rows of the next batch: linear from `batch_start` of the full batch until `batch_full` of the run."""
    s = config.schedule
    grown = min(progress / s.batch_full, 1.0) if s.batch_full else 1.0
    return max(round(config.batch_size * (s.batch_start + (1.0 - s.batch_start) * grown)), 1)


def bias_speed(balance: BalanceConfig, schedule: ScheduleConfig, progress: float) -> float:
    """Gamma: constant, then 0 for the end of the run (the report's last 500B tokens)."""
    return balance.bias_speed if progress < schedule.bias_until else 0.0


def mtp_weight(balance: BalanceConfig, schedule: ScheduleConfig, progress: float) -> float:
    """Lambda: 0.3, then 0.1 (after the report's first 10T tokens)."""
    return balance.mtp_weight if progress < schedule.mtp_until else balance.mtp_weight_end
