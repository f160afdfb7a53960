"""The words a small world is made of: few, common, and no word in two lists.

That no word has two meanings is what makes every question answerable in one way, and what lets a test read
the world back out of a sentence.
"""

from __future__ import annotations

GIRLS = ("Anna", "Emma", "Kate", "Lily", "Lucy", "Mia", "Sara", "Zoe")
BOYS = ("Adam", "Ben", "Finn", "Jack", "Leo", "Max", "Noah", "Sam")
CHILDREN = GIRLS + BOYS
FRIENDS = ("Amy", "Bob", "Dan", "Eva", "Jane", "Kim", "Tim", "Tom")

THINGS = (
    "ball", "bell", "boat", "book", "brush", "bucket", "cup", "doll",
    "drum", "flag", "hat", "kite", "lamp", "ring", "robot", "truck",
)  # fmt: skip
PLACES = (
    "beach", "camp", "castle", "fair", "farm", "lake",
    "market", "museum", "park", "river", "school", "zoo",
)  # fmt: skip

COLOURS = ("black", "blue", "brown", "green", "pink", "red", "white", "yellow")
ANIMALS = ("bear", "cat", "dog", "duck", "fox", "goat", "mouse", "owl")
SIDES = ("behind", "near", "under")
SPOTS = ("bench", "bridge", "bush", "cart", "table", "tree")
VISITORS = ("baker", "cook", "doctor", "farmer", "king", "nurse", "sailor", "teacher")
FOODS = ("apple", "bun", "carrot", "cookie", "egg", "peach", "pear", "plum")
FEELINGS = ("brave", "calm", "glad", "happy", "lucky", "proud", "sleepy", "tired")


def with_article(noun: str) -> str:
    """ "fox" -> "a fox", "owl" -> "an owl"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """ "kite" -> "kites", "brush" -> "brushes"."""
    return noun + ("es" if noun.endswith(("sh", "ch", "s", "x")) else "s")


def counted(number: int, noun: str) -> str:
    """ "1 kite", "4 kites"."""
    return f"{number} {noun if number == 1 else plural(noun)}"
