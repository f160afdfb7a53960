"""What a story can be asked about: for each fact its sentences, its questions and its one right answer.

Every template names {child}, {thing} and {place} exactly once; the proof that held-out questions were never
read in training stands on it. Each value follows a word of its own kind ("all red", "a kind fox") in story
and answer alike, and is never the first word of an answer: so it is spelt, and tokenised, in one way.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fathom.data.smallworld.world import World


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that can be asked: paraphrases that state it, paraphrases that ask for it, and the answer."""

    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str


FACTS = {
    "colour": Fact(
        (
            "The {thing} that {child} had at the {place} was all {colour}.",
            "At the {place}, the {thing} that {child} had was all {colour}.",
        ),
        (
            "What colour was the {thing} that {child} had at the {place}?",
            "At the {place}, what colour was the {thing} that {child} had?",
        ),
        "all {colour}",
    ),
    "visitor": Fact(
        (
            "At the {place}, a jolly {visitor} came to play with {child} and the {thing}.",
            "A jolly {visitor} came to the {place} to play with {child} and the {thing}.",
        ),
        (
            "Who came to play with {child} and the {thing} at the {place}?",
            "At the {place}, who came to play with {child} and the {thing}?",
        ),
        "a jolly {visitor}",
    ),
    "animal": Fact(
        (
            "At the {place}, a kind {animal} helped {child} look for the {thing}.",
            "With a kind {animal}, {child} looked for the {thing} at the {place}.",
        ),
        (
            "Which animal helped {child} look for the {thing} at the {place}?",
            "At the {place}, which animal helped {child} look for the {thing}?",
        ),
        "a kind {animal}",
    ),
    "spot": Fact(
        (
            "At the {place}, {child} found the {thing} right {side} the {spot}.",
            "{child} found the {thing} right {side} the {spot} at the {place}.",
        ),
        (
            "Where at the {place} did {child} find the {thing}?",
            "Where did {child} find the {thing} at the {place}?",
        ),
        "right {side} the {spot}",
    ),
    "food": Fact(
        (
            "At the {place}, {child} sat by the {thing} and ate a tasty {food}.",
            "{child} ate a tasty {food} by the {thing} at the {place}.",
        ),
        (
            "What did {child} eat by the {thing} at the {place}?",
            "At the {place}, what did {child} eat by the {thing}?",
        ),
        "a tasty {food}",
    ),
    "feeling": Fact(
        (
            "At the {place}, {child} felt very {feeling} with the {thing}.",
            "With the {thing} at the {place}, {child} felt very {feeling}.",
        ),
        (
            "How did {child} feel with the {thing} at the {place}?",
            "At the {place}, how did {child} feel with the {thing}?",
        ),
        "very {feeling}",
    ),
}


def _sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


def state(world: World, fact: str, rng: Random) -> str:
    """One of the sentences that give `fact` away."""
    return _sentence_case(rng.choice(FACTS[fact].sentences).format_map(world.names()))


def ask(world: World, fact: str, rng: Random) -> str:
    """One of the questions for `fact`."""
    return rng.choice(FACTS[fact].questions).format_map(world.names())


def answer(world: World, fact: str) -> str:
    """The one right answer in two to four words: "All red.", "A kind fox.", "Right under the tree."."""
    return _sentence_case(FACTS[fact].answer.format_map(world.names()) + ".")
