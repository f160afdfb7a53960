"""Ask a model verifiable questions, greedily, and count the right answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fathom.data.smallworld import Prompt, grade
from fathom.engine import Engine, Request, SamplingParams

MAX_TOKENS = 40  # the longest right answer shows its working in about 25


class Answered(NamedTuple):
    """One question, what the model said, and whether that was right."""

    prompt: Prompt
    reply: str
    right: bool


def ask(
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int = MAX_TOKENS,
    told: Callable[[int], None] | None = None,
) -> list[Answered]:
    """Answer every prompt with the likeliest tokens, as many at once as the engine runs; in the given order.

    told     is called with the number answered so far
    raises   RequestError for a prompt that does not fit the model's context
    """
    greedy = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    asked = [Request(messages=prompt.messages, sampling=greedy) for prompt in prompts]
    replies = [result.text for result in engine.generate(asked, told=told)]
    return [Answered(p, reply, grade(p, reply)) for p, reply in zip(prompts, replies, strict=True)]


def share_right(answers: Sequence[Answered]) -> float:
    """The share of right answers."""
    return sum(a.right for a in answers) / len(answers)
