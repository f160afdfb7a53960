"""Processes that die, are told to end, or hear nonsense: everybody is told, and nobody is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fathom.engine import Engine, EngineConfig
from fathom.serve.attend import Attendant
from fathom.serve.connection import Connection
from fathom.serve.link import EngineLink
from fathom.serve.supervise import Child, Waits
from fathom.serve.wire import Ask, Refused, pack, unpack


class Kept:
    """A writer that keeps the frames."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.write = self.said.append

    async def drain(self) -> None:
        pass


def test_a_killed_engine_is_told_at_once_and_started_again(shared: Any, play: Any):
    link = shared.link

    async def main() -> None:
        before = play.tokens(await play.read(link, play.ask()))
        reading = [asyncio.ensure_future(play.read(link, play.ask(max_tokens=1500))) for _ in range(3)]
        await play.until(lambda: link.open == 3)
        await link.stats()
        pid = link.pid
        os.kill(pid, signal.SIGKILL)
        done, _ = await asyncio.wait(reading)
        assert [task.exception().kind for task in done] == ["engine"] * 3
        assert link.info is None and link.open == 0
        with pytest.raises(Refused) as refused:
            await link.stats()
        assert refused.value.kind == "engine" and "Fix: " in refused.value.message
        await play.until(lambda: link.info and link.failure == "")
        assert link.pid != pid and link.restarts == 1
        assert play.tokens(await play.read(link, play.ask())) == before

    shared.run(main())


def test_an_engine_that_hangs_is_killed_and_started_again(model: Path, play: Any):
    """Stopped, it lives and its connection stays open; only that it makes no sign tells."""

    async def main() -> None:
        lines: list[str] = []
        waits = Waits(first=0.1, longest=0.4, grace=5.0, silence=4.0)
        link = EngineLink(model, play.SETTINGS, waits=waits, told=lines.append)
        await link.start()
        await link.ready()
        before = play.tokens(await play.read(link, play.ask()))
        reading = asyncio.ensure_future(play.read(link, play.ask(max_tokens=1500)))
        await play.until(lambda: link.open)
        assert link.trouble == ""
        stopped = link.pid
        os.kill(stopped, signal.SIGSTOP)
        await play.until(lambda: link.trouble)
        assert "no sign for" in link.trouble and link.info is not None
        with pytest.raises(Refused) as refused:
            await reading
        assert refused.value.kind == "engine" and link.info is None
        await play.until(lambda: link.info)
        assert link.pid != stopped and not alive(stopped) and link.trouble == ""
        assert play.tokens(await play.read(link, play.ask())) == before
        assert sum("made no sign for 4 s" in line for line in lines) == 1
        await link.close()

    play.run(main())


def test_a_sign_comes_when_the_step_has_ended(model: Path, play: Any):
    """And not from a process whose loop alone goes on."""

    async def main() -> None:
        engine, go_on, kept = Engine(model, EngineConfig(**play.SETTINGS)), threading.Event(), Kept()
        step = asyncio.ensure_future(engine._streams.between(lambda: go_on.wait(play.PATIENCE)))
        Attendant(engine, kept).handle({"op": "pulse", "id": 7})
        await asyncio.sleep(0.2)
        assert not kept.said
        go_on.set()
        await play.until(lambda: kept.said)
        assert unpack(kept.said[0][4:]) == {"op": "answer", "id": 7, "value": None}
        await step
        engine.close()

    play.run(main())


def test_nonsense_of_every_kind_ends_the_connection_and_nothing_else(play: Any):
    """Here a token that is infinite: neither a ValueError nor a TypeError, but an OverflowError."""

    async def main() -> None:
        reader = asyncio.StreamReader()
        connection = Connection(reader, Kept())
        number, _ = await connection.submit(Ask(text="x"), 1)
        reader.feed_data(pack({"op": "news", "id": number, "logprobs": [[float("inf"), 0, []]]}))
        assert (await connection.run()).startswith("it spoke nonsense (OverflowError: ")

    play.run(main())


def test_a_fault_of_the_keeper_is_said_and_tried_again(
    model: Path, play: Any, monkeypatch: pytest.MonkeyPatch
):
    start, lines = Child.start, list[str]()

    async def fail_once(*words: Any) -> Child:
        monkeypatch.setattr(Child, "start", start)
        raise RuntimeError("the moon")

    monkeypatch.setattr(Child, "start", fail_once)

    async def main() -> None:
        link = EngineLink(model, play.SETTINGS, waits=play.SOON, told=lines.append)
        await link.start()
        await link.ready()
        assert "RuntimeError: the moon" in lines[0] and "Fix: " in lines[0]
        await link.close()

    play.run(main())


