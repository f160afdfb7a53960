"""Stories about one world: an opening, a few scenes in any order, an ending.

A scene states one fact or two; its fillers, like opening and ending, never name a value that a question could ask
for, so a story holds exactly one candidate for every answer. That any scene can be the last one before a question
matters: what lies near is learnt first, and what was learnt there then serves at a distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fathom.data.smallworld.facts import FACTS, state
from fathom.data.smallworld.world import World

FILLERS = {
    "opening": (
        "One day, {child} took {a_thing} to the {place}.",
        "Once a little {boy} named {child} went to the {place} with {a_thing}.",
        "This is a story about {child} and {a_thing} at the {place}.",
        "{child} woke up early and took {a_thing} to the {place}.",
    ),
    "play": (
        "{He} ran and jumped and had a lot of fun.",
        "{He} sang a song and danced all around.",
        "{He} made up a new game.",
    ),
    "game": (
        "They took turns and had a lot of fun.",
        "They ran and laughed until they had to rest.",
        "They made up a new game and played it again and again.",
    ),
    "lost": (
        "But then {child} could not see the {thing}.",
        "Then {child} looked around, and the {thing} was gone!",
        '"Oh no, where is my {thing}?" said {child}.',
    ),
    "search": (
        "{He} looked high and low.",
        "{He} looked here and there, but it was not easy.",
        "{He} did not give up.",
    ),
    "back": (
        "They looked high and low, and soon they saw it.",
        "Soon they saw it, and they both jumped for joy.",
        "They did not stop until they had it back.",
    ),
    "hungry": (
        "After a while, {child} wanted a snack.",
        "Then it was time to eat.",
        "All that fun called for some food.",
    ),
    "ending": (
        "Then it was time to go home.",
        "What a good day that was!",
        "It was the best day of all.",
        "{child} told everyone at home about it.",
    ),
}

# How a fact is led up to and what follows it; a thing is lost once, so that animal and spot share a scene.
BEFORE = {"animal": ("lost",), "spot": ("lost", "search"), "food": ("hungry",)}
AFTER = {"animal": ("back",), "visitor": ("game",)}
LOST = ("lost", "animal", "spot")


@dataclass(frozen=True, slots=True)
class Story:
    """A told world: its text, the facts it states in order, and the sentences that state them."""

    text: str
    facts: tuple[str, ...]
    bearing: tuple[str, ...]


def tell(world: World, rng: Random, facts: int = 3) -> Story:
    """A story that states `facts` facts of `world`, any of them in any order; no others can be asked about."""
    chosen = rng.sample(tuple(FACTS), facts)
    if facts < 3: return _written(chosen, world, rng)
    beats = ["opening"]
    both = {"animal", "spot"} <= set(chosen)
    for fact in chosen:
        if both and fact in ("animal","spot"):
            if "lost" not in beats: beats += LOST
            continue
        beats += (*BEFORE.get(fact, ()), fact, *AFTER.get(fact, ()))
    if rng.random() < 0.5: beats.append("ending")
    return _written(beats, world, rng)


def _written(beats: list[str], world: World, rng: Random) -> Story:
    names = world.names()
    sentences = [
        state(world, beat, rng) if beat in FACTS else rng.choice(FILLERS[beat]).format_map(names)
        for beat in beats
    ]
    facts = tuple(beat for beat in beats if beat in FACTS)
    bearing = tuple(s for beat, s in zip(beats, sentences, strict=True) if beat in FACTS)
    return Story(" ".join(sentences), facts, bearing)
