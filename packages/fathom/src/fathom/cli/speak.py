"""A loaded model as the terminal talks to it: one request at a time, its text shown as it comes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fathom.engine import Delta, Engine, Request, Result
    from fathom.engine.stats import Stats

# What every command that talks understands.
Temperature = Annotated[float, typer.Option("--temperature", help="0 = the likeliest token.")]
TopP = Annotated[float, typer.Option("--top-p", help="Keep the likeliest tokens of this share.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Of the draws; given = the same every time.")]
Speculate = Annotated[
    str, typer.Option("--speculate", help="Draft with the MTP head: auto = while it pays, on, off.")
]

DRAWN_SEED_BITS = 32  # short enough to be typed again
SEED_STEP = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: seeds of a conversation lie far apart


def drawn_seed() -> int:
    """Another one each time, for whoever gave none: once it is told, what was drawn can be drawn again."""
    return secrets.randbits(DRAWN_SEED_BITS)


def seed_of_answer(seed: int, number: int) -> int:
    """Of the answers to one seed in a conversation; the first has the seed itself."""
    return (seed + number * SEED_STEP) % 2**64


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoken:
    """A finished request, and what it took."""

    result: Result
    first_seconds: float  # until a token was there
    seconds: float
    stats: Stats  # of this request alone
    exit_code: int | None  # 130 or 75 where a signal cut it short

    @property
    def tokens_per_second(self) -> float:
        """Of all answers together, behind their first tokens."""
        rest = self.seconds - self.first_seconds
        return self.stats.tokens / rest if rest > 0 else 0.0

    def figures(self) -> dict[str, float]:
        """For --json."""
        return {
            "seconds": round(self.seconds, 4),
            "first_token_seconds": round(self.first_seconds, 4),
            "tokens_per_second": round(self.tokens_per_second, 2),
            "prompt_tokens": self.result.prompt_tokens,
            "cached_tokens": self.result.cached_tokens,
            "trunk_passes": self.stats.trunk_passes,
            "tokens_per_trunk_pass": round(self.stats.tokens_per_pass, 4),
            "drafted": self.stats.drafted,
            "accepted": self.stats.accepted,
            "acceptance": round(self.stats.acceptance, 4),
        }

    def lines(self) -> str:
        """For people."""
        written = sum(len(c.tokens) for c in self.result.completions)
        speed = f"{written:,} tokens, {self.tokens_per_second:,.0f} a second"
        return (
            f"answer   {speed}, the first after {self.first_seconds:.2f} s\n"
            f"prompt   {self.result.prompt_tokens:,} tokens, {self.result.cached_tokens:,} of them cached\n"
            f"drafts   {drafts(self.stats)}"
        )


def drafts(stats: Stats) -> str:
    """What the MTP head was good for, in one line."""
    if not stats.drafted:
        return "none"
    return (
        f"{stats.accepted:,} of {stats.drafted:,} accepted ({stats.acceptance:.0%}), "
        f"{stats.tokens_per_pass:.2f} tokens per trunk pass"
    )


class Speaker:
    """An engine that serves one person."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.tokenizer = engine, engine.tokenizer

    @classmethod
    def load(
        cls, folder: Path, *, answers: int = 1, speculate: str = "auto", draft_tokens: int = 1
    ) -> Speaker:
        """Read a run, a checkpoint or an official folder. DataError or ConfigError in one line.

        answers   to one request, which are written at once
        """
        from fathom.engine import Engine, EngineConfig

        config = EngineConfig(max_running=answers, speculate=speculate, draft_tokens=draft_tokens)
        return cls(Engine(folder, config))

    def room(self, prompt: list[int]) -> int:
        """Tokens that fit behind `prompt`."""
        held = self.engine.scheduler.pool.total * self.engine.config.page_size
        return min(self.engine.context, held) - len(prompt)

    def speak(self, request: Request, show: Callable[[Delta], None]) -> Spoken:
        """Answer, showing each piece of news; Ctrl-C or SIGTERM cuts it short after the step at work.

        raises   RequestError before anything is computed
        """
        from fathom.engine import Result
        from fathom.engine.collect import completion
        from fathom.train.stop import StopSignals

        before, began = replace(self.engine.stats), time.perf_counter()
        heard: list[list[Delta]] = [[] for _ in range(request.sampling.n)]
        first = 0.0
        request_id = self.engine.submit(request)
        with StopSignals() as stop:
            while self.engine.busy:
                if stop.exit_code is not None:
                    self.engine.cancel(request_id)
                for delta in self.engine.step():
                    first = first or time.perf_counter() - began
                    heard[delta.index].append(delta)
                    show(delta)
        return Spoken(
            result=Result(
                request_id=request_id,
                prompt_tokens=heard[0][0].prompt_tokens,
                cached_tokens=heard[0][0].cached_tokens,
                completions=tuple(map(completion, heard)),
            ),
            first_seconds=first,
            seconds=time.perf_counter() - began,
            stats=self.engine.stats.since(before),
            exit_code=stop.exit_code,
        )

