"""Running the server: a port, the engine, signals, and an end that lets running answers finish."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import uvicorn

from fathom.config.errors import ConfigError, FathomError, need
from fathom.serve.access import is_loopback
from fathom.serve.app import make_app
from fathom.serve.connection_limits import uvicorn_settings
from fathom.serve.limits import Settings
from fathom.serve.scarcity import Scarcity
from fathom.serve.wire import Info, Link, Refused

ENDS = {signal.SIGTERM: 75, signal.SIGINT: 130}  # exit statuses, as of every command of ours
ENGINE_SECONDS = 5.0  # for the engine to end once nobody is inside


class RunningLink(Link, Protocol):
    """A link with a life of its own, as `fathom.serve.link.EngineLink` is."""

    async def start(self) -> None:
        """Begin to keep an engine running."""

    async def ready(self) -> Info:
        """Wait for it. Refused when it cannot start."""

    async def lost(self) -> str:
        """Wait until it is given up; why."""

    async def drain(self, timeout: float) -> bool:
        """End it."""

    async def close(self) -> None:
        """End it at once."""


def listen(host: str, port: int, settings: Settings) -> socket.socket:
    """A socket at this place. ConfigError where there can be none, or where everybody could come in."""
    need(0 <= port <= 65535, f"--port {port} is no port", fix="give one from 1 to 65535, or 0 for any")
    for key in settings.keys:
        fits = len(key) >= 8 and key.isascii() and key.isprintable() and " " not in key
        what = "an API key is shorter than 8 characters or holds what no header can"
        need(fits, what, fix="give a longer one")
    if not settings.keys:
        what = f"--host {host} without a key would serve everybody who can reach it"
        need(is_loopback(host), what, fix="add --api-key KEY, or leave --host out")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, UnicodeError) as problem:
        number = getattr(problem, "errno", None)
        if number == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is taken. Fix: give another --port") from None
        if number == errno.EACCES:
            raise ConfigError(f"port {port} is not ours to take. Fix: give one above 1023") from None
        reason = getattr(problem, "strerror", None) or "it is no name of a host"
        what = f"--host {host} cannot be used ({reason})"
        raise ConfigError(f"{what}. Fix: give 127.0.0.1, or leave it out") from None


class _Server(uvicorn.Server):
    """uvicorn without its signals: ours drain first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Running:
    """One server from start to end."""

    def __init__(self, link: RunningLink, settings: Settings, place: socket.socket) -> None:
        self.link, self.settings, self._place = link, settings, place
        self.app = make_app(link, settings)
        self._server = _Server(uvicorn.Config(self.app, **uvicorn_settings(settings)))
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()

    def tell(self, number: signal.Signals) -> None:
        """As if the signal had come."""
        self._signals.put_nowait(number)

    async def run(self, up: Callable[[Info], None]) -> int:
        """Until a signal comes; the exit status. `up` is called once requests are answered."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(Scarcity())
        with suppress(ValueError, RuntimeError):  # not the main thread: nobody sends it any
            for number in ENDS:
                loop.add_signal_handler(number, self.tell, number)
        told = asyncio.ensure_future(self._signals.get())
        lost = asyncio.ensure_future(self.link.lost())
        try:
            await self.link.start()
            info = await self._or_told(told, self.link.ready())
            if info is None:
                return ENDS[told.result()]
            serving = asyncio.ensure_future(self._server.serve(sockets=[self._place]))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.01)
            up(info)
            await asyncio.wait((told, serving, lost), return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                self._server.should_exit = True
                await serving
                problem = lost.result() if lost.done() else "uvicorn ended. Fix: start the server again"
                raise FathomError(problem)
            return await self._end(told.result(), serving)
        except Refused as problem:
            raise ConfigError(str(problem)) from None
        finally:
            told.cancel()
            lost.cancel()
            await self.link.close()
            self._place.close()

    async def _end(self, number: signal.Signals, serving: asyncio.Future[Any]) -> int:
        """Answer newcomers with 503 until those inside are done, or time is up, or a second signal comes."""
        again = asyncio.ensure_future(self._signals.get())
        drained = asyncio.ensure_future(self._drain())
        await asyncio.wait((again, drained), return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            drained.cancel()
            await asyncio.wait((drained,))
            await self.link.close()  # what runs ends as cancelled, and its client is told
        again.cancel()
        self._server.should_exit = True
        await serving
        return ENDS[number]

    async def _drain(self) -> None:
        await self.app.state.service.doors.drain(self.settings.drain_seconds)
        await self.link.drain(ENGINE_SECONDS if not self.app.state.service.doors.inside else 0.0)

    async def _or_told(self, told: asyncio.Future[Any], work: Awaitable[Info]) -> Info | None:
        """What `work` gives; None if a signal comes first."""
        task = asyncio.ensure_future(work)
        await asyncio.wait((told, task), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        with suppress(asyncio.CancelledError, Refused):
            await task
        return None
