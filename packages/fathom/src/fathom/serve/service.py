"""What every route works with: the engine's link, settings, metrics, and who may come in."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from math import ceil

from fathom.serve.errors import ApiError
from fathom.serve.limits import Settings
from fathom.serve.metrics import Metrics
from fathom.serve.texts import Texts
from fathom.serve.wire import Info, Link


class Returns:
    """When those who are refused should come again: one after the other, as fast as places become free.

    All sent back for the same two seconds would return at once, most of them for nothing: at ten times what
    a server bears, refusing takes a tenth of a processor.
    """

    WINDOW, LONGEST = 10.0, 60  # seconds: that the rate is taken of, that anybody is told

    def __init__(self, least: int) -> None:
        self._least, self._ahead = least, 0
        self._left: deque[float] = deque(maxlen=1024)

    def left(self, now: float) -> None:
        """A place became free."""
        self._left.append(now)
        self._ahead = max(self._ahead - 1, 0)

    def none_ahead(self) -> None:
        """There is room: who was refused before has come, or will not."""
        self._ahead = 0

    def after(self, now: float) -> int:
        """Seconds to tell the next who is refused."""
        while self._left and not 0.0 <= now - self._left[0] <= self.WINDOW:
            self._left.popleft()
        if len(self._left) < 2:
            return self._least
        wait = self._least + self._ahead * (now - self._left[0]) / len(self._left)
        if wait >= self.LONGEST:
            return self.LONGEST
        self._ahead += 1
        return ceil(wait)


class Doors:
    """Counts who is inside. Nobody waits at the door: one comes in at once, or is told to come back."""

    def __init__(self, settings: Settings) -> None:
        self._most, self._retry_after = settings.most_inside, settings.retry_after
        self._returns = Returns(settings.retry_after)
        self.inside, self.draining = 0, False
        self._empty = asyncio.Event()

    def enter(self) -> None:
        """ApiError 503 while the server drains, 429 when it is full. Whoever is in must leave."""
        if self.draining:
            what = "the server finishes what it has and takes up nothing new"
            raise ApiError(503, what, fix="try again later", retry_after=self._retry_after)
        if self.inside >= self._most:
            what = f"{self.inside} requests are being answered or wait, and no more may"
            again = self._returns.after(time.monotonic())
            raise ApiError(429, what, fix="try again later", retry_after=again)
        self.inside += 1
        if self.inside < self._most:
            self._returns.none_ahead()

    def leave(self) -> None:
        """One less."""
        self.inside -= 1
        self._returns.left(time.monotonic())
        if not self.inside:
            self._empty.set()

    async def drain(self, timeout: float) -> bool:
        """Let nobody in any more, and wait until all have left; whether they did in time."""
        self.draining = True
        self._empty.clear()
        try:
            async with asyncio.timeout(timeout):
                while self.inside:
                    await self._empty.wait()
        except TimeoutError:
            return False
        return True


class Service:
    """One server's state."""

    def __init__(self, link: Link, settings: Settings) -> None:
        self.link, self.settings = link, settings
        self.doors, self.metrics, self.texts = Doors(settings), Metrics(), Texts(link)
        self.started = int(time.time())
        self._bos: list[int] = []

    @property
    def info(self) -> Info:
        """The engine. ApiError 503 while there is none."""
        info = self.link.info
        if info is None:
            what = "the engine is starting, or starting again"
            raise ApiError(503, what, fix="try again in a moment", retry_after=self.settings.retry_after)
        return info

    @property
    def model(self) -> str:
        """The name that requests may give."""
        return self.settings.name or self.info.model

    async def begin_of_text(self) -> list[int]:
        """The token that every text begins with: the template puts it before every conversation."""
        if not self._bos:
            self._bos = (await self.link.encode(messages=({"role": "user", "content": ""},)))[:1]
        return self._bos
