"""A scheduler, sequences for it, and steps in which nothing is computed: what its tests share."""

from __future__ import annotations

from fathom.config.engine import EngineConfig
from fathom.engine.request import SamplingParams
from fathom.engine.scheduler import Scheduler
from fathom.engine.sequence import Sequence


def scheduler_of(
    pages: int = 100, size: int = 4, budget: int = 64, beyond: int = 0, **limits: int
) -> Scheduler:
    config = EngineConfig(page_size=size, prefill_tokens=budget, **limits)
    return Scheduler(config, pages, beyond)


def sequences(prompt: int, most: int = 0, *, n: int = 1, key: str = "", first: int = 0) -> list[Sequence]:
    """`n` answers to a prompt of so many tokens, which are `first`, `first` + 1, ..."""
    tokens, params = tuple(range(first, first + prompt)), SamplingParams(n=n)
    return [Sequence(0, i, key, tokens, params, most or prompt + 20) for i in range(n)]


def one(prompt: int, most: int = 0, *, key: str = "", first: int = 0) -> Sequence:
    return sequences(prompt, most, key=key, first=first)[0]


def submitted(scheduler: Scheduler, prompt: int, most: int = 0, *, first: int = 0, key: str = "") -> Sequence:
    sequence = one(prompt, most, key=key, first=first)
    scheduler.submit([sequence])
    return sequence


def step(scheduler: Scheduler) -> list[tuple[Sequence, int, int, str]]:
    """One step in which every draft is rejected, and a token 7 follows where one can."""
    works = scheduler.plan()
    for sequence, start, count, kind in works:
        last = start + (1 if kind == "decode" else count)
        ends = last == sequence.length
        scheduler.advance(sequence, last)
        if ends:
            sequence.output.append(7)
            sequence.drafts.clear()
    scheduler.check()
    return [tuple(work) for work in works]  # type: ignore[misc]


def kinds(works: list[tuple[Sequence, int, int, str]]) -> list[tuple[int, int, str]]:
    return [(start, count, kind) for _, start, count, kind in works]
