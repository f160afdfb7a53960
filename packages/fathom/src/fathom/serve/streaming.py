"""Answering an order: all at once, or as events while it is written. A client that leaves ends it at once."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fathom.serve.errors import ApiError, json_bytes, json_response, of_refusal
from fathom.serve.order import Order
from fathom.serve.parts import Part, Tally, Told, joined
from fathom.serve.service import Service
from fathom.serve.together import news_of
from fathom.serve.wire import Refused

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"
GONE = 499  # nobody reads this status


class ClientGone(Exception):
    """The client has closed the connection, or does not read."""


class Form(Protocol):
    """How one route words parts of answers."""

    whole_object: str
    chunk_object: str
    prefix: str  # of ids

    def opening(self, index: int) -> dict[str, Any] | None:
        """The choice that a stream begins with, if there is one."""

    def chunk(self, part: Part) -> dict[str, Any]:
        """A part as a choice of a chunk."""

    def whole(self, part: Part) -> dict[str, Any]:
        """A whole answer as a choice."""


async def while_listened(receive: Receive, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives; cancelled, with ClientGone, as soon as the client leaves."""

    async def run() -> T:
        return await work()

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, left = asyncio.ensure_future(run()), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for one in (task, left):
            one.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await one


class Answering:
    """One order on its way through the engine."""

    def __init__(self, service: Service, order: Order, form: Form, began: float) -> None:
        self.service, self.order, self.form, self.began = service, order, form, began
        self.info, self.model = service.info, service.model
        self.tally = Tally(prompts=dict(enumerate(order.unasked)))
        self._last: dict[int, float] = {}  # when an answer last grew
        self._head = {
            "id": form.prefix + secrets.token_hex(12),
            "created": int(time.time()),
            "model": self.model,
        }

    async def parts(self) -> AsyncGenerator[Part, None]:
        """Every part of every answer; the lead comes with the engine's first news. ApiError, Refused."""
        order, told = (
            self.order,
            Told(
                texts=self.service.texts, logprobs=self.order.logprobs is not None, details=self.order.details
            ),
        )
        lead = list(order.lead)
        async with aclosing(news_of(self.service.link, order.asks)) as stream:
            async for number, news in stream:
                for part in lead:
                    yield part
                lead.clear()
                index = number * order.n + news.index
                self._measure(index, len(news.tokens))
                before = self.tally.prompt_tokens
                self.tally.add(number, news)
                self.service.metrics.prompt_tokens.inc(self.tally.prompt_tokens - before)
                part = await told.part(news, index)
                if part.finish is not None:
                    self.service.metrics.finished.labels(part.finish).inc()
                yield part
        for part in lead:
            yield part
        self.service.metrics.prompt_tokens.inc(sum(order.unasked))
        if order.unasked:
            for index in range(order.choices):
                yield Part(index=index, finish="length")
        self.service.metrics.whole_request.observe(time.monotonic() - self.began)

    def _measure(self, index: int, tokens: int) -> None:
        """As it comes: who leaves early counts, too."""
        if not tokens:
            return
        now, metrics = time.monotonic(), self.service.metrics
        metrics.generation_tokens.inc(tokens)
        if self.tally.first is None:
            metrics.first_token.observe(now - self.began)
        before = self._last.get(index)
        if before is not None:
            metrics.between_tokens.observe((now - before) / tokens)
        self._last[index] = now

    async def whole(self) -> Response:
        """All answers in one object."""
        answers: dict[int, list[Part]] = {index: [] for index in range(self.order.choices)}
        async with aclosing(self.parts()) as parts:
            async for part in parts:
                answers[part.index].append(part)
        choices = [self._choice(self.form.whole, joined(*item)) for item in answers.items()]
        about = {
            "object": self.form.whole_object,
            **self._head,
            "choices": choices,
            "usage": self.tally.usage(),
        }
        return json_response(about | self._figures())

    async def stream(self) -> EventStream:
        """Events; what the engine refuses before its first word is still an ApiError or Refused."""
        parts = self.parts()
        try:
            first = await anext(parts)
        except BaseException:
            await parts.aclose()
            raise
        return EventStream(self._events(first, parts), self.service)

    async def _events(self, first: Part, parts: AsyncGenerator[Part, None]) -> AsyncGenerator[bytes, None]:
        unfinished = set(range(self.order.choices))
        async with aclosing(parts):
            try:
                for index in sorted(unfinished):
                    opening = self.form.opening(index)
                    if opening is not None:
                        yield self._event([opening])
                part: Part | None = first
                while part is not None:
                    if part.finish is not None:
                        unfinished.discard(part.index)
                    last = not unfinished and not self.order.usage
                    yield self._event([self._choice(self.form.chunk, part)], last=last)
                    part = await anext(parts, None)
            except (ApiError, Refused) as problem:
                yield b"data: " + json_bytes(as_api_error(problem, self.service).body()) + b"\n\n"
                yield DONE
                return
        if self.order.usage:
            yield self._event([], last=True)
        yield DONE

    def _choice(self, word: Callable[[Part], dict[str, Any]], part: Part) -> dict[str, Any]:
        return word(part) | ({} if part.tokens is None else {"fathom": {"tokens": part.tokens}})

    def _figures(self) -> dict[str, Any]:
        return {"fathom": self.tally.figures(self.info)} if self.order.details else {}

    def _event(self, choices: list[dict[str, Any]], *, last: bool = False) -> bytes:
        event = {"object": self.form.chunk_object, **self._head, "choices": choices}
        if self.order.usage:
            event["usage"] = self.tally.usage() if last else None
        return b"data: " + json_bytes(event | (self._figures() if last else {})) + b"\n\n"


class EventStream(Response):
    """Server-sent events. The generator is closed when the client leaves, or does not read for a while."""

    def __init__(self, events: AsyncGenerator[bytes, None], service: Service) -> None:
        super().__init__(
            headers={"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
        )
        del self.headers["content-length"]
        self._events, self._service = events, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""

        async def write() -> None:
            async with aclosing(self._events) as events:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for event in events:
                    await self._send(send, {"type": "http.response.body", "body": event, "more_body": True})
                await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await while_listened(receive, write)
        except ClientGone:
            self._service.metrics.gone.inc()
            await self._events.aclose()
            abort = scope.get("state", {}).get("abort")  # closing would wait for what nobody reads
            if abort is not None:
                abort()

    async def _send(self, send: Send, message: Any) -> None:
        try:
            async with asyncio.timeout(self._service.settings.write_seconds):
                await send(message)
        except TimeoutError:
            raise ClientGone from None


def as_api_error(problem: Exception, service: Service) -> ApiError:
    """What a client is told of a refusal."""
    if isinstance(problem, Refused):
        return of_refusal(problem, service.settings.retry_after)
    assert isinstance(problem, ApiError), problem
    return problem


async def answer(request: Request, service: Service, order: Order, form: Form) -> Response:
    """The response to an order. ApiError, Refused, ClientGone."""
    answering = Answering(service, order, form, request.state.began)
    return await while_listened(request.receive, answering.stream if order.stream else answering.whole)
