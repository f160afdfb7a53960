"""Tools that a model may call: how it is told of them, and its calls as they are written.

V3's chat template has no place for the tools themselves. They are told as its users tell them, in a system
message behind all others; calls and results have their own control tokens, see `fathom.data.chat`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fathom.config.errors import need
from fathom.data.tokenizer import Tokenizer
from fathom.data.tool_calls import CallArguments, CallBegun, Content, ToolCallParser
from fathom.engine.request import RequestError
from fathom.engine.stop import StopFinder
from fathom.serve.wire import ToolCall

ID_BYTES = 12
HEAD = "## Tools\n\n### Function\n\nYou have the following functions available:"


def with_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """The conversation, told of these tools. RequestError for what is no function."""
    if not tools:
        return tuple(messages)
    parts = [HEAD, *(_described(index, tool) for index, tool in enumerate(tools))]
    return (*messages, {"role": "system", "content": "\n\n".join(parts)})


def _described(index: int, tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    fix = 'write it as {"type": "function", "function": {"name": ..., "parameters": ...}}'
    what = f"tool {index} has no function name"
    need(isinstance(name, str) and name != "", what, fix=fix, error=RequestError)
    return f"- `{name}`:\n```json\n{json.dumps(tool['function'], ensure_ascii=False)}\n```"


class Calls:
    """Parts what one answer's tokens say into text to show and calls."""

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...]) -> None:
        self._parser = ToolCallParser(tokenizer)
        self._finder = StopFinder(stops)  # the engine's own sees calls too: here only what is shown counts

    def read(self, tokens: Iterable[int], *, last: bool) -> tuple[str, tuple[ToolCall, ...]]:
        """What is certain after these; `last` = no more follow."""
        parts = [part for token in tokens for part in self._parser.push(token)]
        parts += self._parser.end() if last else []
        text, calls = [], []
        for part in parts:
            if isinstance(part, Content):
                text.append(self._finder.push(part.text)[0])
            elif isinstance(part, CallBegun):
                text.append(self._finder.end())
                calls.append(_begun(part))
            elif isinstance(part, CallArguments):
                calls.append(ToolCall(index=part.index, arguments=part.text))
        if last:
            text.append(self._finder.end())
        return "".join(text), tuple(calls)


def _begun(part: CallBegun) -> ToolCall:
    return ToolCall(index=part.index, id=f"call_{secrets.token_hex(ID_BYTES)}", name=part.name)
