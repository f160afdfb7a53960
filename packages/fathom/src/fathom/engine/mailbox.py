"""What passes between the engine's thread and one reader in an event loop.

The reader takes when it likes. Meanwhile the news of many steps become one delta for each answer, or for each
step that verified drafts, and one callback at most waits in the loop: a reader that is slow or stuck costs no
more than its answers' size.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

from fathom.config.errors import FathomError
from fathom.engine.request import Delta, Logprob, Request


class Mailbox:
    """News for one reader: the thread puts, a coroutine of `loop` takes."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.request_id: int | None = None  # once submitted; the thread's own
        self.gone = False  # nobody reads any more
        self._loop = loop
        self._lock = threading.Lock()  # guards all of the following, and `gone`
        self._bell = asyncio.Event()
        self._rung = False  # the bell is set, or will be; so a reader that is slow has one callback waiting
        self._news: dict[int, list[_Gathered]] = {}  # by index of the answer
        self._unfinished = set(range(request.sampling.n))
        self._error: FathomError | None = None

    @property
    def finished(self) -> bool:
        """Whether every answer has its last delta, read or not."""
        return not self._unfinished

    def put(self, delta: Delta) -> None:
        """From the thread: one more delta."""
        with self._lock:
            news = self._news.setdefault(delta.index, [])
            if not news or delta.accepted or delta.rejected:  # these count from a delta's own first token
                news.append(_Gathered())
            news[-1].add(delta)
            if delta.finish_reason is not None:
                self._unfinished.discard(delta.index)
            self._ring()

    def fail(self, error: FathomError) -> None:
        """From the thread: nothing follows; what came before is still read first."""
        with self._lock:
            self._error = error
            self._ring()

    def cancelled(self) -> None:
        """From the thread: each open answer ends as cancelled."""
        assert self.request_id is not None, "only a request that was taken up can be cancelled"
        for index in sorted(self._unfinished):
            self.put(Delta(request_id=self.request_id, index=index, finish_reason="cancelled"))

    def leave(self) -> bool:
        """From the reader: it will not come back; whether the request may still be running."""
        with self._lock:
            self.gone = True
            return bool(self._unfinished) and self._error is None

    async def next(self) -> list[Delta]:
        """From the reader: the news of each answer, waiting for the first; none = the end.

        One delta an answer, and one more for each later step that verified drafts.
        """
        while True:
            with self._lock:
                self._bell.clear()
                self._rung = False
                gathered, self._news = self._news, {}
                error, finished = self._error, self.finished
            if gathered:
                return [one.delta() for news in gathered.values() for one in news]
            if error is not None:
                raise error
            if finished:
                return []
            await self._bell.wait()

    def _ring(self) -> None:
        if self._rung:
            return
        try:
            self._loop.call_soon_threadsafe(self._bell.set)
            self._rung = True
        except RuntimeError:  # the loop was closed and its readers dropped without a word
            self.gone = True


class _Gathered:
    """Deltas of one answer that nobody has taken yet; joined once, so many small ones cost linear time."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._tokens: list[int] = []
        self._logprobs: list[Logprob] = []
        self._cached, self._error = 0, ""
        self._accepted, self._rejected = 0, tuple[int, ...]()  # of the first; those behind it have none
        self._finish_reason: str | None = None
        self._last: Delta | None = None

    def add(self, delta: Delta) -> None:
        """Behind those before."""
        if self._last is None:
            self._accepted, self._rejected = delta.accepted, delta.rejected
        self._texts.append(delta.text)
        self._tokens += delta.tokens
        self._logprobs += delta.logprobs
        self._cached = max(self._cached, delta.cached_tokens)
        self._error = delta.error or self._error
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._last = delta

    def delta(self) -> Delta:
        """All of them as one."""
        assert self._last is not None, "nothing was gathered"
        return replace(
            self._last,
            text="".join(self._texts),
            tokens=tuple(self._tokens),
            logprobs=tuple(self._logprobs),
            cached_tokens=self._cached,
            accepted=self._accepted,
            rejected=self._rejected,
            finish_reason=self._finish_reason,
            error=self._error,
        )
