"""smallworld's words and worlds: how many, split how, drawn how."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import FrozenInstanceError, fields
from itertools import combinations
from random import Random

import pytest

from fathom.data.smallworld import TRIPLES, WORLDS, words
from fathom.data.smallworld.facts import FACTS
from fathom.data.smallworld.story import ANIMAL_AND_SPOT, FILLERS, SCENES, STORY_FACTS, note, tell
from fathom.data.smallworld.world import ATTRIBUTES, World, draw, is_held_out, triples

LISTS = (words.CHILDREN, words.THINGS, words.PLACES, *ATTRIBUTES)


def test_there_are_at_least_two_hundred_thousand_worlds():
    product = 1
    for values in LISTS:
        product *= len(set(values))
    assert product == WORLDS
    assert WORLDS >= 200_000
    assert len(LISTS) == len(fields(World))


def test_no_word_has_two_meanings():
    for one, other in combinations([*LISTS, tuple(map(words.plural, words.THINGS))], 2):
        assert not set(one) & set(other)


def test_every_triple_is_on_one_side_and_a_tenth_is_held_out():
    training, held_out = set(triples(False)), set(triples(True))
    assert not training & held_out
    assert len(training | held_out) == TRIPLES
    assert 0.09 <= len(held_out) / TRIPLES <= 0.11


def test_the_split_never_changes():
    # Another hash would move these, and old models would be asked what they have read.
    assert triples(True)[:2] == (("Anna", "bell", "zoo"), ("Anna", "boat", "lake"))
    assert triples(True)[-1] == ("Sam", "truck", "market")
    assert is_held_out("Mia", "kite", "park")
    assert not is_held_out("Mia", "kite", "beach")


def test_every_word_is_on_both_sides():
    for held_out in (False, True):
        child, thing, place = (set(column) for column in zip(*triples(held_out), strict=True))
        assert (child, thing, place) == (set(words.CHILDREN), set(words.THINGS), set(words.PLACES))


@pytest.mark.parametrize("held_out", [False, True])
def test_values_are_uniform_so_that_no_prior_gives_the_answer(held_out):
    rng = Random(0)
    drawn = [draw(rng, held_out=held_out) for _ in range(4000)]
    assert {world.triple for world in drawn} <= set(triples(held_out))
    for field, values in zip([f.name for f in fields(World)][3:], ATTRIBUTES, strict=True):
        counts = Counter(getattr(world, field) for world in drawn)
        expected = len(drawn) / len(values)
        assert set(counts) == set(values)
        assert max(abs(n - expected) for n in counts.values()) < 5 * expected**0.5  # five standard deviations


def test_a_world_is_frozen():
    world = draw(Random(0), held_out=False)
    with pytest.raises(FrozenInstanceError):
        world.colour = "red"


def test_forms_of_words():
    assert [words.with_article(w) for w in ("fox", "owl", "apple", "egg")] == [
        "a fox",
        "an owl",
        "an apple",
        "an egg",
    ]
    assert [words.plural(w) for w in ("kite", "brush", "box")] == ["kites", "brushes", "boxes"]
    assert [words.counted(n, "kite") for n in (1, 2, 10)] == ["1 kite", "2 kites", "10 kites"]


def one_candidate_for_each_answer(world: World, text: str) -> bool:
    found = set(re.findall(r"\w+", text))
    true = {getattr(world, f.name) for f in fields(World)}
    return all(len(found & set(values)) <= 1 and found & set(values) <= true for values in LISTS)


def test_stories_are_short_and_hold_one_candidate_for_each_answer():
    rng = Random(1)
    for _ in range(3000):
        world = draw(rng, held_out=False)
        story = tell(world, rng)
        assert 50 <= len(story.text.split()) <= 95, story.text
        assert len(set(story.facts)) == len(story.bearing) == STORY_FACTS
        assert one_candidate_for_each_answer(world, story.text), story.text


def test_notes_hold_their_facts_and_nothing_else():
    rng = Random(1)
    for facts in (1, 2):
        world = draw(rng, held_out=False)
        told = note(world, rng, facts)
        assert len(told.facts) == facts
        assert told.text == " ".join(told.bearing)
        assert one_candidate_for_each_answer(world, told.text), told.text


def test_every_fact_is_told_equally_often_and_at_every_place():
    rng = Random(2)
    order = [tell(draw(rng, held_out=False), rng).facts for _ in range(3000)]
    for place in range(STORY_FACTS):
        counts = Counter(facts[place] for facts in order)
        assert set(counts) == set(FACTS)
        assert min(counts.values()) > 0.6 * len(order) / len(FACTS)


def test_scenes_are_made_of_known_beats_and_use_every_filler():
    beats = {beat for scene in (*SCENES.values(), ANIMAL_AND_SPOT) for beat in scene} | {"opening", "ending"}
    assert beats == set(FACTS) | set(FILLERS)
    assert all(fact in scene for fact, scene in SCENES.items())
