"""News between the engine's thread and a reader: nothing is lost, and a slow reader lets nothing pile up."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.errors import FathomError
from fathom.engine.mailbox import Mailbox
from fathom.engine.request import Delta, Logprob, Request, SamplingParams

ANSWERS = 3
REQUEST = Request(text="x", sampling=SamplingParams(n=ANSWERS))

bits = st.builds(
    lambda index, text, tokens, cached: Delta(
        request_id=7,
        index=index,
        text=text,
        tokens=tuple(tokens),
        logprobs=tuple(Logprob(token, -0.5) for token in tokens),
        cached_tokens=cached,
    ),
    st.integers(0, ANSWERS - 1),
    st.text(max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
    st.integers(0, 5),
)
ENDS = [Delta(request_id=7, index=k, finish_reason="error", error=f"e{k}") for k in range(ANSWERS)]


async def take(ops: list[Delta | None]) -> list[Delta]:
    """What a reader gets that reads at each None, and to the end."""
    box = Mailbox(REQUEST, asyncio.get_running_loop())
    taken: list[Delta] = []
    waiting = False
    for op in [*ops, *ENDS]:
        if op is not None:
            box.put(op)
            waiting = True
        elif waiting:
            news = await box.next()
            assert len({delta.index for delta in news}) == len(news), "not merged"
            taken += news
            waiting = False
    assert box.finished and not box.leave()
    while news := await box.next():
        taken += news
    return taken


@given(ops=st.lists(st.one_of(bits, st.none()), max_size=30))
@settings(max_examples=200, deadline=None)
def test_merging_loses_nothing_whenever_the_reader_reads(ops: list[Delta | None]):
    deltas = asyncio.run(take(ops))
    assert {delta.request_id for delta in deltas} == {7}
    for index in range(ANSWERS):
        put = [op for op in ops if op is not None and op.index == index]
        got = [delta for delta in deltas if delta.index == index]
        assert "".join(d.text for d in got) == "".join(d.text for d in put)
        for name in ("tokens", "logprobs"):
            one, other = ([x for d in side for x in getattr(d, name)] for side in (got, put))
            assert one == other, name
        assert [d.finish_reason for d in got] == [None] * (len(got) - 1) + ["error"]
        assert [d.error for d in got] == [""] * (len(got) - 1) + [f"e{index}"]
        assert max(d.cached_tokens for d in got) == max([d.cached_tokens for d in put], default=0)


def test_a_slow_reader_finds_one_delta_an_answer_and_one_callback(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        callbacks: list[Any] = []
        really = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a: callbacks.append(a) or really(*a))
        box = Mailbox(REQUEST, loop)
        for turn in range(1, 4):  # a reader that is slow again and again
            for token, index in itertools.product(range(1000), range(ANSWERS)):
                box.put(Delta(request_id=7, index=index, text="a", tokens=(token,)))
            assert len(callbacks) == turn, "callbacks pile up in the loop"
            news = await box.next()
            assert [(d.index, d.text) for d in news] == [(k, "a" * 1000) for k in range(ANSWERS)]
            await asyncio.sleep(0)

    asyncio.run(main())


def test_an_error_comes_behind_what_was_certain():
    async def main() -> None:
        box = Mailbox(REQUEST, asyncio.get_running_loop())
        box.put(Delta(request_id=7, index=0, text="a"))
        box.fail(FathomError("over"))
        assert [d.text for d in await box.next()] == ["a"]
        with pytest.raises(FathomError, match="over"):
            await box.next()
        assert not box.leave(), "nothing is left to cancel"

    asyncio.run(main())
