"""Streams over a scripted engine: everybody gets their own, and no refused request harms another."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from fathom.config.errors import FathomError
from fathom.engine.request import BusyError, Delta, RequestError
from fathom.engine.stream import EngineError, Streams


def test_fifty_streams_get_their_own_in_company(play: Any):
    core = play.Core(gated=True)
    scripts = [tuple(range(1000 * k, 1000 * k + 1 + k % 7)) for k in range(50)]

    async def main(streams: Streams) -> list[list[Delta]]:
        tasks = await play.together(core, streams, *(play.request(*s) for s in scripts))
        core.open_gate()
        return await asyncio.gather(*tasks)

    with Streams(core) as streams:
        for script, deltas in zip(scripts, play.run(main(streams)), strict=True):
            assert play.answer(deltas) == play.expected(script)
            assert {delta.cached_tokens for delta in deltas} == {3}
    assert core.steps == 1 + max(map(len, scripts)), "they waited for one another"
    assert len(core.threads) == 1 and threading.get_ident() not in core.threads
    assert "cancel" not in dict(core.log)


def test_all_answers_to_one_request_come_to_their_end(play: Any):
    with Streams(play.Core()) as streams:
        deltas = play.run(play.read(streams, 5, 6, n=3))
    for index in range(3):
        assert play.answer(deltas, index) == play.expected((5, 6, *range(100, 100 + index)))


def test_loops_in_many_threads_share_the_engine(play: Any):
    core, got = play.Core(), {}

    def reader(k: int, streams: Streams) -> None:
        async def main() -> list[list[Delta]]:
            scripts = [(100 * k + j, j) for j in range(10)]
            return await asyncio.gather(*(play.read(streams, *s) for s in scripts))

        got[k] = [play.answer(deltas) for deltas in play.run(main())]

    with Streams(core) as streams:
        threads = [threading.Thread(target=reader, args=(k, streams)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(play.PATIENCE)
    assert got == {k: [play.expected((100 * k + j, j)) for j in range(10)] for k in range(4)}
    assert len(core.threads) == 1


@pytest.mark.parametrize(
    ("key", "kind", "says"),
    [
        ("wrong", RequestError, "wrong. Fix: none"),
        ("later", BusyError, "full. Fix: try again later"),
        ("bug", EngineError, r"take up the request \(TypeError: a bug of two lines\)\. Fix: "),
    ],
)
def test_a_refused_request_raises_and_harms_nobody(play: Any, key: str, kind: type[FathomError], says: str):
    core = play.Core(gated=True)

    async def main(streams: Streams) -> None:
        other = await play.started(play.read(streams, 1, 2, 3))
        refused = await play.started(anext(streams.stream(play.request(9, key=key))))
        core.open_gate()
        with pytest.raises(kind, match=says) as caught:
            await refused
        assert type(caught.value) is kind and (key != "bug") == (caught.value.__cause__ is None)
        assert play.answer(await other) == play.expected((1, 2, 3))
        assert play.answer(await play.read(streams, 4)) == play.expected((4,))

    with Streams(core) as streams:
        play.run(main(streams))
    assert "cancel" not in dict(core.log)


class Watched(threading.Condition):
    """Says when somebody waits, and for how long at most."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []
        self.waiting = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        self.waiting.release()
        return super().wait(timeout)


def test_an_idle_engine_sleeps_until_it_is_needed(play: Any):
    core = play.Core()
    streams = Streams(core)
    streams._changed = watched = Watched()
    streams.start()
    for n in range(5):
        assert watched.waiting.acquire(timeout=play.PATIENCE), "it does not sleep"
        assert play.answer(play.run(play.read(streams, 1, 2))) == play.expected((1, 2))
        assert core.steps == 2 * (n + 1), "it works for nothing"
    assert watched.waiting.acquire(timeout=play.PATIENCE)
    assert watched.waits == [None] * 6
    streams.close()
