"""Draws follow their distribution, and a draft that is verified changes nothing about it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.engine.draws import ACCEPT, DRAW, Dice, Distribution

DRAWS = 20_000
UNLIKELY = 1e-3  # a true distribution fails a test with this probability; seeds are fixed, so it fails or not
IMPOSSIBLE = 1e-9


def p_value(observed: Sequence[float], expected: Sequence[float]) -> float:
    """Pearson's chi-square: 1 - P(k/2, x/2), P by its power series (Abramowitz and Stegun 6.5.29)."""
    assert all(e > 0 for e in expected), "a cell that nothing can fall into"
    x = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True)) / 2
    a = (len(observed) - 1) / 2
    if x > 300:
        return 0.0
    term = total = 1 / a
    for n in range(1, 5000):
        term *= x / (a + n)
        total += term
    return max(0.0, 1 - math.exp(a * math.log(x) - x - math.lgamma(a)) * total) if x > 0 else 1.0


def likely(tokens: list[int], p: Distribution) -> float:
    """How well tokens agree with p; tokens outside of it are an error."""
    count = dict.fromkeys(p.ids.tolist(), 0)
    for token in tokens:
        count[token] += 1
    return p_value(list(count.values()), [float(x) * len(tokens) for x in p.prob])


def among(weights: dict[int, float]) -> Distribution:
    ids = np.array(sorted(weights), dtype=np.int64)
    prob = np.array([weights[i] for i in ids.tolist()], dtype=np.float64)
    return Distribution(ids, prob / prob.sum())


def skewed(ids: Sequence[int], seed: int) -> Distribution:
    return among(dict(zip(ids, np.random.default_rng(seed).gamma(0.7, size=len(ids)) + 0.01, strict=True)))


def drawn(dice: Dice, p: Distribution, stream: int = DRAW) -> list[int]:
    return [dice.draw(p, position, stream) for position in range(DRAWS)]


P = skewed(range(12), 1)
NEAR = Distribution(P.ids, (P.prob * 0.8 + skewed(range(12), 2).prob * 0.2))
PAIRS = {
    "the same": (P, P),
    "near": (NEAR, P),
    "far": (skewed(range(12), 3), P),
    "reversed": (Distribution(P.ids, P.prob[::-1].copy()), P),
    "draft is sure": (among({4: 1.0}), P),
    "target is sure": (P, among({4: 1.0})),
    "draft misses some": (skewed((0, 3, 5), 4), P),
    "target misses some": (P, skewed((1, 2, 8), 5)),
    "overlapping": (skewed(range(8), 6), skewed(range(4, 30), 7)),
    "disjoint": (skewed(range(5), 8), skewed(range(5, 9), 9)),
}


@pytest.mark.parametrize(("freedom", "critical"), [(1, 10.828), (5, 20.515), (10, 29.588), (40, 73.402)])
def test_the_yardstick_agrees_with_the_tables(freedom: int, critical: float) -> None:
    """NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.4, column 0.001."""
    cells = [100.0 + math.sqrt(50.0 * critical), 100.0 - math.sqrt(50.0 * critical)] + [100.0] * (freedom - 1)
    assert p_value(cells, [100.0] * (freedom + 1)) == pytest.approx(0.001, rel=2e-3)


@pytest.mark.parametrize("p", [P, skewed((3, 4, 90, 4000), 3), among({0: 1, 1: 1}), among({7: 1, 9: 1e-3})])
def test_draws_follow_the_distribution(p: Distribution) -> None:
    assert likely(drawn(Dice(11, 0), p), p) > UNLIKELY


def test_neighbouring_positions_seeds_and_answers_are_independent() -> None:
    p = among(dict.fromkeys(range(4), 1.0))
    pair = among(dict.fromkeys(range(16), 1.0))
    first = drawn(Dice(5, 0), p)
    others = {
        "position": first[1:] + first[:1],
        "answer": drawn(Dice(5, 1), p),
        "seed": drawn(Dice(6, 0), p),
        "stream": drawn(Dice(5, 0), p, ACCEPT),
    }
    for name, other in others.items():
        assert likely([4 * a + b for a, b in zip(first, other, strict=True)], pair) > UNLIKELY, name


def slow_draw(seed: int, index: int, p: Distribution, position: int) -> int:
    """The race run to its end: every token's arrival, from the generator as numpy documents it."""
    key, best = np.array([seed, index], dtype=np.uint64), (math.inf, -1)
    coarse = np.random.Philox(key=key, counter=np.array([0, position, DRAW, 0], dtype=np.uint64))
    words = coarse.random_raw(int(p.ids[-1]) // 2 + 1).tolist()
    high = [half for word in words for half in (word % 2**32, word >> 32)]
    for token, prob in zip(p.ids.tolist(), p.prob.tolist(), strict=True):
        fine = np.random.Philox(key=key, counter=np.array([token, position, DRAW, 1], dtype=np.uint64))
        low = (int(fine.random_raw()) >> 11) / 2**53
        best = min(best, (-math.log1p(-(high[token] + low) / 2**32) / prob, token))
    return best[1]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 63), st.integers(0, 10**6), st.data())
