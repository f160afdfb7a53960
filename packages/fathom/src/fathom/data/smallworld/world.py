"""One small world: a child, a thing and a place, and what is true about them.

Held out by combination: a hash of (child, thing, place) keeps about one triple in ten from training for ever.
Every question and every sentence that gives an answer away names all three, so none from a held-out world can
have been read in training, while each single word was.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from random import Random

from fathom.data.smallworld import words

HELD_OUT_ONE_IN = 10  # every tenth triple, by its hash
ATTRIBUTES = (
    words.COLOURS,
    words.ANIMALS,
    words.SIDES,
    words.SPOTS,
    words.FRIENDS,
    words.VISITORS,
    words.FOODS,
    words.FEELINGS,
)
TRIPLES = len(words.CHILDREN) * len(words.THINGS) * len(words.PLACES)
WORLDS = TRIPLES * prod(len(values) for values in ATTRIBUTES)  # every one can be drawn

Triple = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class World:
    """What is true; stories, questions and answers all read it from here."""

    child: str
    thing: str
    place: str
    colour: str  # of the thing
    animal: str  # that helped to look for the thing
    side: str  # where the thing was found: under, near or behind ...
    spot: str  # ... the tree
    friend: str  # who gives or gets in arithmetic
    visitor: str  # who came to play
    food: str
    feeling: str

    @property
    def triple(self) -> Triple:
        """(child, thing, place): what decides on which side of the split this world lies."""
        return self.child, self.thing, self.place

    def names(self) -> dict[str, str]:
        """The words that sentence templates may use, by field name."""
        girl = self.child in words.GIRLS
        return {
            "child": self.child,
            "thing": self.thing,
            "a_thing": words.with_article(self.thing),
            "things": words.plural(self.thing),
            "place": self.place,
            "colour": self.colour,
            "animal": self.animal,
            "side": self.side,
            "spot": self.spot,
            "friend": self.friend,
            "visitor": self.visitor,
            "food": self.food,
            "feeling": self.feeling,
            "He": "She" if girl else "He",
            "boy": "girl" if girl else "boy",
        }


def is_held_out(child: str, thing: str, place: str) -> bool:
    """Whether worlds with this triple are kept from training; the same on every machine, for ever."""
    digest = hashlib.blake2b(f"{child} {thing} {place}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0


@cache
def triples(held_out: bool) -> tuple[Triple, ...]:
    """Every (child, thing, place) of one side of the split, in a fixed order."""
    every = product(words.CHILDREN, words.THINGS, words.PLACES)
    return tuple(t for t in every if is_held_out(*t) == held_out)


def draw(rng: Random, *, held_out: bool) -> World:
    """A world of one side of the split; each attribute is uniform and independent of all others."""
    return World(*rng.choice(triples(held_out)), *(rng.choice(values) for values in ATTRIBUTES))
