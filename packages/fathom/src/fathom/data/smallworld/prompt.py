"""Prompts with one right answer, and the strict rule that grades a reply."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words before a value that tell nothing; at most one of each sort.
LEAD = re.compile(r"^(?:(?:a|an|the) )?(?:(?:all|jolly|kind|right|tasty|very) )?")
NUMBER = re.compile(r"[-\w.,]*[0-9][-\w.,]*")  # wider than an integer: 7.5, -7 and 7e3 must not be read as 7


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question with one right answer."""

    messages: list[dict[str, str]]  # [{"role", "content"}], the user's turn last
    answer: str  # "A kind fox." or "7"
    kind: str  # "story" or "arithmetic"


def grade(prompt: Prompt, reply: str) -> bool:
    """Whether `reply` gives the one right answer.

    story        the whole reply is the answer; case, spacing, a last dot, and before it an article and the
                 word that every such value has ("kind" fox, "tasty" bun) do not count
    arithmetic   what stands after the one equals sign, or all of a reply that has none, names the right
                 number and no other; so working that ends in it is right, and a list of guesses is wrong
    """
    if prompt.kind == "story":
        return _plain(reply) == _plain(prompt.answer)
    working, _, result = reply.rpartition("=")
    numbers = {n.rstrip(".,") for n in NUMBER.findall(result)}
    return "=" not in working and numbers == {prompt.answer}


def _plain(text: str) -> str:
    words = " ".join(text.lower().split())
    return LEAD.sub("", words.removesuffix(".").rstrip())
