"""Whoever stops listening is cancelled before the next step begins, however and whenever they leave."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from fathom.engine.stream import Streams


def test_whoever_leaves_before_submission_is_never_submitted(play: Any):
    core = play.Core(gated=True)

    async def main(streams: Streams) -> None:
        other = await play.started(play.read(streams, 1, 2, 3))
        await play.elsewhere(core.until_step)
        await play.cancel(await play.started(play.read(streams, 9)))
        core.open_gate()
        assert play.answer(await other) == play.expected((1, 2, 3))

    with Streams(core) as streams:
        play.run(main(streams))
    assert [entry for entry in core.log if entry[0] in ("submit", "cancel")] == [("submit", 0)]


@pytest.mark.parametrize("alone", [True, False])
def test_whoever_leaves_while_waiting_is_cancelled_before_the_next_step(play: Any, alone: bool):
    core = play.Core(gated=True)

    async def main(streams: Streams) -> None:
        scripts = [[-1] * 1000] if alone else [[-1] * 1000, [7, 8, 9]]
        tasks = await play.together(core, streams, *(play.request(*s) for s in scripts))
        await play.cancel(tasks[0])
        core.open_gate()
        for other in tasks[1:]:
            assert play.answer(await other) == play.expected((7, 8, 9))
        await play.elsewhere(core.drained.wait, play.PATIENCE)

    with Streams(core) as streams:
        play.run(main(streams))
    play.cancelled_before_the_next_step(core, 1, left_during=2)
    assert core.steps == 2 if alone else core.steps > 2, "it works for nobody"


async def by_aclose(play: Any, streams: Streams, core: Any) -> None:
    stream = streams.stream(play.request(*range(1000)))
    assert await anext(stream) == play.written(0, 0, 0)
    await play.elsewhere(core.until_step)
    await stream.aclose()


async def by_cancelling_its_task(play: Any, streams: Streams, core: Any) -> None:
    got = asyncio.Event()

    async def read() -> None:
        async for delta in streams.stream(play.request(*range(1000))):
            assert delta == play.written(0, 0, 0)
            got.set()

    task = await play.started(read())
    await got.wait()
    await play.elsewhere(core.until_step)
    await play.cancel(task)


async def by_leaving_the_loop(play: Any, streams: Streams, core: Any) -> None:
    async for delta in streams.stream(play.request(*range(1000))):
        assert delta == play.written(0, 0, 0)
        await play.elsewhere(core.until_step)
        break
    gc.collect()
    for _ in range(3):  # the loop makes a task that closes what was dropped
        await asyncio.sleep(0)


@pytest.mark.parametrize("leave", [by_aclose, by_cancelling_its_task, by_leaving_the_loop])
def test_whoever_leaves_in_the_middle_is_cancelled_before_the_next_step(play: Any, leave: Any):
    core = play.Core(gated=True)

    async def main(streams: Streams) -> None:
        core.let()
        streams.start()
        task = await play.started(leave(play, streams, core))
        await play.elsewhere(core.until_step)
        await task
        core.open_gate()
        await play.elsewhere(core.drained.wait, play.PATIENCE)

    with Streams(core) as streams:
        play.run(main(streams))
    play.cancelled_before_the_next_step(core, 0, left_during=2)


def test_whoever_leaves_after_the_last_delta_is_not_cancelled(play: Any):
    core = play.Core()

    async def main(streams: Streams) -> None:
        stream = streams.stream(play.request(1))
        assert (await anext(stream)).finish_reason == "stop"
        await stream.aclose()
        assert play.answer(await play.read(streams, 2)) == play.expected((2,))

    with Streams(core) as streams:
        play.run(main(streams))
    assert "cancel" not in dict(core.log)


def test_a_stream_that_is_never_read_is_never_submitted(play: Any):
    core = play.Core()

    async def main(streams: Streams) -> None:
        await streams.stream(play.request(9)).aclose()
        await play.read(streams, 1)

    with Streams(core) as streams:
        play.run(main(streams))
    assert [entry for entry in core.log if entry[0] == "submit"] == [("submit", 0)]


def test_a_request_whose_event_loop_died_is_cancelled(play: Any):
    core = play.Core(gated=True)
    with Streams(core) as streams:
        loop = asyncio.new_event_loop()
        stream = streams.stream(play.request(*range(1000)))
        core.let()
        assert loop.run_until_complete(anext(stream)) == play.written(0, 0, 0)
        loop.close()
        core.let()
        core.open_gate()
        assert core.drained.wait(play.PATIENCE)
        assert ("cancel", 0) in core.log
        assert play.answer(play.run(play.read(streams, 1, 2))) == play.expected((1, 2))
