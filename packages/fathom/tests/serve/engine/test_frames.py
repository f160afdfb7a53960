"""Frames and what waits in inboxes, without a process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fathom.serve.frames import (
    TEXT_A_FRAME,
    TOKENS_A_FRAME,
    brief,
    cut,
    news_message,
    read_ask,
    read_frame,
    read_news,
)
from fathom.serve.inbox import FEW, Inbox, joined
from fathom.serve.supervise import Backoff, Waits
from fathom.serve.wire import LONGEST_FRAME, Ask, News, Refused, ToolCall, pack, unpack

logs = st.tuples(st.integers(0, 9), st.floats(-9, 0), st.just(((1, -0.5), (2, -1.5))))
news = st.builds(
    News,
    index=st.integers(0, 2),
    text=st.text(max_size=3),
    tokens=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    logprobs=st.lists(logs, max_size=2).map(tuple),
    accepted=st.integers(0, 1),
    rejected=st.lists(st.integers(0, 9), max_size=1).map(tuple),
    tool_calls=st.lists(st.builds(ToolCall, arguments=st.text(max_size=2)), max_size=2).map(tuple),
)


async def heard(data: bytes) -> Any:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_frame(reader)


@given(news)
def test_news_survive_the_wire(one: News):
    message = unpack(pack(news_message(7, one))[4:])
    assert message["id"] == 7 and read_news(message) == one


def test_an_ask_survives_the_wire_with_whole_numbers_for_keys():
    sampling = {"logit_bias": {3: float("-inf"), 5: 1.0}, "stop": ["a", "\ud800"]}
    ask = Ask(messages=({"role": "user", "content": "é"},), tools=({"type": "function"},), sampling=sampling)
    again = read_ask(unpack(pack({"op": "submit", "request": brief(ask)})[4:])["request"])
    assert again == ask


@pytest.mark.parametrize(
    "garbage",
    [
        (LONGEST_FRAME + 1).to_bytes(4, "big") + b"x",
        (5).to_bytes(4, "big") + b"\xff\xff\xff\xff\xff",
        (2).to_bytes(4, "big") + b"[]",
        (8).to_bytes(4, "big") + b'{"op":1}',
        (3).to_bytes(4, "big") + b'{"o',
        (200_000).to_bytes(4, "big") + b"[" * 200_000,
        (5001).to_bytes(4, "big") + b"9" * 5001,
    ],
)
def test_what_is_no_frame_is_a_value_error(garbage: bytes):
    with pytest.raises(ValueError):
        asyncio.run(heard(garbage))


@pytest.mark.parametrize("cut_short", [b"", b"\0\0", b"\0\0\0\x09{", pack({"op": "x"})[:-1]])
def test_a_frame_that_stops_in_the_middle_is_the_end(cut_short: bytes):
    assert asyncio.run(heard(cut_short)) is None


def test_what_is_too_long_is_cut_and_nothing_lost():
    tokens = tuple(range(2 * TOKENS_A_FRAME + 3))
    long = News(
        text="x" * (3 * TEXT_A_FRAME + 1), tokens=tokens, accepted=1, rejected=(5,), error="e",
        logprobs=tuple((t, -1.0, ()) for t in tokens), finish_reason="error",
    )  # fmt: skip
    pieces = list(cut(long))
    assert len(pieces) == 4 and joined(pieces) == [long]
    assert [piece.finish_reason for piece in pieces] == [None] * 3 + ["error"]
    assert list(cut(News(text="a"))) == [News(text="a")]


@given(st.lists(news, max_size=3 * FEW))
def test_an_inbox_loses_nothing_however_slow_its_reader(put: list[News]):
    async def main() -> list[News]:
        box = Inbox(3)
        for one in [*put, *(News(index=k, finish_reason="stop") for k in range(3))]:
            box.put(one)
        got = await box.next()
        assert box.finished and await box.next() == []
        return got

    got = asyncio.run(main())
    for k in range(3):
        mine, theirs = ([one for one in side if one.index == k] for side in (put, got))
        assert "".join(one.text for one in theirs) == "".join(one.text for one in mine)
        for name in ("tokens", "logprobs", "tool_calls", "rejected"):
            both = ([x for one in side for x in getattr(one, name)] for side in (mine, theirs))
            assert next(both) == next(both), name
        before, after = (
            [(one.accepted, one.rejected) for one in side if one.accepted or one.rejected]
            for side in (mine, theirs)
        )
        assert before == after
        assert theirs[-1].finish_reason == "stop"


def test_what_came_before_a_failure_is_read_first():
    async def main() -> None:
        box = Inbox(1)
        box.put(News(text="a"))
        box.fail(Refused("engine", "down"))
        assert await box.next() == [News(text="a")]
        with pytest.raises(Refused, match="down"):
            await box.next()

    asyncio.run(main())


def test_waits_double_to_the_longest_and_begin_anew_after_a_long_life():
    backoff = Backoff(Waits())
    assert [backoff.died(lived=None) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.deaths == 7
    assert backoff.died(lived=29) == 30 and backoff.deaths == 0
    assert backoff.died(lived=31) == 1