def test_one_that_never_becomes_ready_is_given_up(model: Path, play: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fathom.serve.supervise.MODULE", "fathom.serve.none_such")
    monkeypatch.setattr("fathom.serve.link.LAST_DEATH", 4)

    def told(line: str) -> None:
        raise BrokenPipeError  # nobody reads it: no reason to stop trying

    async def main() -> None:
        link = EngineLink(model, waits=play.SOON, told=told)
        await link.start()
        why = await link.lost()
        assert why.startswith("4 engines in a row did not become ready: ") and "Fix: " in why
        assert link.restarts == 3 and link.info is None
        with pytest.raises(Refused, match="4 engines in a row"):
            await link.stats()
        await link.close()

    play.run(main())


def test_what_cannot_start_is_said_and_tried_seldom(tmp_path: Path, play: Any):
    async def main() -> None:
        lines: list[str] = []
        link = EngineLink(tmp_path / "nothing", waits=play.SOON, told=lines.append)
        await link.start()
        with pytest.raises(Refused, match=r"nothing.*Fix: ") as refused:
            await link.ready()
        assert refused.value.kind == "engine" and len(lines) <= 1
        with pytest.raises(Refused, match="nothing"):
            await play.read(link, play.ask())
        await link.close()

    play.run(main())


def test_three_deaths_at_start_are_reported(model: Path, play: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fathom.serve.supervise.MODULE", "fathom.serve.none_such")

    async def main() -> None:
        lines: list[str] = []
        link = EngineLink(model, waits=play.SOON, told=lines.append)
        await link.start()
        with pytest.raises(Refused, match=r"the engine died \(it ended with status 1\).*Fix: "):
            await link.ready()
        assert link.restarts == 2
        await play.until(lambda: len(lines) == 3)
        assert "0.4 s" in lines[2]
        await link.close()

    play.run(main())


def test_drain_finishes_what_runs_and_takes_nothing_new(model: Path, play: Any):
    async def main() -> None:
        async with play.linked(model) as link:
            process = link.pid
            asked = [play.ask(max_tokens=200, seed=k) for k in range(4)]
            reading = [asyncio.ensure_future(play.read(link, one)) for one in asked]
            await play.until(lambda: link.open == 4)
            draining = asyncio.ensure_future(link.drain(timeout=play.PATIENCE))
            await asyncio.sleep(0)
            with pytest.raises(Refused) as refused:
                await play.read(link, play.ask())
            assert refused.value.kind == "engine"
            assert await draining
            for task in reading:
                assert len(play.tokens(await task)) == 200
            assert not alive(process)

    play.run(main())


def test_a_drain_that_takes_too_long_ends_answers_as_cancelled(model: Path, play: Any):
    async def main() -> None:
        async with play.linked(model) as link:
            reading = asyncio.ensure_future(play.read(link, play.ask(max_tokens=2000)))
            await play.until(lambda: link.open == 1)
            assert not await link.drain(timeout=0.1)
            assert (await reading)[-1].finish_reason == "cancelled"

    play.run(main())


def test_garbage_ends_the_process_cleanly(bare: Any):
    one = bare()
    assert one.hear()["op"] == "ready"
    one.own.sendall(b"GET / HTTP/1.1\r\n\r\n")
    status, said = one.end()
    assert status == 2
    assert "nonsense" in said and "Traceback" not in said and len(said.splitlines()) == 1


def test_bare_frames_sigint_cancel_and_sigterm(bare: Any):
    one = bare()
    ready = one.hear()
    assert ready["op"] == "ready" and ready["info"]["layers"] == 2
    long = {"text": "Mia", "sampling": {"max_tokens": 1900, "ignore_eos": True}}
    one.say(op="submit", id=1, request=long)
    one.say(op="submit", id=2, request=long)
    one.say(op="cancel", id=1)
    one.say(op="cancel", id=99)
    one.process.send_signal(signal.SIGINT)
    while one.hear()["id"] != 2:
        pass
    one.process.send_signal(signal.SIGTERM)
    last = None
    while (message := one.hear()) is not None:
        last = message
    assert last["id"] == 2 and last["finish_reason"] == "cancelled"
    assert one.end() == (0, "")


def test_a_server_that_does_not_read_stops_nobody_and_gets_it_all(bare: Any):
    one, length = bare(speculate="off"), 300
    sampling = {"max_tokens": length, "ignore_eos": True, "logprobs": 20, "seed": 1}
    assert one.hear()["op"] == "ready"
    for number in (1, 2):
        one.say(op="submit", id=number, request={"text": "Mia", "sampling": sampling})
    spent = [cpu_seconds(one.process.pid)]
    while len(spent) < 5 or spent[-1] - spent[-4] > 0.02:  # until it rests: all is written
        time.sleep(0.3)
        spent.append(cpu_seconds(one.process.pid))
    frames: dict[int, list[dict]] = {1: [], 2: []}
    while not all(news and news[-1].get("finish_reason") for news in frames.values()):
        message = one.hear()
        frames[message["id"]].append(message)
    for news in frames.values():
        assert sum(len(message["logprobs"]) for message in news) == length
        assert len(news) < 0.9 * length, "nothing was merged: the engine waited"
        assert len(news[-1]["tokens"]) > 50, "the last words came in small pieces: the engine waited"


@pytest.mark.parametrize("loaded", [True, False])
def test_a_server_that_dies_leaves_no_engine_behind(model: Path, play: Any, loaded: bool):
    """A server is a process here, killed while its engine works, or loads."""
    code = f"""
import asyncio, sys
from fathom.serve.link import EngineLink
from fathom.serve.wire import Ask
async def main():
    link = EngineLink({str(model)!r}, {play.SETTINGS!r})
    await link.start()
    while link.pid is None:
        await asyncio.sleep(0.01)
    if {loaded}:
        await link.ready()
        await anext(link.generate(Ask(text="x", sampling=dict(max_tokens=2000, ignore_eos=True))))
    print(link.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        pid = int(server.stdout.readline())
        assert alive(pid)
        server.kill()
    end = time.monotonic() + play.PATIENCE
    while alive(pid):
        assert time.monotonic() < end, "the engine outlives its server"
        time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def alive(pid: int) -> bool:
    """Whether it runs; one that ended and that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
