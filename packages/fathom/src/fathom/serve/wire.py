"""What the server and the engine's process say to each other: JSON objects, one a frame. Nothing is pickled.

A frame is its length in 4 bytes, most significant first, and UTF-8 JSON. This module is what both sides know;
it needs no torch. `link.py` is the server's end, `engine_process.py` the other one.

    server -> engine   {"op": "submit", "id": 7, "request": Ask}      {"op": "cancel", "id": 7}
                       {"op": "encode" | "decode" | "experts" | "score" | "stats" | "pulse", "id": 8, ...}
                       {"op": "drain"}
    engine -> server   {"op": "ready", "info": Info}                  {"op": "news", "id": 7, ...News}
                       {"op": "refused", "id": 7, "kind": "request" | "busy" | "engine", "message": "..."}
                       {"op": "answer", "id": 8, "value": ...}
                       {"op": "failed", "message": "..."}             it cannot start: settings or checkpoint

Fields that have their default may be left out. "pulse" is answered between two steps. After "drain" nothing
new is taken up; when the last request has ended, the engine closes the connection.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

LONGEST_FRAME = 16 << 20    # bytes; a longer one is a fault of the program that sends it
LENGTH_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A request: exactly one of text, tokens and messages, and the fields of `engine.SamplingParams`.

    tools       functions the model may call, as OpenAI describes them; with messages only
    key         whose request it is: keys take turns in the queue
    """

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A piece of a call of a tool, as OpenAI streams them: the first of a call has id and name."""

    index: int = 0                      # counts the calls of one answer
    id: str = ""
    name: str = ""
    arguments: str = ""                 # the next piece of them, as the model writes it


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What a step added to one answer: an `engine.Delta`, with what became of drafts.

    text        to show. Of a request with tools: what is outside of calls. `tokens` are always all
    logprobs    (token, natural log of its probability, ((token, log), ...) of the likeliest) for each token
    accepted    so many of `tokens`, from the first on, were drafts that stood
    rejected    the drafts behind them that fell; the next token stands in place of the first of these
    tool_calls  only of a request with tools; an answer that made any ends with "stop" all the same
    """

    index: int = 0
    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[tuple[int, float, tuple[tuple[int, float], ...]], ...] = ()
    finish_reason: str | None = None    # "stop", "length", "cancelled" or "error"
    prompt_tokens: int = 0
    cached_tokens: int = 0
    accepted: int = 0
    rejected: tuple[int, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """The engine, once it is up."""

    model: str
    line: str                           # what a start-up line says
    context: int                        # positions of prompt and answer together
    vocabulary: int                     # token ids end before it
    token_bytes: int = 0                # of the longest token's text; 0 = not known
    pages: int
    page_positions: int
    cache_bytes_per_token: int
    plain_cache_bytes_per_token: int    # of plain multi-head attention with the same heads
    drafts: bool                        # whether an MTP module drafts
    layers: int
    experts: tuple[int, ...]            # routed experts of each layer, 0 in a dense one
    experts_per_token: int


Score = tuple[int, float | None, tuple[tuple[int, float], ...]]  # token, log of its probability, likeliest


class Refused(Exception):
    """The engine does not take a request up. kind: "request" (never), "busy" (not now), "engine" (down)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class Link(Protocol):
    """The server's view of the engine. Methods raise Refused."""

    @property
    def info(self) -> Info | None:
        """None while the engine is starting or down."""

    @property
    def trouble(self) -> str:
        """What is wrong with an engine that is up: it does not answer; "" while it does."""

    def generate(self, ask: Ask) -> AsyncGenerator[News, None]:
        """The news of one request until each of its answers has finished. Closing it early cancels it: its
        pages are free within a step.
        """

    async def encode(self, *, text: str | None = None, messages: tuple[Mapping[str, Any], ...] | None = None,
                     ) -> list[int]:
        """Token ids of a plain text (no begin-of-text token), or of a conversation in the chat template."""

    async def decode(self, tokens: list[int]) -> list[str]:
        """The text of each token alone; bytes that are no whole character as Python's surrogate escapes."""

    async def experts(self, tokens: list[int]) -> list[list[list[int]]]:
        """For each token the experts that each MoE layer chose, highest weight first. [tokens][layers][k]"""

    async def score(self, tokens: list[int], top: int = 0) -> list[Score]:
        """Each token with its log probability behind those before it, and the `top` likeliest there.

        The first has None and (). Nothing is written, and nothing stays in the cache.
        """

    async def stats(self) -> dict[str, float]:
        """Counters: pages_total, pages_used (of requests that run), pages_cached (of nobody now, of earlier
        prompts), running, waiting, prefix_hit_tokens, prompt_tokens, drafted, accepted, tokens, trunk_passes,
        steps.
        """


def pack(message: Mapping[str, Any]) -> bytes:
    """A frame."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(body) > LONGEST_FRAME:
        raise ValueError(f"a message of {len(body)} bytes, above {LONGEST_FRAME}")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def unpack(body: bytes) -> dict[str, Any]:
    """The object in a frame's body. ValueError for anything else."""
    message = json.loads(body.decode("utf-8", "surrogatepass"))
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise ValueError("a frame that is no message")
    return message
