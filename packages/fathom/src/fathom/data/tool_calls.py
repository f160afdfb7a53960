"""What an assistant writes, token by token, parted into text to show and calls of tools.

The layout is that of `fathom.data.chat`. Calls are told from text by control tokens, which no text can spell.
Output that does not keep to the layout is read as follows. Nothing raises, and no text is lost but fences and
blank space between calls:

- blank space inside a list of calls is layout; other text there is shown, with the space before it
- what has no separator after its begin is no call: its text is shown
- a call without the opening fence has its first line as name and the rest as arguments
- a call is also ended, incomplete, by another call's begin, by the begin or the end of a list, by the
  end-of-text token and by the end of the output; a call outside of any list is a call
- other control tokens, and these where they mean nothing, are passed over as `Tokenizer.decode` does
- arguments are passed on as they were written; whether they are JSON is for the caller to find out
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fathom.config.errors import DataError
from fathom.data.tokenizer import TextStream, Tokenizer

OPENING = "\n```json\n"  # between name and arguments
CLOSING = "\n```"  # behind the arguments
MARKERS = ("tool_calls_begin", "tool_calls_end", "tool_call_begin", "tool_call_end", "tool_sep", "eos")
INSIDE = ("type", "name", "arguments")  # states between a call's begin and its end


@dataclass(frozen=True, slots=True)
class Content:
    """Text to show."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call whose name is known; `index` counts the calls of one reply from 0."""

    index: int
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next piece of a call's arguments, never empty."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """No more arguments; `complete` = opened, fenced and closed as the layout asks."""

    index: int
    complete: bool


Part = Content | CallBegun | CallArguments | CallEnded


class ToolCallParser:
    """Reads one reply; linear in its length, and at most `CLOSING` is held back of arguments."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """A tokenizer without the markers writes no calls: everything is text to show."""
        self._marker = _markers(tokenizer)
        self._text = TextStream(tokenizer)
        self._state = "content"  # or "list" (inside of one, between calls), "type", "name", "arguments"
        self._held: list[str] = []  # text whose meaning is open; joined once
        self._tail = ""  # its last characters: what may be the first of a fence
        self._type = ""
        self._index = -1

    def push(self, token: int) -> list[Part]:
        """What is certain after this id; characters come out whole."""
        marker = self._marker.get(token)
        if marker is None:
            return self._take(self._text.push(token))
        return self._mark(marker) if self._means(marker) else []

    def end(self) -> list[Part]:
        """What is left; a call that is open has ended."""
        return self._leave("content")

    def _means(self, marker: str) -> bool:
        if marker == "tool_sep":
            return self._state == "type"
        if marker == "tool_call_end":
            return self._state in INSIDE
        return marker in ("tool_call_begin", "tool_calls_begin") or self._state != "content"

    def _mark(self, marker: str) -> list[Part]:
        if marker == "tool_sep":
            self._take(self._text.end())
            self._type, self._state = self._release(), "name"
            return []
        after = {"tool_call_begin": "type", "tool_call_end": "list", "tool_calls_begin": "list"}
        return self._leave(after.get(marker, "content"), closed=marker == "tool_call_end")

    def _take(self, text: str) -> list[Part]:
        if not text:
            return []
        if self._state == "content":
            return [Content(text)]
        if self._state == "arguments":
            return self._take_arguments(text)
        self._held.append(text)
        if self._state == "list" and not text.isspace():
            return [Content(self._release())]
        return self._take_name(text) if self._state == "name" else []

    def _take_name(self, text: str) -> list[Part]:
        seen = self._tail + text
        self._tail = seen[-len(OPENING) + 1 :]
        if OPENING not in seen:
            return []
        name, _, rest = self._release().partition(OPENING)
        self._state = "arguments"
        return [self._begin(name), *self._take(rest)]

    def _take_arguments(self, text: str) -> list[Part]:
        seen = self._tail + text
        cut = next(k for k in range(len(CLOSING), -1, -1) if seen.endswith(CLOSING[:k]))
        self._tail = CLOSING[:cut]
        return self._arguments(seen.removesuffix(self._tail))

    def _leave(self, state: str, *, closed: bool = False) -> list[Part]:
        """Whatever was open is over, and `state` begins; `closed` by the token that is meant for it."""
        parts = self._take(self._text.end())
        if self._state == "arguments":
            fenced = self._tail == CLOSING
            parts += self._arguments("" if fenced else self._tail)
            parts.append(CallEnded(self._index, closed and fenced))
        elif self._state == "name":
            name, newline, rest = self._release().partition("\n")
            cut = OPENING.startswith(newline + rest)  # the output stopped inside the opening fence
            parts.append(self._begin(name))
            parts += self._arguments("" if cut else rest.removesuffix(CLOSING))
            parts.append(CallEnded(self._index, complete=False))
        elif self._state == "type" and (text := self._release()):
            parts.append(Content(text))
        self._state, self._held, self._tail = state, [], ""
        return parts

    def _begin(self, name: str) -> CallBegun:
        self._index += 1
        return CallBegun(self._index, name, self._type or "function")

    def _arguments(self, text: str) -> list[Part]:
        return [CallArguments(self._index, text)] if text else []

    def _release(self) -> str:
        text = "".join(self._held)
        self._held, self._tail = [], ""
        return text


def parse_tool_calls(tokenizer: Tokenizer, ids: Iterable[int]) -> tuple[str, list[dict[str, Any]]]:
    """A whole reply: the text to show and its calls, complete or not, as `encode_chat` takes them.

    A call is {"type", "function": {"name", "arguments": text}}; an id is for whoever sends it on to give.
    """
    parser = ToolCallParser(tokenizer)
    parts = [part for token in ids for part in parser.push(token)] + parser.end()
    content: list[str] = []
    calls: list[tuple[CallBegun, list[str]]] = []
    for part in parts:
        if isinstance(part, Content):
            content.append(part.text)
        elif isinstance(part, CallBegun):
            calls.append((part, []))
        elif isinstance(part, CallArguments):
            calls[part.index][1].append(part.text)
    return "".join(content), [
        {"type": call.type, "function": {"name": call.name, "arguments": "".join(pieces)}}
        for call, pieces in calls
    ]


def _markers(tokenizer: Tokenizer) -> dict[int, str]:
    found = {}
    for name in MARKERS:
        try:
            found[tokenizer.special(name)] = name
        except DataError:  # trained without tools
            continue
    return found
