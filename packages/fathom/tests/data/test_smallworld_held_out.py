"""The proof that no held-out question or answer-bearing sentence occurs in training text.

1. Every template that asks for, states or works out an answer names child, thing and place, so its triple can
   be read back from the sentence alone.
2. Training draws only training triples, and no triple is on both sides (test_smallworld_world.py).

So a sentence of one side cannot be one of the other. Comparing large samples word by word stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from random import Random

import pytest

from fathom.data.smallworld import chats, documents, prompts, words
from fathom.data.smallworld.arithmetic import DIFFERENCES, SUMS, pose
from fathom.data.smallworld.facts import FACTS, ask
from fathom.data.smallworld.story import tell
from fathom.data.smallworld.words import counted
from fathom.data.smallworld.world import Triple, draw, triples

CHILD = {child.lower(): child for child in words.CHILDREN}
SINGULAR = {words.plural(thing): thing for thing in words.THINGS} | {thing: thing for thing in words.THINGS}
SENTENCE = re.compile(r"(?<=[.?!])\s+")


def sentences(text: str) -> list[str]:
    """Normalised sentences: one space, no label before a question or an answer, lower case."""
    plain = re.sub(r"^(Question|Answer): ", "", text, flags=re.MULTILINE)
    return [" ".join(s.split()).lower() for s in SENTENCE.split(plain)]


def read_triple(sentence: str) -> Triple | None:
    """The (child, thing, place) that a sentence names, None unless it names exactly one of each."""
    found = set(re.findall(r"[a-z]+", sentence.lower()))
    child = {CHILD[w] for w in found if w in CHILD}
    thing = {SINGULAR[w] for w in found if w in SINGULAR}
    place = found & set(words.PLACES)
    if len(child) == len(thing) == len(place) == 1:
        return child.pop(), thing.pop(), place.pop()
    return None


def templates() -> Iterator[str]:
    """Every sentence that asks for, states or works out an answer."""
    for fact in FACTS.values():
        yield from fact.sentences
        yield from fact.questions
    for given, asked, working in SUMS + DIFFERENCES:
        yield from SENTENCE.split(given)
        yield from (asked, working)


@pytest.mark.parametrize("template", list(templates()))
def test_the_triple_can_be_read_back_from_every_template(template):
    world = draw(Random(0), held_out=False)
    every = list(product(words.CHILDREN, words.THINGS, words.PLACES))
    for child, thing, place in every[::13]:  # 13 divides none of the lengths: every word takes part
        names = replace(world, child=child, thing=thing, place=place).names()
        names |= {"a": counted(1, thing), "b": counted(2, thing), "more": counted(3, f"more {thing}")}
        names |= {"c": counted(4, thing), "x": "1", "y": "2"}
        assert read_triple(template.format_map(names)) == (child, thing, place)


def training_text() -> Iterator[str]:
    yield from documents(0, 8000)
    for chat in chats(0, 4000):
        yield from (message["content"] for message in chat)
    for prompt in prompts(0, 4000):
        yield from (message["content"] for message in prompt.messages)


@pytest.fixture(scope="module")
def training() -> set[str]:
    return {sentence for text in training_text() for sentence in sentences(text)}


def test_training_sentences_name_training_triples_only(training):
    held_out = set(triples(True))
    read = {triple for sentence in training if (triple := read_triple(sentence))}
    assert len(read) > 0.95 * len(triples(False))
    assert not read & held_out


def held_out_sentences() -> Iterator[str]:
    """What must never have been read: questions, sentences that state an asked fact, problems and working."""
    rng = Random(5)
    for _ in range(4000):
        world = draw(rng, held_out=True)
        story, problem = tell(world, rng), pose(world, rng)
        yield from sentences(" ".join(story.bearing))
        yield from (sentences(ask(world, fact, rng))[0] for fact in story.facts)
        yield from sentences(f"{problem.question} {problem.working}")


def test_no_held_out_question_or_answer_bearing_sentence_was_in_training(training):
    kept = set(held_out_sentences())
    assert len(kept) > 10_000
    assert not kept & training


def test_no_held_out_user_turn_was_in_training():
    def user_turns(stream: Iterable[list[dict[str, str]]]) -> set[str]:
        return {m["content"].lower() for chat in stream for m in chat if m["role"] == "user"}

    read = user_turns(chats(1, 5000)) | user_turns(p.messages for p in prompts(1, 5000))
    kept = user_turns(chats(1, 2000, held_out=True)) | user_turns(
        p.messages for p in prompts(1, 2000, held_out=True)
    )
    assert not kept & read


def test_held_out_streams_ask_only_about_held_out_triples():
    held_out = set(triples(True))
    for prompt in prompts(3, 500, held_out=True):
        question = sentences(prompt.messages[-1]["content"])[-1]
        assert read_triple(question) in held_out
    for text in documents(3, 500, held_out=True):
        read = {triple for sentence in sentences(text) if (triple := read_triple(sentence))}
        assert len(read) == 1
        assert read <= held_out


def test_the_comparison_can_fail(training):
    """Other training text does repeat sentences, so an empty intersection above means something."""
    again = {s for text in documents(99, 4000) for s in sentences(text) if read_triple(s)}
    assert again & training
