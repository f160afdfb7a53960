"""News of the engine as parts of answers: token ids become texts, drafts are marked, all is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from fathom.serve.errors import ApiError
from fathom.serve.texts import Texts
from fathom.serve.wire import Info, News, ToolCall

LOWEST = -9999.0  # of a token that cannot follow: JSON has no infinite number
Top = list[tuple[str, float]]
Entry = tuple[str, float | None, Top]  # a token's raw text, its log probability, those of the likeliest


@dataclass(kw_only=True, slots=True)
class Part:
    """A piece of one answer as a client is told of it; logprobs and tokens only where it asked for them."""

    index: int
    text: str = ""
    finish: str | None = None
    logprobs: list[Entry] | None = None
    tokens: list[dict[str, Any]] | None = None
    calls: tuple[ToolCall, ...] = ()
    echoed: int = 0  # so many of `logprobs`, from the first on, are of the prompt


def joined(index: int, parts: Sequence[Part]) -> Part:
    """All pieces of one answer as one; each is copied once, however many there are."""
    logprobs = [part.logprobs for part in parts if part.logprobs is not None]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return Part(
        index=index,
        text="".join(part.text for part in parts),
        finish=next((part.finish for part in reversed(parts) if part.finish), None),
        logprobs=list(chain.from_iterable(logprobs)) if logprobs else None,
        tokens=list(chain.from_iterable(tokens)) if tokens else None,
        calls=tuple(call for part in parts for call in part.calls),
        echoed=sum(part.echoed for part in parts),
    )


def finite(log: float) -> float:
    """A log probability that JSON can hold."""
    return log if log > LOWEST else LOWEST  # a NaN, too


def entry(texts: Texts, token: int, log: float | None, top: Iterable[tuple[int, float]]) -> Entry:
    """A token with raw texts for ids."""
    ranked = [(texts.raw(t), finite(x)) for t, x in top]
    return texts.raw(token), None if log is None else finite(log), ranked


@dataclass(kw_only=True, slots=True)
class Told:
    """Turns the news of one order into parts."""

    texts: Texts
    logprobs: bool
    details: bool
    _fell: dict[int, list[int]] = field(default_factory=dict)  # drafts that no token stands in place of yet
    _called: set[int] = field(default_factory=set)

    async def part(self, news: News, index: int) -> Part:
        """`index`: of the choice. ApiError where the engine gave up."""
        if news.finish_reason == "error":
            raise ApiError(500, news.error or "the engine failed at this answer", fix="")
        if news.finish_reason == "cancelled":
            raise ApiError(503, "the answer was broken off, the server ends", fix="try again", retry_after=2)
        part = Part(index=index, text=news.text, finish=news.finish_reason, calls=news.tool_calls)
        if news.tool_calls:
            self._called.add(index)
        if part.finish == "stop" and index in self._called:
            part.finish = "tool_calls"
        if self.logprobs:
            top = [t for _, _, ranked in news.logprobs for t, _ in ranked]
            await self.texts.fetch([*(t for t, _, _ in news.logprobs), *top])
            part.logprobs = [entry(self.texts, *one) for one in news.logprobs]
        if self.details:
            await self.texts.fetch([*news.tokens, *news.rejected, *self._fell.get(index, ())])
            part.tokens = self._marked(news, index)
        return part

    def _marked(self, news: News, index: int) -> list[dict[str, Any]]:
        marked = []
        for place, token in enumerate(news.tokens):
            draft = "accepted" if place < news.accepted else ""
            if place == news.accepted and news.rejected:
                self._fell[index] = list(news.rejected)
            fell = [] if draft else self._fell.pop(index, [])
            rejected = [self.texts[one] for one in fell]
            marked.append({"id": token, "text": self.texts[token], "draft": draft, "rejected": rejected})
        if news.rejected and len(news.tokens) <= news.accepted:
            self._fell[index] = list(news.rejected)
        return marked


@dataclass(slots=True)
class Tally:
    """What the news of one order add up to."""

    now: Callable[[], float] = time.monotonic
    prompts: dict[int, int] = field(default_factory=dict)  # tokens, by number of the prompt
    cached: dict[int, int] = field(default_factory=dict)
    completion_tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    first: float | None = None  # when the first token came, and how many with it
    first_tokens: int = 0
    last: float = 0.0

    def add(self, prompt: int, news: News) -> None:
        """One more."""
        self.prompts[prompt] = max(news.prompt_tokens, self.prompts.get(prompt, 0))
        self.cached[prompt] = max(news.cached_tokens, self.cached.get(prompt, 0))
        self.completion_tokens += len(news.tokens)
        self.drafted += news.accepted + len(news.rejected)
        self.accepted += news.accepted
        if news.tokens:
            self.last = self.now()
            if self.first is None:
                self.first, self.first_tokens = self.last, len(news.tokens)

    @property
    def prompt_tokens(self) -> int:
        """Over all prompts."""
        return sum(self.prompts.values())

    def usage(self) -> dict[str, Any]:
        """As OpenAI tells it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(self.cached.values())},
        }

    def figures(self, info: Info) -> dict[str, Any]:
        """What `fathom_details` adds. Tokens a second are of those behind the first."""
        seconds = self.last - self.first if self.first is not None else 0.0
        rest, positions = (
            self.completion_tokens - self.first_tokens,
            self.prompt_tokens + self.completion_tokens,
        )
        return {
            "tokens_per_second": round(rest / seconds, 2) if seconds > 0 else 0.0,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "cache_bytes": positions * info.cache_bytes_per_token,
            "plain_cache_bytes": positions * info.plain_cache_bytes_per_token,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
