"""Word problems with sums and differences up to ten, and their working.

The limit is what a model of some two million parameters learns in minutes. Every sentence, the working too,
names the child, the thing and the place.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fathom.data.smallworld.words import counted
from fathom.data.smallworld.world import World

LARGEST = 10  # no number in a problem is above it

SUMS = (
    (
        "At the {place}, {child} had {a}. At the {place}, {friend} gave {child} {more}.",
        "How many {things} did {child} have at the {place} then?",
        "At the {place}, {child} then had {x} + {y} = {c}.",
    ),
    (
        "{child} took {a} to the {place}. {child} found {more} at the {place}.",
        "How many {things} did {child} have at the {place} in all?",
        "At the {place}, {child} had {x} + {y} = {c} in all.",
    ),
)
DIFFERENCES = (
    (
        "At the {place}, {child} had {a}. At the {place}, {child} gave {b} to {friend}.",
        "How many {things} did {child} still have at the {place}?",
        "At the {place}, {child} still had {x} - {y} = {c}.",
    ),
    (
        "{child} took {a} to the {place}. {child} lost {b} at the {place}.",
        "How many {things} did {child} have left at the {place}?",
        "At the {place}, {child} had {x} - {y} = {c} left.",
    ),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is given and asked in one text, the working that ends in the result, and the result."""

    question: str
    working: str
    result: int


def pose(world: World, rng: Random) -> Problem:
    """A sum or a difference with 1 <= result <= LARGEST; no operand is zero."""
    plus = rng.random() < 0.5
    result = rng.randint(2, LARGEST) if plus else rng.randint(1, LARGEST - 1)
    second = rng.randint(1, result - 1) if plus else rng.randint(1, LARGEST - result)
    first = result - second if plus else result + second
    given, asked, working = rng.choice(SUMS if plus else DIFFERENCES)
    names = world.names() | {
        "a": counted(first, world.thing),
        "b": counted(second, world.thing),
        "more": counted(second, f"more {world.thing}"),
        "c": counted(result, world.thing),
        "x": str(first),
        "y": str(second),
    }
    return Problem(f"{given} {asked}".format_map(names), working.format_map(names), result)
