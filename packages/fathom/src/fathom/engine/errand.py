"""A call that the engine's thread makes for a coroutine, between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Errand:
    """Made in an event loop, run once by the thread; what comes of it is `done`."""

    def __init__(self, call: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.gone = False  # nobody waits any more
        self.done: asyncio.Future[Any] = loop.create_future()
        self._call, self._loop = call, loop

    def run(self) -> None:
        """From the thread; what the call raises is for the one who waits, and no fault of the engine."""
        if self.gone:
            return
        try:
            result = self._call()
        except BaseException as error:
            self.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._tell(lambda: self.done.set_result(result))

    def fail(self, error: BaseException) -> None:
        """From the thread: it ends with `error`."""
        self._tell(lambda: self.done.set_exception(error))

    def _tell(self, say: Callable[[], None]) -> None:
        def unless_left() -> None:
            if not self.done.done():
                say()

        with suppress(RuntimeError):  # the loop was closed, and who waited is gone with it
            self._loop.call_soon_threadsafe(unless_left)
