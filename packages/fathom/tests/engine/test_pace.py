"""Drafting goes on while it is measured to pay, and costs next to nothing when it does not."""

from __future__ import annotations

import random

import pytest

from fathom.engine.pace import REST, TRIAL, Pace


def drive(
    pace: Pace, steps: int, seconds: list[float], tokens: list[float], *, sequences: int = 1
) -> list[int]:
    """The depth of each step, when depth d takes seconds[d] and gives tokens[d]."""
    depths = []
    for _ in range(steps):
        depth = pace.depth(sequences)
        depths.append(depth)
        pace.saw(depth, sequences, tokens=tokens[depth], seconds=seconds[depth])
    return depths


def cost(depths: list[int], seconds: list[float], tokens: list[float]) -> float:
    """Time per token relative to never drafting."""
    spent, gained = sum(seconds[d] for d in depths), sum(tokens[d] for d in depths)
    return spent / gained / (seconds[0] / tokens[0])


@pytest.mark.parametrize("slower", [1.05, 1.5, 3.0])
def test_drafts_that_never_stand_cost_at_most_two_percent(slower):
    pace, seconds, tokens = Pace(1), [1.0, slower], [1.0, 1.0]
    depths = drive(pace, 5000, seconds, tokens)
    assert set(depths) == {0, 1}
    after_first_trial = depths[2 * TRIAL :]
    assert cost(after_first_trial, seconds, tokens) < (1.02 if slower < 2 else 1.04)


def test_drafts_that_pay_are_made_nearly_always():
    depths = drive(Pace(1), 3000, [1.0, 1.3], [1.0, 1.85])
    assert depths.count(1) / len(depths) > 0.97


def test_the_best_of_several_depths_is_found():
    depths = drive(Pace(3), 3000, [1.0, 1.2, 1.4, 1.6], [1.0, 1.8, 2.4, 2.5])
    assert max(set(depths), key=depths.count) == 2


def test_a_change_of_the_text_is_noticed():
    pace = Pace(1)
    drive(pace, 500, [1.0, 1.3], [1.0, 1.0])
    assert drive(pace, 2 * REST, [1.0, 1.3], [1.0, 1.9])[-1] == 1
    assert drive(pace, 50, [1.0, 1.3], [1.0, 1.0])[-1] == 0


def test_few_sequences_and_many_are_judged_apart():
    pace = Pace(1)
    drive(pace, 300, [1.0, 1.2], [1.0, 1.9], sequences=1)
    drive(pace, 300, [1.0, 2.2], [1.0, 1.9], sequences=16)
    assert (pace.depth(1), pace.depth(16)) == (1, 0)


def test_noise_does_not_hide_a_large_difference():
    dice = random.Random(0)
    pace, drafts = Pace(1), 0
    for _ in range(2000):
        depth = pace.depth(1)
        drafts += depth
        pace.saw(depth, 1, tokens=[1.0, 1.8][depth], seconds=[1.0, 1.2][depth] * dice.uniform(0.8, 1.25))
    assert drafts > 1600


def test_on_and_off_are_not_measured():
    assert drive(Pace(2, adaptive=False), 20, [1, 9, 9], [1, 1, 1]) == [2] * 20
    assert drive(Pace(0), 20, [1], [1]) == [0] * 20
