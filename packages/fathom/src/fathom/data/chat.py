"""Conversations as text and as tokens: the chat template of DeepSeek-V3.

No space or line break is added anywhere. System messages come first, joined by a blank line. A tool result
is answered without a second <｜Assistant｜>. The template released in December 2024 closed the list of tool
calls inside the branch for the second call: one call stayed open, three were closed twice. Here every list of
calls or results is opened and closed exactly once, so a conversation always begins with the prompt that each
of its replies was generated from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple, Protocol

from fathom.config.errors import DataError, need, quoted
from fathom.data import specials as sp

Message = Mapping[str, Any]
ROLES = ("system", "user", "assistant", "tool")
NAMES = {text: name for name, text in sp.SPECIALS.items()}


class Encoder(Protocol):
    """What `encode_chat` needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""

    def special(self, name: str) -> int:
        """Id of a control token."""


class Piece(NamedTuple):
    """A stretch of a conversation: one control token, or plain text between two of them."""

    text: str
    special: bool = False
    target: bool = False  # written by the assistant: the loss counts


def render(messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
    """The conversation as one string, BOS included; DataError names the message that cannot be used.

    A message is {"role", "content"}; the assistant's may add "tool_calls", a list of
    {"type": "function", "function": {"name", "arguments": JSON text or dict}}.
    `generation_prompt` ends it where the assistant's next words begin.
    """
    return "".join(piece.text for piece in _pieces(messages, generation_prompt))


def encode_chat(
    tokenizer: Encoder, messages: Sequence[Message], *, generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """Ids of `render(messages)` and, for each, whether the assistant wrote it (content, tool calls, EOS).

    Guarantee: what people write is encoded as plain text, so no message can forge a control token.
    """
    ids: list[int] = []
    is_target: list[bool] = []
    for piece in _pieces(messages, generation_prompt):
        new = [tokenizer.special(NAMES[piece.text])] if piece.special else tokenizer.encode(piece.text)
        ids += new
        is_target += [piece.target] * len(new)
    return ids, is_target


def _pieces(messages: Sequence[Message], generation_prompt: bool) -> Iterator[Piece]:
    need(len(messages) > 0, "the conversation has no message", fix="give at least one", error=DataError)
    for index, message in enumerate(messages):
        _check(index, message)
    yield Piece(sp.BOS, special=True)
    yield Piece("\n\n".join(m["content"] for m in messages if m["role"] == "system"))
    outputs_open = False
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "tool":
            yield Piece("\n") if outputs_open else Piece(sp.OUTPUTS_BEGIN, special=True)
            yield Piece(sp.OUTPUT_BEGIN, special=True)
            yield Piece(message["content"])
            yield Piece(sp.OUTPUT_END, special=True)
            outputs_open = True
        elif role != "system":
            if outputs_open:
                yield Piece(sp.OUTPUTS_END, special=True)
            if role == "user":
                yield Piece(sp.USER, special=True)
                yield Piece(message["content"])
            else:
                if not outputs_open:
                    yield Piece(sp.ASSISTANT, special=True)
                yield from _reply(index, message)
            outputs_open = False
    if outputs_open:
        yield Piece(sp.OUTPUTS_END, special=True)
    elif generation_prompt:
        yield Piece(sp.ASSISTANT, special=True)


def _reply(index: int, message: Message) -> Iterator[Piece]:
    yield Piece(message.get("content") or "", target=True)
    calls = message.get("tool_calls") or ()
    for number, call in enumerate(calls):
        kind, name, arguments = _call(f"message {index}, tool call {number}", call)
        yield Piece("\n", target=True) if number else Piece(sp.CALLS_BEGIN, special=True, target=True)
        yield Piece(sp.CALL_BEGIN, special=True, target=True)
        yield Piece(kind, target=True)
        yield Piece(sp.TOOL_SEP, special=True, target=True)
        yield Piece(f"{name}\n```json\n{arguments}\n```", target=True)
        yield Piece(sp.CALL_END, special=True, target=True)
    if calls:
        yield Piece(sp.CALLS_END, special=True, target=True)
    yield Piece(sp.EOS, special=True, target=True)


def _call(where: str, call: Any) -> tuple[str, str, str]:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    shape = '{"function": {"name": ..., "arguments": ...}}'
    need(isinstance(name, str), f"{where} has no function name", fix=f"write it as {shape}", error=DataError)
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False)
    need(isinstance(arguments, str), f"{where} has no arguments", fix=f"write it as {shape}", error=DataError)
    return str(call.get("type") or "function"), str(name), str(arguments)


def _check(index: int, message: Any) -> None:
    known = ", ".join(ROLES)
    table = isinstance(message, Mapping) and "role" in message
    need(table, f"message {index} has no role", fix=f"give it one of {known}", error=DataError)
    role = message["role"]
    need(
        role in ROLES, f"message {index} has role {quoted(role)}", fix=f"use one of {known}", error=DataError
    )
    content, calls = message.get("content"), message.get("tool_calls")
    need(
        calls is None or (role == "assistant" and isinstance(calls, Sequence) and not isinstance(calls, str)),
        f"message {index} ({role}) has tool_calls that are not a list of the assistant's",
        fix="give tool_calls as a list, in an assistant message only",
        error=DataError,
    )
    need(
        isinstance(content, str) or (content is None and bool(calls)),
        f"message {index} ({role}) has no content",
        fix='give "content" as text' + (" or add tool_calls" if role == "assistant" else ""),
        error=DataError,
    )


def template() -> str:
    """The same as `render`, for everybody who reads the tokenizer's folder with a Jinja template.

    `tojson` must leave HTML alone, as it does in transformers; plain Jinja escapes it.
    """
    return (resources.files("fathom.data") / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")
