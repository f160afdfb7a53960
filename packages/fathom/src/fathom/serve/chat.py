"""POST /v1/chat/completions: from a body to an order, and from parts of answers to OpenAI's objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fathom.serve.errors import need
from fathom.serve.fields import Fields
from fathom.serve.limits import TOOLS, TOP_LOGPROBS, USER_LENGTH
from fathom.serve.messages import read_messages, read_tools
from fathom.serve.order import Order, need_model, read_stream
from fathom.serve.parts import Part
from fathom.serve.room import need_short_talk
from fathom.serve.sampling import SAMPLING, read_max_tokens, read_sampling
from fathom.serve.texts import raw_bytes, shown
from fathom.serve.wire import Ask, Info, ToolCall

KNOWN = (
    *SAMPLING, "model", "messages", "max_completion_tokens", "logprobs", "top_logprobs", "stream",
    "stream_options", "tools", "tool_choice", "user", "fathom_details",
)  # fmt: skip
NEUTRAL: dict[str, tuple[Any, ...]] = {  # fields of OpenAI that ask for nothing when they have these values
    "parallel_tool_calls": (True,),
    "store": (False,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "metadata": ({},),
    "audio": (),
    "prediction": (),
    "functions": (),
    "function_call": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}


def read_chat(body: Mapping[str, Any], info: Info, model: str, key: str) -> Order:
    """The order in a body; ApiError names the field that cannot be used."""
    fields = Fields(body, KNOWN, neutral=NEUTRAL)
    need_model(fields, model)
    fields.text("user", most=USER_LENGTH)
    messages = read_messages(fields)
    need_short_talk(messages, info)
    sampling = read_sampling(fields, info)
    max_tokens = read_max_tokens(fields, info, least=1)
    if max_tokens is not None:
        sampling["max_tokens"] = max_tokens
    top = _logprobs(fields)
    if top is not None:
        sampling["logprobs"] = top
    tools = read_tools(fields, TOOLS)
    choice = fields.get("tool_choice")
    fields.want("tool_choice", choice in (None, "none", "auto"), "none or auto")
    if choice == "none":
        tools = ()
    both = bool(tools) and "json_schema" in sampling
    what = "response_format leaves no room for calls of tools"
    need(not both, "response_format", what, fix="leave it out, or give tool_choice none")
    ask = Ask(messages=messages, tools=tools, sampling=sampling, key=key)
    return Order(asks=(ask,), n=sampling.get("n", 1), logprobs=top, **read_stream(fields))


def _logprobs(fields: Fields) -> int | None:
    wanted, top = fields.flag("logprobs"), fields.whole("top_logprobs", 0, TOP_LOGPROBS)
    fields.want(
        "top_logprobs", top is None or bool(wanted), "given with logprobs", fix="set logprobs to true"
    )
    return (top or 0) if wanted else None


class ChatForm:
    """Parts of answers as OpenAI's chat completions."""

    whole_object, chunk_object, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def opening(self, index: int) -> dict[str, Any]:
        """The choice that a stream begins with."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def chunk(self, part: Part) -> dict[str, Any]:
        """A part as a choice of a chunk."""
        delta: dict[str, Any] = {"content": part.text} if part.text else {}
        if part.calls:
            delta["tool_calls"] = [_piece(call) for call in part.calls]
        return {
            "index": part.index, "delta": delta, "logprobs": _content(part), "finish_reason": part.finish,
        }  # fmt: skip

    def whole(self, part: Part) -> dict[str, Any]:
        """All parts of an answer, joined, as a choice."""
        message: dict[str, Any] = {"role": "assistant", "content": part.text, "refusal": None}
        if part.calls:
            message |= {"content": part.text or None, "tool_calls": _joined(part.calls)}
        return {
            "index": part.index, "message": message, "logprobs": _content(part), "finish_reason": part.finish,
        }  # fmt: skip


def _piece(call: ToolCall) -> dict[str, Any]:
    function = {"arguments": call.arguments} | ({"name": call.name} if call.name else {})
    head = {"id": call.id, "type": "function"} if call.id else {}
    return {"index": call.index, **head, "function": function}


def _joined(pieces: Sequence[ToolCall]) -> list[dict[str, Any]]:
    calls: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        blank = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = calls.setdefault(piece.index, blank)
        call["id"] += piece.id
        call["function"]["name"] += piece.name
        call["function"]["arguments"] += piece.arguments
    return [calls[index] for index in sorted(calls)]


def _content(part: Part) -> dict[str, Any] | None:
    if part.logprobs is None:
        return None
    content = [
        {**_token(token, log), "top_logprobs": [_token(*one) for one in top]}
        for token, log, top in part.logprobs
        if log is not None
    ]
    return {"content": content, "refusal": None}


def _token(raw: str, log: float) -> dict[str, Any]:
    return {"token": shown(raw), "logprob": log, "bytes": list(raw_bytes(raw))}
