"""Frames in and out of asyncio streams, and the contract's classes as JSON and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, fields, replace
from typing import Any

from fathom.serve.wire import LENGTH_BYTES, LONGEST_FRAME, Ask, Info, News, ToolCall, unpack

TOKENS_A_FRAME = 2048       # with 20 logprobs each, about 1 MB
TEXT_A_FRAME = 1 << 19      # characters, of at most 6 bytes in JSON


async def read_frame(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None when the other side is gone. ValueError for what is no frame."""
    try:
        size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        if size > LONGEST_FRAME:
            raise ValueError(f"a frame of {size} bytes, above {LONGEST_FRAME}")
        body = await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    try:
        return unpack(body)
    except RecursionError:
        raise ValueError("a frame that nests without end") from None


def brief(value: Ask | News | Info) -> dict[str, Any]:
    """As JSON, without what has its default."""
    told = ((name, getattr(value, name), default) for name, default in _DEFAULTS[type(value)])
    return {name: given for name, given, default in told if given != default}


def news_message(number: int, news: News) -> dict[str, Any]:
    """A frame of news."""
    message = {"op": "news", "id": number, **brief(news)}
    if news.tool_calls:
        message["tool_calls"] = [asdict(call) for call in news.tool_calls]
    return message


def read_ask(value: Any) -> Ask:
    """From JSON; TypeError or ValueError. What messages and sampling hold is for the engine to judge."""
    table = dict(_table(value))
    lists = [name for name in ("tokens", "messages", "tools") if table.get(name) is not None]
    table |= {name: tuple(table[name]) for name in lists}
    table["sampling"] = dict(_table(table.get("sampling", {})))
    bias = table["sampling"].get("logit_bias")
    if isinstance(bias, Mapping):  # JSON has texts for keys
        table["sampling"]["logit_bias"] = {int(token): number for token, number in bias.items()}
    return Ask(**table)


def read_news(message: Mapping[str, Any]) -> News:
    """From JSON; TypeError, ValueError or KeyError."""
    table = {name: value for name, value in message.items() if name not in ("op", "id")}
    table |= {name: tuple(table[name]) for name in ("tokens", "rejected") if name in table}
    if "logprobs" in table:
        table["logprobs"] = tuple(read_logprob(one) for one in table["logprobs"])
    if "tool_calls" in table:
        table["tool_calls"] = tuple(ToolCall(**call) for call in table["tool_calls"])
    return News(**table)


def read_logprob(value: Any) -> tuple[int, float, tuple[tuple[int, float], ...]]:
    """From JSON; TypeError or ValueError."""
    token, log, top = value
    return int(token), float(log), tuple((int(t), float(x)) for t, x in top)


def read_info(value: Any) -> Info:
    """From JSON; TypeError or KeyError."""
    table = dict(_table(value))
    return Info(**table | {"experts": tuple(table["experts"])})


def cut(news: News) -> Iterator[News]:
    """The same in pieces that fit a frame each: a reader that was slow finds much at once."""
    pieces = max(-(-len(news.tokens) // TOKENS_A_FRAME), -(-len(news.text) // TEXT_A_FRAME), 1)
    if pieces == 1:
        yield news
        return
    for k in range(pieces):
        own = slice(k * TOKENS_A_FRAME, (k + 1) * TOKENS_A_FRAME)
        piece = replace(
            news,
            text=news.text[k * TEXT_A_FRAME : (k + 1) * TEXT_A_FRAME],
            tokens=news.tokens[own],
            logprobs=news.logprobs[own],
        )
        if k:
            piece = replace(piece, accepted=0, rejected=(), tool_calls=())
        yield piece if k == pieces - 1 else replace(piece, finish_reason=None, error="")


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{type(value).__name__} is no table")
    return value


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


# Looked up once: every token of every answer passes `brief`.
_DEFAULTS = {kind: tuple((f.name, _default(f)) for f in fields(kind)) for kind in (Ask, News, Info)}
