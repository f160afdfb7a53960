"""What a story can be asked about: for each fact its sentences, its questions and its one right answer.

Every template names {child}, {thing} and {place} exactly once; the proof that held-out questions were never
read in training stands on it. A sentence and its question share their words, so that a small model can find
the one by the other.
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
    "weather": Fact(
        (
            "It was a {weather} day when {child} took the {thing} to the {place}.",
            "The day was {weather} when {child} took the {thing} to the {place}.",
            "On a {weather} day, {child} took the {thing} to the {place}.",
        ),
        (
            "How was the weather when {child} took the {thing} to the {place}?",
            "What kind of day was it when {child} took the {thing} to the {place}?",
        ),
        "it was {weather}",
    ),
    "giver": Fact(
        (
            "A {giver} gave {child} the {thing} for a trip to the {place}.",
            "{child} got the {thing} from a {giver} for a trip to the {place}.",
        ),
        (
            "Who gave {child} the {thing} for a trip to the {place}?",
            "Who did {child} get the {thing} from for a trip to the {place}?",
        ),
        "the {giver}",
    ),
    "colour": Fact(
        (
            "{child} had a {colour} {thing} at the {place}.",
            "The {thing} that {child} had at the {place} was {colour}.",
            "At the {place}, the {thing} that {child} had was {colour}.",
        ),
        (
            "What colour was the {thing} that {child} had at the {place}?",
            "At the {place}, what colour was the {thing} that {child} had?",
        ),
        "it was {colour}",
    ),
    "friend": Fact(
        (
            "At the {place}, {friend} came to play with {child} and the {thing}.",
            "{friend} came to the {place} to play with {child} and the {thing}.",
        ),
        (
            "Who came to play with {child} and the {thing} at the {place}?",
            "At the {place}, who came to play with {child} and the {thing}?",
        ),
        "it was {friend}",
    ),
    "animal": Fact(
        (
            "At the {place}, {an_animal} helped {child} look for the {thing}.",
            "With {an_animal}, {child} looked for the {thing} at the {place}.",
        ),
        (
            "Which animal helped {child} look for the {thing} at the {place}?",
            "At the {place}, which animal helped {child} look for the {thing}?",
        ),
        "the {animal}",
    ),
    "spot": Fact(
        (
            "At the {place}, {child} found the {thing} {side} the {spot}.",
            "{child} found the {thing} {side} the {spot} at the {place}.",
        ),
        (
            "Where at the {place} did {child} find the {thing}?",
            "Where did {child} find the {thing} at the {place}?",
        ),
        "{side} the {spot}",
    ),
    "food": Fact(
        (
            "At the {place}, {child} sat by the {thing} and ate {a_food}.",
            "{child} ate {a_food} by the {thing} at the {place}.",
        ),
        (
            "What did {child} eat by the {thing} at the {place}?",
            "At the {place}, what did {child} eat by the {thing}?",
        ),
        "{a_food}",
    ),
    "feeling": Fact(
        (
            "On the way home from the {place} with the {thing}, {child} felt very {feeling}.",
            "{child} felt very {feeling} on the way home from the {place} with the {thing}.",
        ),
        (
            "How did {child} feel on the way home from the {place} with the {thing}?",
            "On the way home from the {place} with the {thing}, how did {child} feel?",
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
    """The one right answer in two or three words: "It was red.", "Under the tree.".

    What is looked up is never the first word, so that it is spelt, and tokenised, as it is in the story.
    """
    return _sentence_case(FACTS[fact].answer.format_map(world.names()) + ".")
