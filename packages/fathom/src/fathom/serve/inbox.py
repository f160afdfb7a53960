"""The news of one request on the server's side, until its reader takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from fathom.serve.wire import News, Refused

FEW = 32    # news that wait as they came; beyond, they are joined each time their number has doubled


class Inbox:
    """Filled by the connection, emptied by one reader of the same loop; bounded by the answers' size."""

    def __init__(self, answers: int) -> None:
        self._unfinished = set(range(answers))
        self._news: list[News] = []
        self._bell = asyncio.Event()
        self._error: Refused | None = None
        self._full = FEW

    @property
    def finished(self) -> bool:
        """Whether nothing follows, read or not."""
        return not self._unfinished or self._error is not None

    def put(self, news: News) -> None:
        """One more."""
        self._news.append(news)
        if news.finish_reason is not None:
            self._unfinished.discard(news.index)
        if len(self._news) > self._full:
            self._news = joined(self._news)
            self._full = max(FEW, 2 * len(self._news))
        self._bell.set()

    def fail(self, error: Refused) -> None:
        """Nothing follows, unless all has come; what came before is still read first."""
        if not self.finished:
            self._error = error
            self._bell.set()

    async def next(self) -> list[News]:
        """What there is, waiting for the first; none = the end."""
        while not self._news:
            if self._error is not None:
                raise self._error
            if not self._unfinished:
                return []
            self._bell.clear()
            await self._bell.wait()
        taken, self._news, self._full = joined(self._news), [], FEW
        return taken


def joined(news: Iterable[News]) -> list[News]:
    """As few as say the same: one an answer, and one more for each step that verified drafts."""
    runs: list[list[News]] = []
    last: dict[int, list[News]] = {}
    for one in news:
        run = last.get(one.index)
        if run is None or one.accepted or one.rejected:  # these count from a piece's own first token
            run = last[one.index] = []
            runs.append(run)
        run.append(one)
    return [_one(run) for run in runs]


def _one(run: list[News]) -> News:
    if len(run) == 1:
        return run[0]
    return replace(
        run[-1],
        text="".join(one.text for one in run),
        tokens=tuple(token for one in run for token in one.tokens),
        logprobs=tuple(entry for one in run for entry in one.logprobs),
        cached_tokens=max(one.cached_tokens for one in run),
        accepted=run[0].accepted,
        rejected=run[0].rejected,
        tool_calls=tuple(call for one in run for call in one.tool_calls),
        finish_reason=run[-1].finish_reason,
    )
