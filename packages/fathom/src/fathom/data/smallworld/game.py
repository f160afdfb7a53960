"""A memory game: a child says what is there, a friend and then both say it again in another order.

Nothing but looking up makes its second and third line predictable, and a third of their words are looked up.
In stories and questions it is one word in thirty, too rare for a small model to find out within minutes that
looking up is what it should do. Measured: docs/results/2026-11-22-memory-game.md.
"""

from __future__ import annotations

from random import Random

from fathom.data.smallworld.world import World

ITEMS = (
    "all {colour}",
    "jolly {visitor}",
    "kind {animal}",
    "right {side} the {spot}",
    "tasty {food}",
    "very {feeling}",
)  # each value behind the word that it follows in stories and answers
FEWEST, MOST = 2, 5  # items of one game
AGAIN = ("{friend} said", "Then both said")


def play(world: World, rng: Random) -> str:
    """Three lines with the same items, each in its own order. No thing and no place is named."""
    items = [item.format_map(world.names()) for item in rng.sample(ITEMS, rng.randint(FEWEST, MOST))]
    lines = [f"{world.child} said: {', '.join(items)}."]
    for who in AGAIN:
        rng.shuffle(items)
        lines.append(f"{who.format_map(world.names())}: {', '.join(items)}.")
    return "\n".join(lines)
