"""The engine's side of the connection: each message of the server becomes a task, and its words frames.

A task writes one frame and waits until the server has room for it. Meanwhile its news gather in the engine's
mailbox, so a server that does not read stops nobody, and no more is held than the answers themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from fathom.config.counts import count, mha_cache_elements
from fathom.config.errors import FathomError, need, quoted
from fathom.data.chat import encode_chat
from fathom.engine import BusyError, Delta, Engine, Request, RequestError, SamplingParams
from fathom.engine.admit import need_known, prompt_ids
from fathom.engine.stream import EngineError
from fathom.serve.frames import cut, news_message, read_ask
from fathom.serve.tools import Calls, with_tools
from fathom.serve.wire import Ask, Info, News, ToolCall, pack

Write = Callable[[Mapping[str, Any]], Awaitable[None]]


class Attendant:
    """Serves one connection with one engine."""

    def __init__(self, engine: Engine, writer: asyncio.StreamWriter) -> None:
        self.engine, self._writer = engine, writer
        self._open: dict[int, asyncio.Task[None]] = {}
        self._apart = asyncio.Lock()  # each forward beside the service has pages of its own: one at a time
        self._draining = False
        self.idle = asyncio.Event()  # drained: nothing runs, and nothing is taken up
        self.broken = asyncio.Event()  # the engine is over
        self._answers: dict[str, Callable[[Mapping[str, Any]], Awaitable[Any]]] = {
            "encode": self._encode,
            "decode": self._decode,
            "experts": self._experts,
            "score": self._score,
            "stats": self._stats,
            "pulse": self._pulse,
            "late": self._late,
        }

    def handle(self, message: Mapping[str, Any]) -> None:
        """Begin what a message asks for. ValueError where it is none of the contract."""
        op, number = message["op"], message.get("id")
        if op == "drain":
            self._draining = True
            self._look()
            return
        if not isinstance(number, int) or op not in ("submit", "cancel", *self._answers):
            raise ValueError(f"a message {op!r} that the engine does not know")
        if op == "cancel":
            task = self._open.get(number)
            if task is not None:
                task.cancel()
            return
        if number in self._open:
            raise ValueError(f"the number {number} twice")
        if op == "submit" and self._draining:
            op = "late"  # judged here, for a task begins later than the next message is read
        task = asyncio.create_task(self._attend(op, number, message))
        self._open[number] = task
        task.add_done_callback(lambda task: self._closed(number, task))

    async def leave(self, patience: float) -> None:
        """Wait so long for the tasks that are left, then give them up."""
        if self._open:
            _, left = await asyncio.wait(self._open.values(), timeout=patience)
            for task in left:
                task.cancel()

    def _closed(self, number: int, task: asyncio.Task[None]) -> None:
        del self._open[number]
        if not task.cancelled():
            task.exception()  # the connection broke while it said why; nobody is left to be told
        self._look()

    def _look(self) -> None:
        if self._draining and not self._open:
            self.idle.set()

    async def _attend(self, op: str, number: int, message: Mapping[str, Any]) -> None:
        try:
            if op == "submit":
                await self._submit(number, message)
            else:
                value = await self._answers[op](message)
                await self._write({"op": "answer", "id": number, "value": value})
        except ConnectionError:  # the server is gone: whoever reads its messages ends the process
            return
        except Exception as error:
            await self._write({"op": "refused", "id": number, **_refusal(error)})
            if self.engine.over:
                self.broken.set()

    async def _write(self, message: Mapping[str, Any]) -> None:
        self._writer.write(pack(message))
        await self._writer.drain()

    async def _submit(self, number: int, message: Mapping[str, Any]) -> None:
        try:
            ask = read_ask(message.get("request"))
            sampling = SamplingParams(**ask.sampling)
        except (TypeError, ValueError) as problem:
            fix = "give the fields of Ask, and those of SamplingParams in sampling"
            raise RequestError(f"the request cannot be read ({_line(problem)}). Fix: {fix}") from None
        prompt = await asyncio.to_thread(self._prompt, ask, sampling)  # a long text takes its time
        calls = [Calls(self.engine.tokenizer, sampling.stops) for _ in range(sampling.n if ask.tools else 0)]
        request = Request(tokens=prompt, sampling=sampling, key=ask.key)
        async with aclosing(self.engine.stream(request)) as deltas:
            async for delta in deltas:
                for news in cut(_news(delta, calls)):
                    await self._write(news_message(number, news))

    def _prompt(self, ask: Ask, sampling: SamplingParams) -> list[int]:
        self.engine.scheduler.need_room(sampling.n)  # before anything that costs
        what = "tools are given without messages"
        need(not ask.tools or ask.messages is not None, what, fix="leave them out", error=RequestError)
        messages = None if ask.messages is None else with_tools(ask.messages, ask.tools)
        request = Request(text=ask.text, tokens=ask.tokens, messages=messages, key=ask.key)
        return prompt_ids(request, self.engine.tokenizer)

    async def _encode(self, message: Mapping[str, Any]) -> list[int]:
        text, messages = message.get("text"), message.get("messages")
        one = (text is None) != (messages is None)
        need(one, "not one of text and messages", fix="give exactly one", error=RequestError)
        tokenizer = self.engine.tokenizer
        kind, given = (str, text) if messages is None else (list, messages)
        if not isinstance(given, kind):  # quoted only then: it may have megabytes
            what, fix = f"{quoted(given)} cannot be encoded", "give a text, or a list of messages"
            need(False, what, fix=fix, error=RequestError)
        if messages is None:
            return await asyncio.to_thread(tokenizer.encode, str(text))
        ids, _ = await asyncio.to_thread(encode_chat, tokenizer, messages, generation_prompt=True)
        return ids

    async def _decode(self, message: Mapping[str, Any]) -> list[str]:
        tokens, tokenizer = self._tokens(message), self.engine.tokenizer
        return [
            tokenizer.token_bytes(token).decode("utf-8", "surrogateescape")
            or tokenizer.decode([token], specials=True)
            for token in tokens
        ]

    async def _experts(self, message: Mapping[str, Any]) -> list[list[list[int]]]:
        tokens = self._tokens(message)
        async with self._apart:
            return await self.engine.experts(tokens)

    async def _score(self, message: Mapping[str, Any]) -> list[Any]:
        tokens = self._tokens(message)
        async with self._apart:
            scores = await self.engine.score(tokens, message.get("top", 0))
        return [(one.token, one.logprob, one.top) for one in scores]

    async def _pulse(self, message: Mapping[str, Any]) -> None:
        await self.engine.pulse()

    async def _late(self, message: Mapping[str, Any]) -> None:
        what = "the engine finishes what it has and takes up nothing new"
        need(False, what, fix="try again later", error=BusyError)

    async def _stats(self, message: Mapping[str, Any]) -> dict[str, float]:
        return self.engine.counters()

    def _tokens(self, message: Mapping[str, Any]) -> list[int]:
        tokens = message.get("tokens")
        whole = isinstance(tokens, list) and all(type(t) is int for t in tokens)
        need(whole, "tokens is not a list of ids", fix="give whole numbers", error=RequestError)
        ids = list(tokens or ())
        if ids:
            need_known(ids, self.engine.tokenizer.size)
        return ids


def info_of(engine: Engine) -> Info:
    """What the server wants to know of an engine."""
    model, pages = engine.model, engine.scheduler.pool.total
    element = engine.backend.dtype.itemsize
    dense = min(model.dense_layers, model.num_layers)
    return Info(
        model=model.name,
        line=engine.line,
        context=min(engine.context, pages * engine.config.page_size),
        vocabulary=engine.tokenizer.size,
        token_bytes=int(engine.tokenizer.byte_lengths().max()),
        pages=pages,
        page_positions=engine.config.page_size,
        cache_bytes_per_token=element * count(model).cache_elements_per_token,
        plain_cache_bytes_per_token=element * mha_cache_elements(model),
        drafts=engine.runner.drafts,
        layers=model.num_layers,
        experts=(0,) * dense + (model.moe.num_experts,) * (model.num_layers - dense),
        experts_per_token=model.moe.experts_per_token,
    )


def _news(delta: Delta, calls: list[Calls]) -> News:
    text, pieces = delta.text, tuple[ToolCall, ...]()
    if calls:
        text, pieces = calls[delta.index].read(delta.tokens, last=delta.finish_reason is not None)
    return News(
        index=delta.index,
        text=text,
        tokens=delta.tokens,
        logprobs=tuple((p.token, p.logprob, p.top) for p in delta.logprobs),
        finish_reason=delta.finish_reason,
        prompt_tokens=delta.prompt_tokens,
        cached_tokens=delta.cached_tokens,
        accepted=delta.accepted,
        rejected=delta.rejected,
        tool_calls=pieces,
        error=delta.error,
    )


def _refusal(error: Exception) -> dict[str, str]:
    kind = "busy" if isinstance(error, BusyError) else "request"
    if isinstance(error, FathomError) and not isinstance(error, EngineError):
        return {"kind": kind, "message": str(error)}
    text = f"the engine failed at a request ({_line(error)}). Fix: report it as a fault of the engine"
    return {"kind": "engine", "message": str(error) if isinstance(error, EngineError) else text}


def _line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:197]}..."
