"""Stories of 60 to 90 words about one world: a plot says which facts are told, and fillers join them.

Fillers never name a value that a question could ask for, so a story holds exactly one candidate for every
answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fathom.data.smallworld.facts import FACTS, state
from fathom.data.smallworld.world import World

FILLERS = {
    "opening": (
        "One day, {child} wanted to go out and play.",
        "Once there was a little {boy} named {child}.",
        "{child} was a little {boy} who loved to play.",
        "{child} woke up early and wanted to have some fun.",
        "This is a story about a {boy} named {child}.",
        "There was once a good little {boy}, and {he} was called {child}.",
    ),
    "thanks": (
        '"Thank you so much!" said {child}.',
        "{child} gave a big smile and said thank you.",
        '"I will take good care of it," said {child}.',
    ),
    "play": (
        "{He} played and played for a long time.",
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
    "found": (
        "They looked high and low, and soon they saw it.",
        "Soon they saw it, and they both jumped for joy.",
        "They did not stop until they had it back.",
    ),
    "joy": (
        '"There it is!" {he} said with a big smile.',
        "{He} laughed and held it with both hands.",
        "How good it was to have it back!",
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
    "night": (
        "That night, {he} had a good dream.",
        "It was a day to remember.",
        "At home, {he} told everyone about it.",
    ),
}

PLOTS = (
    ("opening", "colour", "lost", "animal", "spot", "ending"),
    ("opening", "weather", "lost", "search", "spot", "feeling"),
    ("opening", "weather", "friend", "game", "food", "ending"),
    ("opening", "giver", "colour", "friend", "feeling"),
    ("opening", "weather", "colour", "hungry", "food", "night"),
    ("opening", "giver", "thanks", "lost", "animal", "spot"),
    ("opening", "giver", "friend", "hungry", "food", "ending"),
    ("opening", "weather", "lost", "animal", "found", "feeling"),
    ("colour", "friend", "lost", "search", "spot", "joy"),
    ("opening", "giver", "lost", "animal", "found", "food"),
    ("opening", "colour", "play", "hungry", "food", "feeling"),
    ("weather", "play", "lost", "animal", "spot", "joy"),
)


@dataclass(frozen=True, slots=True)
class Story:
    """A told world: its text, the facts it states in order, and the sentences that state them."""

    text: str
    facts: tuple[str, ...]
    bearing: tuple[str, ...]


def tell(world: World, rng: Random) -> Story:
    """A story about `world`; only `Story.facts` can be asked about it."""
    plot = rng.choice(PLOTS)
    names = world.names()
    sentences = [
        state(world, beat, rng) if beat in FACTS else rng.choice(FILLERS[beat]).format_map(names)
        for beat in plot
    ]
    facts = tuple(beat for beat in plot if beat in FACTS)
    bearing = tuple(s for beat, s in zip(plot, sentences, strict=True) if beat in FACTS)
    return Story(" ".join(sentences), facts, bearing)
