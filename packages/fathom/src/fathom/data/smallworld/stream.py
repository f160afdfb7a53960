"""Endless seeded streams of one kind each: pre-training text, chats, and prompts that can be graded.

Each stream depends on its seed alone, never on `count`: a longer stream begins with the shorter one. Shares
are of items, not of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import TypeVar

from fathom.data.smallworld.arithmetic import pose
from fathom.data.smallworld.facts import answer, ask
from fathom.data.smallworld.prompt import Prompt
from fathom.data.smallworld.story import tell
from fathom.data.smallworld.words import with_article
from fathom.data.smallworld.world import World, draw

from fathom.data.smallworld import words as W
WORD_LISTS=(W.CHILDREN,W.FRIENDS,W.THINGS,W.PLACES,W.COLOURS,W.ANIMALS,W.SPOTS,W.FOODS,W.VISITORS,W.FEELINGS)
T = TypeVar("T")
Chat = list[dict[str, str]]

# Reading questions teach a small model to look a fact up in the text before it; they dominate.
DOCUMENT_SHARES = {"questions": 0.65, "story": 0.05, "arithmetic": 0.1, "echo": 0.2}
# Facts in a text with questions: short ones teach to look up at all, for there the answer lies near.
FACTS_TOLD = {1: 0.25, 2: 0.25, 3: 0.5}
MOST_QUESTIONS = 3  # after one story
CHAT_SHARES = {"question": 0.5, "two questions": 0.2, "arithmetic": 0.2, "tell": 0.1}
PROMPT_SHARES = {"story": 0.8, "arithmetic": 0.2}
SYSTEM_SHARE = 0.05  # of chats: with a system message
SHORT_REQUEST_SHARE = 0.5  # of training requests for a story: without the place, as people ask
SYSTEM = "You tell little stories and answer questions about them."
REQUESTS = (
    "Tell me a story about {child} and {a_thing} at the {place}.",
    "Write a story about {child} and {a_thing} at the {place}.",
)
SHORT_REQUESTS = (
    "Tell me a story about {child} and {a_thing}.",
    "Write a story about {child} and {a_thing}.",
)


def documents(seed: int, count: int, *, held_out: bool = False) -> Iterator[str]:
    """Pre-training text: stories with questions and answers, plain stories, problems (DOCUMENT_SHARES)."""
    return _stream("documents", seed, count, held_out, _document)


def chats(seed: int, count: int, *, held_out: bool = False) -> Iterator[Chat]:
    """Conversations as lists of {"role", "content"}; the last message is the assistant's (CHAT_SHARES)."""
    return _stream("chats", seed, count, held_out, _chat)


def prompts(seed: int, count: int, *, held_out: bool = False) -> Iterator[Prompt]:
    """Single questions for `grade`, four about stories to each one of arithmetic (PROMPT_SHARES)."""
    return _stream("prompts", seed, count, held_out, _prompt)


def _stream(
    kind: str, seed: int, count: int, held_out: bool, make: Callable[[World, Random, bool], T]
) -> Iterator[T]:
    rng = Random(f"smallworld {kind} {seed} {held_out}")  # text seeds are hashed the same way everywhere

    def endless() -> Iterator[T]:
        while True:
            yield make(draw(rng, held_out=held_out), rng, held_out)

    return islice(endless(), count)


def _pick(shares: dict[T, float], rng: Random) -> T:
    return rng.choices(tuple(shares), tuple(shares.values()))[0]


def _document(world: World, rng: Random, held_out: bool) -> str:
    kind = _pick(DOCUMENT_SHARES, rng)
    if kind == "arithmetic":
        problem = pose(world, rng)
        return _asked(problem.question, problem.working)
    if kind == "echo":
        return _echo(world, rng)
    story = tell(world, rng, _pick(FACTS_TOLD, rng) if kind == "questions" else 3)
    if kind == "story":
        return story.text
    asked = rng.sample(story.facts, min(MOST_QUESTIONS, len(story.facts)))
    return "\n".join([story.text, *(_asked(ask(world, fact, rng), answer(world, fact)) for fact in asked)])


def _echo(world: World, rng: Random) -> str:
    listed = " ".join(rng.choice(rng.choice(WORD_LISTS)) for _ in range(rng.randint(6, 14)))
    return f"{world.child} said: {listed}.\n{world.friend} said: {listed}."


def _asked(question: str, reply: str) -> str:
    return f"Question: {question}\nAnswer: {reply}"


def _chat(world: World, rng: Random, held_out: bool) -> Chat:
    chat = _turn("system", SYSTEM) if rng.random() < SYSTEM_SHARE else []
    kind = _pick(CHAT_SHARES, rng)
    if kind == "arithmetic":
        problem = pose(world, rng)
        return chat + _turn("user", problem.question) + _turn("assistant", problem.working)
    story = tell(world, rng)
    if kind == "tell":
        return chat + _turn("user", _request(world, rng, held_out)) + _turn("assistant", story.text)
    asked = rng.sample(story.facts, 2 if kind == "two questions" else 1)
    for i, fact in enumerate(asked):
        question = ask(world, fact, rng)
        chat += _turn("user", question if i else _about(story.text, question))
        chat += _turn("assistant", answer(world, fact))
    return chat


def _prompt(world: World, rng: Random, held_out: bool) -> Prompt:
    if _pick(PROMPT_SHARES, rng) == "arithmetic":
        problem = pose(world, rng)
        return Prompt(_turn("user", problem.question), str(problem.result), "arithmetic")
    story = tell(world, rng)
    fact = rng.choice(story.facts)
    return Prompt(_turn("user", _about(story.text, ask(world, fact, rng))), answer(world, fact), "story")


def _turn(role: str, content: str) -> Chat:
    return [{"role": role, "content": content}]


def _about(story: str, question: str) -> str:
    return f"{story}\n{question}"


def _request(world: World, rng: Random, held_out: bool) -> str:
    short = not held_out and rng.random() < SHORT_REQUEST_SHARE
    template = rng.choice(SHORT_REQUESTS if short else REQUESTS)
    return template.format_map(world.names() | {"a_thing": with_article(world.thing)})
