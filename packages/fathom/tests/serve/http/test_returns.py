"""Who is refused is told to come when a place is likely, and no two for the same one."""

from __future__ import annotations

from collections import Counter

from fathom.serve.service import Returns


def busy(places_a_second: float, least: int = 2) -> Returns:
    returns = Returns(least)
    for k in range(Returns.FEW):
        returns.left(k / places_a_second)
    return returns


def test_before_any_place_was_left_it_is_the_least() -> None:
    returns = Returns(2)
    assert [returns.after(0.0) for _ in range(100)] == [2] * 100


def test_a_crowd_comes_back_as_fast_as_places_become_free() -> None:
    """Eight places a second: nine for the first two seconds, then eight in each one."""
    returns, now = busy(8.0), Returns.FEW / 8.0
    told = Counter(returns.after(now) for _ in range(160))
    assert told[2] in (1, 2) and set(told) == set(range(2, max(told) + 1)) and 21 <= max(told) <= 23
    assert all(7 <= told[second] <= 9 for second in range(3, max(told)))


def test_what_was_promised_passes_with_time() -> None:
    returns = busy(8.0)
    now = Returns.FEW / 8.0
    crowd = [returns.after(now) for _ in range(80)]
    for k in range(800):
        returns.left(now + k / 8.0)
    assert crowd[-1] > 10 and returns.after(now + 100.0) == 2


def test_nobody_waits_for_longer_than_a_minute_whoever_knocks() -> None:
    """Nor for ever behind a clock that jumped, back or forth."""
    returns = busy(0.5)
    assert max(returns.after(64.0) for _ in range(10_000)) == Returns.LONGEST
    assert returns.after(64.0 - 3600.0) == Returns.LONGEST
    assert 2 <= returns.after(64.0 + 3600.0) <= Returns.LONGEST
