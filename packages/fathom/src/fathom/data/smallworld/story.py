"""Stories of 50 to 95 words about one world, and notes of a sentence or two.

A story is an opening, three facts told in any order, and an ending. Fillers never name a value that can be
asked for, so a text holds exactly one candidate for every answer. Notes, and facts in any order, are for the
learner: what lies near its question is learnt first, and serves at a distance then.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from random import Random

from fathom.data.smallworld.facts import FACTS, state
from fathom.data.smallworld.world import World

STORY_FACTS = 3
FILLERS = {
    "opening": (
        "One day, {child} took {a_thing} to the {place}.",
        "This is a story about {child} and {a_thing} at the {place}.",
        "Once a little {boy} named {child} went to the {place} with {a_thing}.",
    ),
    "game": (
        "They took turns and had a lot of fun.",
        "They made up a new game and laughed.",
    ),
    "lost": (
        "Then {child} looked around, and the {thing} was gone!",
        '"Oh no, where is my {thing}?" said {child}.',
    ),
    "search": (
        "{He} looked here and there.",
        "{He} looked high and low.",
    ),
    "back": (
        "Soon they saw it, and they both jumped for joy.",
        "They did not stop until they had it back.",
    ),
    "hungry": (
        "After a while, {child} wanted a snack.",
        "Then it was time to eat.",
    ),
    "ending": (
        "Then it was time to go home.",
        "What a good day that was!",
        "{child} told everyone at home about it.",
    ),
}

SCENES = {
    "colour": ("colour",),
    "feeling": ("feeling",),
    "visitor": ("visitor", "game"),
    "food": ("hungry", "food"),
    "animal": ("lost", "animal", "back"),
    "spot": ("lost", "search", "spot"),
}
ANIMAL_AND_SPOT = ("lost", "animal", "spot")  # a thing is lost once


@dataclass(frozen=True, slots=True)
class Story:
    """A told world: its text, the facts it states in order, and the sentences that state them."""

    text: str
    facts: tuple[str, ...]
    bearing: tuple[str, ...]


def tell(world: World, rng: Random) -> Story:
    """A story about `world` that states STORY_FACTS facts; no others can be asked about."""
    scenes = [SCENES[fact] for fact in rng.sample(tuple(FACTS), STORY_FACTS)]
    if SCENES["animal"] in scenes and SCENES["spot"] in scenes:
        scenes.remove(SCENES["spot"])
        scenes[scenes.index(SCENES["animal"])] = ANIMAL_AND_SPOT
    return _written(["opening", *chain.from_iterable(scenes), "ending"], world, rng)


def note(world: World, rng: Random, facts: int) -> Story:
    """`facts` facts of `world`, a sentence for each and nothing else."""
    return _written(rng.sample(tuple(FACTS), facts), world, rng)


def _written(beats: list[str], world: World, rng: Random) -> Story:
    names = world.names()
    sentences = [
        state(world, beat, rng) if beat in FACTS else rng.choice(FILLERS[beat]).format_map(names)
        for beat in beats
    ]
    facts = tuple(beat for beat in beats if beat in FACTS)
    bearing = tuple(s for beat, s in zip(beats, sentences, strict=True) if beat in FACTS)
    return Story(" ".join(sentences), facts, bearing)
