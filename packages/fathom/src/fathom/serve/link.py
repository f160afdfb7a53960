"""The server's view of the engine, whichever process that is at the moment. No torch is imported.

    link = EngineLink("runs/demo-6min/sft", {"max_waiting": 64})
    await link.start()
    info = await link.ready()
    async with aclosing(link.generate(Ask(text="Mia had"))) as news:
        ...
    await link.drain(timeout=30)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fathom.config.engine import EngineConfig
from fathom.config.errors import ConfigError, plain
from fathom.serve.connection import Connection
from fathom.serve.frames import read_logprob
from fathom.serve.pulse import Pulse
from fathom.serve.supervise import Backoff, Child, Waits
from fathom.serve.wire import Ask, Info, News, Refused, Score

MOST_WAITING = 1_000_000    # as EngineConfig allows
MOST_CALLS = 256        # encode, decode, experts and stats at once
MOST_DEATHS = 3         # at start, in a row; then it is reported, and tried at the longest wait only
LAST_DEATH = 10         # at start, in a row; then it is given up


class EngineLink:
    """`wire.Link` over a process that is started, watched, and started again when it dies."""

    def __init__(
        self,
        model: Path | str,
        settings: Mapping[str, Any] | None = None,
        *,
        waits: Waits | None = None,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`settings` of EngineConfig by name; `told` gets a line at each start and death. ConfigError."""
        self.model, self.settings = str(model), dict(settings or {})
        try:
            config = EngineConfig(**self.settings)
        except TypeError as problem:
            raise ConfigError(f"engine settings cannot be read ({problem}). Fix: use known names") from None
        # Bounded here, and for both together: at an engine that is idle all of a burst waits for a moment.
        self.most_open = config.max_running + config.max_waiting  # answers
        self.settings["max_waiting"] = min(self.most_open, MOST_WAITING)
        self.failure = ""  # why the last process ended, or cannot start; "" while all is well
        self.restarts = 0
        self._waits, self._told = waits or Waits(), told
        self._connection: Connection | None = None
        self._pulse: Pulse | None = None
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._open = self._calls = 0
        self._closing = False
        self._settled, self._all_read, self._lost = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @property
    def info(self) -> Info | None:
        """None while the engine is starting or down."""
        return self._connection.info if self._connection is not None else None

    @property
    def trouble(self) -> str:
        """See `wire.Link`."""
        return self._pulse.trouble if self._pulse is not None else ""

    @property
    def open(self) -> int:
        """Answers that are being written or read."""
        return self._open

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._child.process.pid if self._child is not None else None

    async def start(self) -> None:
        """Start the process and from now on keep one running; does not wait until it is ready."""
        assert self._keeper is None, "the link is started twice"
        self._keeper = asyncio.create_task(self._keep(), name="engine's keeper")

    async def ready(self) -> Info:
        """Wait for the engine. Refused("engine") when it cannot start, or died at start three times."""
        await self._settled.wait()
        if self.info is None:
            raise self._down()
        return self.info

    async def lost(self) -> str:
        """Wait until no engine is tried any more, since none becomes ready; why."""
        await self._lost.wait()
        return self.failure

    async def generate(self, ask: Ask) -> AsyncGenerator[News, None]:
        """See `wire.Link`."""
        connection = self._up()
        answers = ask.sampling.get("n", 1)
        answers = answers if isinstance(answers, int) and answers > 0 else 1  # or the engine refuses it
        if answers > self.most_open:
            what = f"n={answers} answers to one request, and at most {self.most_open} are taken up at once"
            raise Refused("request", f"{what}. Fix: ask for fewer at a time")
        if self._open + answers > self.most_open:
            what = f"{self._open} answers are being written or wait, and at most {self.most_open} may"
            raise Refused("busy", f"{what}. Fix: try again later")
        self._open += answers
        try:
            number, box = await connection.submit(ask, answers)
            try:
                while news := await box.next():
                    for one in news:
                        yield one
            finally:
                connection.leave(number)
        finally:
            self._open -= answers
            if not self._open:
                self._all_read.set()

    async def encode(
        self, *, text: str | None = None, messages: tuple[Mapping[str, Any], ...] | None = None
    ) -> list[int]:
        """See `wire.Link`."""
        words = {"text": text, "messages": messages}
        ids: list[int] = await self._call("encode", {k: v for k, v in words.items() if v is not None})
        return ids

    async def decode(self, tokens: list[int]) -> list[str]:
        """See `wire.Link`. A control token becomes its name."""
        texts: list[str] = await self._call("decode", {"tokens": tokens})
        return texts

    async def experts(self, tokens: list[int]) -> list[list[list[int]]]:
        """See `wire.Link`."""
        chosen: list[list[list[int]]] = await self._call("experts", {"tokens": tokens})
        return chosen

    async def score(self, tokens: list[int], top: int = 0) -> list[Score]:
        """See `wire.Link`."""
        value = await self._call("score", {"tokens": tokens, "top": top})
        return [(tokens[0], None, ()), *(read_logprob(one) for one in value)]

    async def stats(self) -> dict[str, float]:
        """See `wire.Link`."""
        counters: dict[str, float] = await self._call("stats", {})
        return counters

    async def drain(self, timeout: float) -> bool:
        """Take nothing new, let what was taken up be written and read, and close; whether all was in time."""
        self._closing = True
        if self._connection is not None:
            self._connection.drain()
        self._all_read.clear()
        try:
            async with asyncio.timeout(timeout):
                while self._open:
                    await self._all_read.wait()
            return True
        except TimeoutError:
            return False
        finally:
            await self.close()

    async def close(self) -> None:
        """End the process, and what runs as cancelled; again = nothing."""
        self._closing = True
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        if self._child is not None:
            self._child.tell_to_end()
            await asyncio.wait({keeper}, timeout=self._waits.grace)
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper

    async def _call(self, op: str, words: Mapping[str, Any]) -> Any:
        connection = self._up()
        if self._calls >= MOST_CALLS:
            raise Refused("busy", f"{self._calls} questions wait for the engine. Fix: try again later")
        self._calls += 1
        try:
            return await connection.call(op, words)
        finally:
            self._calls -= 1

    def _up(self) -> Connection:
        if self._closing:
            raise Refused("engine", "the server is about to end. Fix: try another one, or later")
        if self._connection is None or self._connection.info is None:
            raise self._down()
        return self._connection

    def _down(self) -> Refused:
        why = self.failure or "the engine is starting. Fix: try again in a moment"
        return Refused("engine", why)

    async def _keep(self) -> None:
        """One process after the other."""
        backoff = Backoff(self._waits)
        while True:
            try:
                lived, hopeless = await self._live()
            except Exception as problem:  # a fault of ours: the next process may do better
                what = f"the engine cannot be kept ({type(problem).__name__}: {plain(str(problem))})"
                self.failure = f"{what}. Fix: report it as a fault of the server"
                lived, hopeless = None, False
            if self._closing:
                return
            wait = backoff.died(lived=lived)
            if backoff.deaths >= LAST_DEATH:
                self.failure = f"{backoff.deaths} engines in a row did not become ready: {self.failure}"
                self._lost.set()
                return
            if hopeless or backoff.deaths >= MOST_DEATHS:
                wait = self._waits.longest
                self._settled.set()
            self._tell(f"{self.failure} (next try in {wait:g} s)")
            await asyncio.sleep(wait)
            self.restarts += 1

    def _tell(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a standard error that nobody reads is no reason to end
            self._told(line)

    async def _live(self) -> tuple[float | None, bool]:
        """One process from start to end: how long it served, None = never; whether it said it cannot."""
        try:
            child = self._child = await Child.start(self.model, self.settings)
        except OSError as error:
            self.failure = f"no process for the engine ({error.strerror}). Fix: free memory or processes"
            return None, False
        connection = self._connection = Connection(child.reader, child.writer)
        since: list[float] = []
        greeting = asyncio.create_task(self._greet(connection, since))
        pulse = self._pulse = Pulse(connection, self._waits.silence)
        hearing, watching = asyncio.create_task(connection.run()), asyncio.create_task(pulse.watch())
        problem = ""
        try:
            await asyncio.wait((hearing, watching), return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                child.kill()
            problem = (hearing if hearing.done() else watching).result()
        finally:
            self._pulse = None
            hearing.cancel()
            watching.cancel()
            connection.end("the engine has died, and is started again. Fix: try again in a moment")
            await greeting
            how = await child.end(self._waits.grace)
            self._child = None
            if connection.failure:
                self.failure = connection.failure
            else:
                self.failure = f"the engine died ({problem or how}). Fix: it is started again; try later"
        return (time.monotonic() - since[0] if since else None), bool(connection.failure)

    async def _greet(self, connection: Connection, since: list[float]) -> None:
        await connection.ready.wait()
        if connection.info is not None:
            since.append(time.monotonic())
            self.failure = ""
            self._settled.set()
            self._tell(connection.info.line)
