"""A scripted engine and what plays with it: its steps can be held, so no test waits for time to pass."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fathom.engine.request import BusyError, Delta, Logprob, Request, RequestError, SamplingParams
from fathom.engine.stream import Streams

PATIENCE = 60  # seconds until a test gives up on a thread; nothing waits that long when all is well


class Core:
    """Writes each request's own tokens, one a step: answer k of a request has k tokens more than the first.

    A negative token is a step without news. `gate` makes each step wait for a permit.
    """

    def __init__(self, *, gated: bool = False) -> None:
        self.gated = gated
        self.log: list[tuple[str, int]] = []  # submit id, cancel id, begin step, end step
        self.threads: set[int] = set()
        self.begun = threading.Semaphore(0)  # one for each step that began
        self.drained = threading.Event()  # the thread has asked, and nothing is left
        self.fail: dict[str, BaseException] = {}  # by the name of the call
        self.steps = 0
        self._permits = threading.Semaphore(0)
        self._left: dict[int, dict[int, list[int]]] = {}

    @property
    def busy(self) -> bool:
        self._called("busy")
        if not self._left:
            self.drained.set()
        return bool(self._left)

    def submit(self, request: Request) -> int:
        self._called("submit")
        if request.key == "wrong":
            raise RequestError("wrong. Fix: none")
        if request.key == "later":
            raise BusyError("full. Fix: try again later")
        if request.key == "bug":
            raise TypeError("a bug\nof two lines")
        request_id = sum(kind == "submit" for kind, _ in self.log)
        self.log.append(("submit", request_id))
        self.drained.clear()
        answers = range(request.sampling.n)
        self._left[request_id] = {k: [*(request.tokens or ()), *range(100, 100 + k)] for k in answers}
        return request_id

    def cancel(self, request_id: int) -> None:
        self._called("cancel")
        self.log.append(("cancel", request_id))
        self._left.pop(request_id, None)

    def step(self) -> list[Delta]:
        self.steps += 1
        self.log.append(("begin", self.steps))
        self.begun.release()
        if self.gated:
            assert self._permits.acquire(timeout=PATIENCE), "the test forgot to permit this step"
        self._called("step")
        news = [delta for request_id in list(self._left) for delta in self._write(request_id)]
        self.log.append(("end", self.steps))
        return [Delta(request_id=-1, index=0, text="nobody's"), *news]

    def let(self, steps: int = 1) -> None:
        """Permit so many steps."""
        self._permits.release(steps)

    def open_gate(self) -> None:
        self.gated = False
        self.let(1)

    def until_step(self) -> None:
        """Wait until one more step has begun."""
        assert self.begun.acquire(timeout=PATIENCE), "no step began"

    def _write(self, request_id: int) -> Iterator[Delta]:
        answers = self._left[request_id]
        for index, tokens in list(answers.items()):
            token = tokens.pop(0)
            reason = None if tokens else "stop"
            if not tokens:
                del answers[index]
            if token >= 0:
                yield written(request_id, index, token, reason)
        if not answers:
            del self._left[request_id]

    def _called(self, name: str) -> None:
        self.threads.add(threading.get_ident())
        if name in self.fail:
            raise self.fail[name]


def written(request_id: int, index: int, token: int, reason: str | None = None) -> Delta:
    return Delta(
        request_id=request_id,
        index=index,
        text=f"{token} ",
        tokens=(token,),
        logprobs=(Logprob(token, -1.0),),
        finish_reason=reason,
        cached_tokens=3,
    )


def request(*tokens: int, n: int = 1, key: str = "") -> Request:
    return Request(tokens=tokens or (1,), sampling=SamplingParams(n=n), key=key)


async def read(streams: Streams, *tokens: int, n: int = 1, key: str = "") -> list[Delta]:
    """All deltas of one request."""
    return await collect(streams.stream(request(*tokens, n=n, key=key)))


async def collect(stream: AsyncGenerator[Delta, None]) -> list[Delta]:
    return [delta async for delta in stream]


def answer(deltas: list[Delta], index: int = 0) -> tuple[str, tuple[int, ...], str | None]:
    """Text, tokens and finish reason; checks what holds for every stream."""
    mine = [delta for delta in deltas if delta.index == index]
    assert [delta.finish_reason for delta in mine[:-1]] == [None] * (len(mine) - 1)
    tokens = tuple(itertools.chain.from_iterable(delta.tokens for delta in mine))
    assert tuple(p.token for delta in mine for p in delta.logprobs) == tokens
    return "".join(delta.text for delta in mine), tokens, mine[-1].finish_reason


def expected(tokens: tuple[int, ...], reason: str = "stop") -> tuple[str, tuple[int, ...], str]:
    return "".join(f"{token} " for token in tokens), tokens, reason


def run(coroutine: Any) -> Any:
    """In an event loop of its own; fails instead of hanging."""

    async def patiently() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await coroutine

    return asyncio.run(patiently())


async def elsewhere(wait: Callable[..., Any], *args: Any) -> None:
    """Wait for the thread without stopping the loop."""
    await asyncio.to_thread(wait, *args)


async def started(coroutine: Any) -> asyncio.Task[Any]:
    """A task that has run to its first wait: loops run tasks in the order they were made."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    return task


async def together(core: Core, streams: Streams, *requests: Request) -> list[asyncio.Task[Any]]:
    """Readers whose requests are all in the second step, which has begun and waits for its permit."""
    first = await started(read(streams, 0))
    await elsewhere(core.until_step)
    tasks = [await started(collect(streams.stream(one))) for one in requests]
    core.let()
    await first
    await elsewhere(core.until_step)
    return tasks


def cancelled_before_the_next_step(core: Core, request_id: int, left_during: int) -> None:
    at = core.log.index(("cancel", request_id))
    assert core.log.index(("begin", left_during)) < at, "cancelled while the step ran"
    assert ("begin", left_during + 1) not in core.log[:at], "a step began with a request that nobody reads"
    assert core.log.count(("cancel", request_id)) == 1


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture(scope="session")
def play() -> SimpleNamespace:
    """All of the above; tests cannot import one another."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})
