"""An engine that breaks or is closed: every reader is told, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from typing import Any

import pytest

from fathom.engine.request import RequestError
from fathom.engine.stream import EngineError, Streams


@pytest.mark.parametrize("call", ["step", "cancel", "busy"])
@pytest.mark.parametrize("error", [RuntimeError("out of\nmemory"), SystemExit(3), RequestError("odd")])
def test_a_broken_engine_reaches_every_stream_and_every_later_one(play: Any, call: str, error: BaseException):
    core = play.Core(gated=True)
    says = rf"broke down \({type(error).__name__}: [^\n]+\)\. Fix: "

    async def main(streams: Streams) -> None:
        requests = [play.request(*range(50)) for _ in range(10)]
        *tasks, leaver = await play.together(core, streams, *requests)
        await play.cancel(leaver)
        late = await play.started(play.read(streams, 1))  # in the inbox yet
        core.fail[call] = error
        core.open_gate()
        for got in await asyncio.gather(*tasks, late, return_exceptions=True):
            assert isinstance(got, EngineError) and got.__cause__ is error
            assert re.search(says, str(got)), got
        streams._thread.join(play.PATIENCE)  # type: ignore[union-attr]
        assert not streams._thread.is_alive()  # type: ignore[union-attr]
        for _ in range(2):
            with pytest.raises(EngineError, match=says):
                await anext(streams.stream(play.request(1)))
        with pytest.raises(EngineError, match=says):
            streams.start()

    with Streams(core) as streams:
        play.run(main(streams))
    with pytest.raises(EngineError, match=says):
        streams.start()
    gone = [request_id for kind, request_id in core.log if kind == "cancel"]
    assert sorted(gone) == ([] if call == "cancel" else list(range(1, 11))), "`generate` would compute them"


def test_of_a_broken_engine_all_that_can_be_cancelled_is(play: Any):
    core = play.Core(gated=True)
    plain = core.cancel

    def cancel(request_id: int) -> None:
        if request_id == 2:
            raise RuntimeError("not this one")
        plain(request_id)

    async def main(streams: Streams) -> None:
        tasks = await play.together(core, streams, *(play.request(*range(50)) for _ in range(4)))
        core.cancel = cancel
        core.fail["step"] = RuntimeError("the first reason")
        core.open_gate()
        for got in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(got, EngineError) and "the first reason" in str(got)

    with Streams(core) as streams:
        play.run(main(streams))
    assert [entry for entry in core.log if entry[0] == "cancel"] == [("cancel", k) for k in (1, 3, 4)]


def test_a_strange_error_is_told_in_one_short_line(play: Any):
    core = play.Core()
    core.fail["step"] = RuntimeError("a\nb " * 1000)
    with Streams(core) as streams:
        with pytest.raises(EngineError, match=r"\(RuntimeError: a b .*\.\.\.\)\. Fix: ") as caught:
            play.run(anext(streams.stream(play.request(1))))
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)
    core.fail["step"] = RuntimeError()
    with Streams(core) as streams, pytest.raises(EngineError, match=r"\(RuntimeError\)\. Fix: "):
        play.run(anext(streams.stream(play.request(1))))


def test_what_was_certain_is_read_before_the_error(play: Any):
    core = play.Core(gated=True)

    async def main(streams: Streams) -> None:
        stream = streams.stream(play.request(*range(50)))
        core.let(1)
        deltas = [await anext(stream)]
        core.let(10)
        for _ in range(12):
            core.until_step()  # the loop stands still: ten more steps, and a twelfth that fails
        core.fail["step"] = RuntimeError("no")
        core.let(1)
        streams._thread.join(play.PATIENCE)  # type: ignore[union-attr]
        deltas.append(await anext(stream))
        assert play.answer(deltas)[1] == tuple(range(11))
        with pytest.raises(EngineError):
            await anext(stream)

    with Streams(core) as streams:
        play.run(main(streams))


def test_closing_ends_every_stream_as_cancelled(play: Any):
    core = play.Core(gated=True)

    async def main(streams: Streams) -> None:
        requests = [play.request(5, n=3), play.request(*range(50))]
        several, long = await play.together(core, streams, *requests)
        core.let()
        await play.elsewhere(core.until_step)
        inbox = await play.started(play.read(streams, 1))
        closing = asyncio.ensure_future(asyncio.to_thread(streams.close))
        while not streams._over:
            await asyncio.sleep(0)
        with pytest.raises(EngineError, match=r"the engine is closed\. Fix: "):
            await anext(streams.stream(play.request(1)))
        core.open_gate()
        await closing
        deltas = await several
        ends = [play.answer(deltas, k)[1:] for k in range(3)]
        assert ends == [((5,), "stop"), ((5, 100), "stop"), ((5, 100), "cancelled")]
        assert play.answer(await long) == play.expected((0, 1), "cancelled")
        with pytest.raises(EngineError, match=r"the engine is closed\. Fix: "):
            await inbox
        with pytest.raises(EngineError, match=r"the engine is closed\. Fix: "):
            await anext(streams.stream(play.request(1)))

    with Streams(core) as streams:
        play.run(main(streams))
    assert core.steps == 3, "a step began after the engine was closed"
    assert [entry for entry in core.log if entry[0] == "cancel"] == [("cancel", 1), ("cancel", 2)]


def test_closing_from_the_loop_while_one_reads(play: Any):
    core = play.Core()

    async def main(streams: Streams) -> None:
        task = await play.started(play.read(streams, *[-1] * 10**5))
        await play.elsewhere(core.until_step)
        streams.close()
        assert play.answer(await task) == play.expected((), "cancelled")

    play.run(main(Streams(core)))


def test_an_engine_that_breaks_while_it_is_closed_leaves_nobody_waiting(play: Any):
    core = play.Core(gated=True)

    async def main(streams: Streams) -> None:
        task = await play.started(play.read(streams, *range(50)))
        await play.elsewhere(core.until_step)
        core.fail["cancel"] = RuntimeError("no")
        core.open_gate()
        streams.close()
        with pytest.raises(EngineError, match="broke down"):
            await task

    play.run(main(Streams(core)))


def test_closing_twice_before_the_start_or_when_idle(play: Any):
    core = play.Core()
    unused = Streams(core)
    unused.close()
    unused.close()
    assert not core.threads
    with pytest.raises(EngineError, match=r"the engine is closed\. Fix: "):
        play.run(anext(unused.stream(play.request(1))))
    idle = Streams(core)
    idle.start()
    idle.close()
    idle.close()
    assert len(core.threads) == 1 and not core.steps


FORGETFUL = """
import asyncio
from fathom.engine.request import Delta, Request
from fathom.engine.stream import Streams

class Core:
    busy = False
    def submit(self, request):
        self.busy = True
        return 0
    def cancel(self, request_id):
        self.busy = False
        print("cancelled", flush=True)
    def step(self):
        return [Delta(request_id=0, index=0, text="a")]

async def main():
    global stream
    stream = streams.stream(Request(text="x"))
    print((await anext(stream)).text[0])  # more, where the reader is slow

streams = Streams(Core())
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""


def test_a_program_that_forgets_to_close_ends(play: Any):
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL], capture_output=True, text=True, timeout=2 * play.PATIENCE
    )
    assert (done.returncode, done.stdout) == (0, "a\ncancelled\n"), done.stderr
