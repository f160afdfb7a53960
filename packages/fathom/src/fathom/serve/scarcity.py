"""No file descriptor is left for a connection: it waits, and that is said now and then.

asyncio tries again each second, as often as the listening socket's backlog is long, and would log a traceback
each time: hundreds a second, for as long as somebody keeps connections open.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

ACCEPTING = "socket.accept() out of system resource"  # how asyncio words it
AGAIN = 60.0  # seconds until it is said once more
LINE = "fathom: connections wait, for no file is left (%s). Fix: raise its limit, as by ulimit -n"


class Scarcity:
    """A loop's exception handler."""

    def __init__(self) -> None:
        self._said = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """As asyncio calls it."""
        if context.get("message") != ACCEPTING:
            loop.default_exception_handler(context)
        elif loop.time() >= self._said + AGAIN:
            self._said = loop.time()
            logging.getLogger("asyncio").error(LINE, getattr(context.get("exception"), "strerror", "unknown"))
