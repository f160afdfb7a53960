"""The engine's process: `python -m fathom.serve.engine_process FD MODEL SETTINGS`, started by the server.

It loads the model, says that it is ready, and serves until the server closes the connection or dies (then it
ends at once), drains it, or sends SIGTERM (then answers end as cancelled). Ctrl-C is the server's to judge.
Nothing at the top of this file is heavy, so that the signals are set before anything else.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from fathom.config.engine import EngineConfig
from fathom.config.errors import ConfigError, FathomError
from fathom.serve.frames import brief, read_frame
from fathom.serve.wire import pack

if TYPE_CHECKING:
    from fathom.engine import Engine

T = TypeVar("T")
BUFFER = 1 << 20        # bytes that are read ahead
LAST_WORDS = 2.0        # seconds in which the server may take what is left to say
FAULT, UNUSABLE = 1, 2  # exit statuses: the engine broke down; it cannot start, or the server talks nonsense


class Process:
    """One engine, one server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._told_to_end = asyncio.Event()

    async def run(self, model: str, settings: dict[str, Any]) -> int:
        """Until there is no more to do; the exit status."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._told_to_end.set)
        loading = asyncio.create_task(_apart(lambda: _load(model, settings)))
        early = asyncio.create_task(read_frame(self._reader))
        told = asyncio.create_task(self._told_to_end.wait())
        await asyncio.wait((loading, early, told), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():  # a server talks only to an engine that is ready, so this one is gone
            _leave(0)
        try:
            engine = loading.result()
        except FathomError as problem:
            return await self._fail(str(problem))
        return await self._serve(engine, early, told)

    async def _fail(self, message: str) -> int:
        self._writer.write(pack({"op": "failed", "message": message}))
        await self._writer.drain()
        return UNUSABLE

    async def _serve(
        self, engine: Engine, frame: asyncio.Task[dict[str, Any] | None], told: asyncio.Task[Any]
    ) -> int:
        from fathom.serve.attend import Attendant, info_of

        attendant = Attendant(engine, self._writer)
        self._writer.write(pack({"op": "ready", "info": brief(info_of(engine))}))
        listening = asyncio.create_task(self._listen(attendant, frame))
        idle = asyncio.create_task(attendant.idle.wait())
        broken = asyncio.create_task(attendant.broken.wait())
        await asyncio.wait((listening, idle, broken, told), return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            return listening.result()
        if broken.done():
            await attendant.leave(LAST_WORDS)
            return FAULT
        listening.cancel()
        await asyncio.to_thread(engine.close)  # at once if it is idle; else each answer ends as cancelled
        await attendant.leave(LAST_WORDS)
        return 0

    async def _listen(self, attendant: Any, frame: asyncio.Task[dict[str, Any] | None]) -> int:
        """Hand on each message; the exit status once there is none."""
        try:
            while (message := await frame) is not None:
                attendant.handle(message)
                frame = asyncio.create_task(read_frame(self._reader))
        except ValueError as problem:
            print(f"fathom: the engine was sent nonsense ({problem}), and ends", file=sys.stderr)
            return UNUSABLE
        return 0


async def _apart(call: Callable[[], T]) -> T:
    """What `call` gives, from a thread that ends with it.

    Whoever computes with torch leaves threads waiting for more as long as his own lives. Where there are more
    of them than cores, OpenMP lets them all sleep between two operations: engines then ran at half the speed.
    """
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, call)


def _load(model: str, settings: dict[str, Any]) -> Engine:
    from fathom.engine import Engine

    try:
        config = EngineConfig(**settings)
    except TypeError as problem:
        raise ConfigError(f"engine settings cannot be read ({problem}). Fix: use known names") from None
    return Engine(model, config)


def _leave(status: int) -> None:
    """End now: no thread is waited for, and none of them has anything to save."""
    sys.stderr.flush()
    os._exit(status)


async def _main(fd: int, model: str, settings: dict[str, Any]) -> None:
    own = socket.socket(fileno=fd)
    own.set_inheritable(False)  # not for the processes that try grammars
    reader, writer = await asyncio.open_unix_connection(sock=own, limit=BUFFER)
    writer.transport.set_write_buffer_limits(high=0)  # `drain` waits until all is sent
    status = await Process(reader, writer).run(model, settings)
    _leave(status)


def main() -> None:
    """As the server starts it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fd, model, settings = sys.argv[1:]
    asyncio.run(_main(int(fd), model, json.loads(settings)))


if __name__ == "__main__":
    main()
