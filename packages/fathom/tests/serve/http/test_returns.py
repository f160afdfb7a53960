"""Who is refused is told to come when a place is likely, and few for the same second."""

from __future__ import annotations

from collections import Counter

from fathom.serve.errors import ApiError
from fathom.serve.limits import Settings
from fathom.serve.service import Doors, Returns


def busy(places_a_second: float, until: float, least: int = 2) -> Returns:
    returns = Returns(least)
    for k in range(int(until * places_a_second)):
        returns.left(k / places_a_second)
    return returns


def test_before_any_place_was_left_it_is_the_least() -> None:
    returns = Returns(2)
    assert [returns.after(0.0) for _ in range(100)] == [2] * 100


def test_a_crowd_comes_back_as_fast_as_places_become_free() -> None:
    """Eight places a second: eight are told each second from the second one on."""
    returns = busy(8.0, until=20.0)
    told = Counter(returns.after(20.0) for _ in range(160))
    assert min(told) == 2 and 21 <= max(told) <= 23
    assert all(7 <= told[second] <= 9 for second in range(3, max(told)))


def test_who_left_makes_room_for_who_waits() -> None:
    returns = busy(8.0, until=20.0)
    crowd = [returns.after(20.0) for _ in range(80)]
    for k in range(80):
        returns.left(20.0 + k / 8.0)
    assert crowd[-1] > 10 and returns.after(30.0) == 2


def test_a_burst_after_quiet_is_told_the_least() -> None:
    """The rate is that of the last seconds: forty places a hundred seconds apart say nothing of now."""
    returns = Returns(2)
    for k in range(40):
        returns.left(100.0 * k)
    assert {returns.after(4000.0) for _ in range(12)} == {2}


def test_room_ends_the_line() -> None:
    doors = Doors(Settings(running=1, queue=1))
    doors.enter(), doors.enter()
    told = []
    for _ in range(100):
        doors.leave()
        doors.enter()       # so places become free
    for _ in range(5000):
        try:
            doors.enter()
        except ApiError as refused:
            told.append(int(refused.headers["Retry-After"]))
    assert told[0] == 2 and max(told) <= Returns.LONGEST
    doors.leave(), doors.leave()
    doors.enter(), doors.enter()
    try:
        doors.enter()
    except ApiError as refused:
        assert refused.headers["Retry-After"] == "2"


def test_nobody_waits_for_longer_than_a_minute_whoever_knocks() -> None:
    """Nor behind a clock that jumped, back or forth."""
    returns = busy(0.5, until=64.0)
    assert max(returns.after(64.0) for _ in range(10_000)) == Returns.LONGEST
    assert returns.after(64.0 - 3600.0) == 2
    assert 2 <= returns.after(64.0 + 3600.0) <= Returns.LONGEST