def test_the_short_cut_finds_who_wins_the_whole_race(
    seed: int, index: int, position: int, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True))
    weights = {i: data.draw(st.sampled_from([1.0, 0.5, 1e-3, 1e-12, 1e-30])) for i in ids}
    p = among(weights)
    assert Dice(seed, index).draw(p, position) == slow_draw(seed, index, p, position)


def test_a_large_vocabulary_of_equals_needs_all_bits_of_the_noise() -> None:
    p = among(dict.fromkeys(range(3000), 1.0))
    for position in range(5):
        assert Dice(1, 0).draw(p, position) == slow_draw(1, 0, p, position)


def test_a_place_has_one_noise_in_any_order_of_calls() -> None:
    one, other = Dice(2**64 - 1, 63), Dice(2**64 - 1, 63)
    places = list(range(300))
    forward = [(one.draw(P, n), one.accept(3, NEAR, P, n)) for n in places]
    backward = {n: (other.accept(3, NEAR, P, n), other.draw(P, n)) for n in reversed(places)}
    assert forward == [backward[n][::-1] for n in places]


def test_a_draft_is_mostly_what_the_target_draws() -> None:
    """Two races agree with probability (1 - d) / (1 + d) at least, d their total variation distance."""
    d = float(np.abs(P.prob - NEAR.prob).sum()) / 2
    dice = Dice(3, 0)
    same = sum(dice.draw(P, n) == dice.draw(NEAR, n) for n in range(4000)) / 4000
    bound = (1 - d) / (1 + d)
    assert 0.02 < d < 0.3
    assert same > bound - 4 * math.sqrt(bound * (1 - bound) / 4000)


def verified(dice: Dice, q: Distribution, p: Distribution, drafted: Dice | None = None) -> list[int]:
    """What becomes of drafts from q; with the noise of `dice` itself, as in the engine, unless told."""
    drafts = drawn(drafted or dice, q)
    answers = [dice.accept(draft, q, p, position) for position, draft in enumerate(drafts)]
    overlap = sum(min(q.of(i), p.of(i)) for i in p.ids.tolist())
    stood = [token == draft for draft, (stands, token) in zip(drafts, answers, strict=True) if stands]
    if type(dice) is Dice:
        assert all(stood)
        assert abs(len(stood) / DRAWS - overlap) <= 4 * math.sqrt(overlap * (1 - overlap) / DRAWS) + 1e-12
    return [token for _, token in answers]


@pytest.mark.parametrize("name", PAIRS)
def test_verified_drafts_follow_the_target_and_stand_as_often_as_the_two_overlap(name: str) -> None:
    q, p = PAIRS[name]
    tokens = verified(Dice(17, 0), q, p)
    assert set(tokens) <= set(p.ids.tolist())
    if len(p.ids) > 1:
        assert likely(tokens, p) > UNLIKELY


@pytest.mark.parametrize("name", ["near", "overlapping"])
def test_verified_drafts_of_another_seed_follow_the_target(name: str) -> None:
    q, p = PAIRS[name]
    assert likely(verified(Dice(17, 0), q, p, Dice(18, 0)), p) > UNLIKELY


class RedrawsFromTarget(Dice):
    """A wrong rule: a rejected draft is replaced by a draw from p, not from what q gave too little of."""

    def accept(self, draft: int, q: Distribution, p: Distribution, position: int) -> tuple[bool, int]:
        stands, _ = super().accept(draft, q, p, position)
        return (True, draft) if stands else (False, self.draw(p, position, stream=7))


class KeepsEverything(Dice):
    """A wrong rule: every draft that p allows stands."""

    def accept(self, draft: int, q: Distribution, p: Distribution, position: int) -> tuple[bool, int]:
        return (True, draft) if p.of(draft) > 0 else (False, self.draw(p, position, stream=7))


class HasOneNoise(Dice):
    """A wrong generator: every stream is that of the draft."""

    def _bits(self, place: tuple[int, int, int, int], count: int) -> np.ndarray:
        return super()._bits((place[0], place[1], DRAW, place[3]), count)


@pytest.mark.parametrize("wrong", [RedrawsFromTarget, KeepsEverything, HasOneNoise])
def test_wrong_rules_are_found_out(wrong: type[Dice]) -> None:
    q, p = PAIRS["far"]
    assert likely(verified(wrong(17, 0), q, p), p) < IMPOSSIBLE


def test_a_draft_from_nowhere_is_an_error() -> None:
    with pytest.raises(AssertionError, match="draft 9 was not drawn"):
        Dice(1, 0).accept(9, among({1: 1.0, 2: 1.0}), P, 0)
