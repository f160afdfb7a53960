"""Starting the engine's process, and how long to wait before it is started again."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

BUFFER = 1 << 20    # bytes that are read ahead
MODULE = "fathom.serve.engine_process"


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """Seconds."""

    first: float = 1.0      # until a process that died is started again; doubled each time
    longest: float = 30.0   # no wait is longer, and who has lived as long was well
    grace: float = 5.0      # for a process to end by itself
    silence: float = 120.0  # without a sign: it hangs, and is killed; a large model's first steps are slow


@dataclass(slots=True)
class Backoff:
    """Counts how often in a row a process was no good."""

    waits: Waits
    deaths: int = 0         # in a row, each before it was ready
    _next: float = 0.0

    def died(self, *, lived: float | None) -> float:
        """It served for `lived` seconds, or never was ready; how long to wait now."""
        self.deaths = self.deaths + 1 if lived is None else 0
        fresh = self._next == 0 or (lived is not None and lived >= self.waits.longest)
        wait = self.waits.first if fresh else min(self._next, self.waits.longest)
        self._next = 2 * wait
        return wait


class Child:
    """A running process and the connection to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process, self.reader, self.writer = process, reader, writer

    @classmethod
    async def start(cls, model: str, settings: Mapping[str, Any]) -> Child:
        """Start one; it loads the model, and says so over the connection. OSError if there can be none."""
        ours, theirs = socket.socketpair()
        try:
            words = (str(theirs.fileno()), model, json.dumps(dict(settings)))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", MODULE, *words,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a Ctrl-C in the terminal is for the server
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=BUFFER)
        return cls(process, reader, writer)

    def tell_to_end(self) -> None:
        """SIGTERM: what runs ends as cancelled."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, for one that does not answer."""
        with suppress(ProcessLookupError):
            self.process.kill()

    async def end(self, grace: float) -> str:
        """Close the connection, at which it ends; kill it if it does not. How it ended, for a message."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()
        try:
            async with asyncio.timeout(grace):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()
        status = self.process.returncode or 0
        if status >= 0:
            return f"it ended with status {status}"
        try:
            return f"{signal.Signals(-status).name} ended it"
        except ValueError:
            return f"signal {-status} ended it"
