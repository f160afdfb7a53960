"""Stop strings are found wherever the text is cut, nothing of them is shown, and nothing is held for long."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.engine import stop
from fathom.engine.stop import StopFinder

letters = st.text(alphabet="ab\n日", max_size=40)
stop_strings = st.lists(st.text(alphabet="ab\n日", min_size=1, max_size=6), max_size=5).map(tuple)


def cut(text: str, places: list[int]) -> list[str]:
    """The text in pieces, empty ones among them."""
    borders = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(borders)]


def expected(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The stop string that is complete first; of those that end together, the one that began first."""
    found = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    return (text[: min(found)[1]], True) if found else (text, False)


def shown(pieces: list[str], stops: tuple[str, ...]) -> tuple[str, bool]:
    finder, text = StopFinder(stops), ""
    for piece in pieces:
        certain, found = finder.push(piece)
        text += certain
        if found:
            break
    return text + finder.end(), finder.found


@settings(max_examples=1500, deadline=None)
@given(letters, stop_strings, st.lists(st.integers(0, 40), max_size=40))
def test_any_cut_gives_what_a_search_of_the_whole_text_gives(
    text: str, stops: tuple[str, ...], places: list[int]
) -> None:
    assert shown(cut(text, places), stops) == expected(text, stops)


@settings(max_examples=500, deadline=None)
@given(letters, stop_strings)
def test_no_more_is_held_back_than_could_begin_a_stop_string(text: str, stops: tuple[str, ...]) -> None:
    finder, out = StopFinder(stops), ""
    for n, letter in enumerate(text, start=1):
        certain, found = finder.push(letter)
        if found:
            return
        out += certain
        held = text[len(out) : n]
        assert text[:n] == out + held
        longest = max((k for s in stops for k in range(len(s)) if text[:n].endswith(s[:k])), default=0)
        assert len(held) == longest


def test_a_stop_string_over_many_pieces() -> None:
    assert shown(["Mia said", " go", "od", "b", "", "ye", " and left"], ("goodbye",)) == ("Mia said ", True)
    assert shown(["Mia said", " go", "od", "b", "", "y"], ("goodbye",)) == ("Mia said goodby", False)


@pytest.mark.parametrize(
    ("text", "stops", "result"),
    [
        ("xabcd", ("abcd", "bc"), "xa"),  # bc is complete first
        ("xabc", ("abc", "bc", "c"), "x"),  # all end here: the longest
        ("aaab", ("aab",), "a"),
        ("abababc", ("ababc",), "ab"),
        ("ab", ("ab", "ab"), ""),
        ("abc", (), "abc"),
        ("日本", ("本",), "日"),
    ],
)
def test_overlapping_stop_strings(text: str, stops: tuple[str, ...], result: str) -> None:
    assert shown(list(text), stops)[0] == shown([text], stops)[0] == result


def test_what_follows_is_dropped() -> None:
    finder = StopFinder(("\n",))
    assert finder.push("one\ntwo\nthree") == ("one", True)
    assert finder.push("four") == ("", True)
    assert finder.end() == ""


def test_two_finders_of_the_same_stop_strings_do_not_mix() -> None:
    one, other = StopFinder(("abc",)), StopFinder(("abc",))
    assert one.push("ab") == ("", False)
    assert other.push("c") == ("c", False)
    assert one.end() == "ab"
    assert one.push("c") == ("c", False)


def test_an_empty_stop_string_is_an_error() -> None:
    with pytest.raises(AssertionError, match="empty stop string"):
        StopFinder(("a", ""))


@pytest.mark.parametrize("piece", ["a", "ab" * 20])
@pytest.mark.parametrize(
    "stops", [("a" * 255 + "b",), tuple("a" * n + "b" for n in range(240, 256)), ("ab" * 128 + "b",)]
)
def test_work_is_linear_in_the_text(
    monkeypatch: pytest.MonkeyPatch, piece: str, stops: tuple[str, ...]
) -> None:
    """Steps are counted, not timed: at most two a character, for texts that almost end every stop string."""
    steps = 0

    class Counted(dict[str, object]):
        def __contains__(self, key: object) -> bool:
            nonlocal steps
            steps += 1
            return super().__contains__(key)

    states = [stop._automaton(stops)]
    for state in states:
        states += state.step.values()
        monkeypatch.setattr(state, "step", Counted(state.step))
    finder = StopFinder(stops)
    for _ in range(1000):
        assert finder.push(piece)[1] is False
    assert 0 < steps <= 2 * 1000 * len(piece)
