"""Whether an engine that lives also goes on: it is asked for a sign, and its step must end to give one."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fathom.serve.connection import Connection
from fathom.serve.wire import Refused

TICKS = 8  # of one silence. Counted, so that a server that was itself stopped for long blames no engine


class Pulse:
    """Of the engine behind one connection, from when it is ready."""

    def __init__(self, connection: Connection, silence: float) -> None:
        """`silence`: seconds without a sign after which an engine hangs."""
        self._connection, self._silence, self._tick = connection, silence, silence / TICKS
        self._overdue = 0  # ticks

    @property
    def trouble(self) -> str:
        """That a sign is overdue; "" while all is well."""
        few = self._overdue * 4 < TICKS
        return "" if few else f"the engine has made no sign for {self._overdue * self._tick:g} s"

    async def watch(self) -> str:
        """Ask now and again until there is no answer; what is to be said then."""
        await self._connection.ready.wait()
        while True:
            await asyncio.sleep(self._tick)
            sign = asyncio.create_task(self._connection.call("pulse", {}))
            try:
                while self._overdue < TICKS:
                    await asyncio.wait((sign,), timeout=self._tick)
                    if sign.done():
                        break
                    self._overdue += 1
                else:
                    return f"it made no sign for {self._silence:g} s"
            finally:
                sign.cancel()
                with suppress(asyncio.CancelledError, Refused):  # who refuses is alive
                    await sign
            self._overdue = 0
