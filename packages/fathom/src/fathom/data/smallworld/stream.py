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
from fathom.data.smallworld.game import play
from fathom.data.smallworld.prompt import Prompt
from fathom.data.smallworld.story import note, tell
from fathom.data.smallworld.world import World, draw

T = TypeVar("T")
Chat = list[dict[str, str]]

# Reading questions teach a small model to look a fact up in the text before it; they dominate.
DOCUMENT_SHARES = {
    "story questions": 0.36,
    "note questions": 0.14,
    "story": 0.05,
    "arithmetic": 0.1,
    "game": 0.35,
}
HELD_OUT_SHARES = {kind: s for kind, s in DOCUMENT_SHARES.items() if kind != "game"}  # it names no triple
CHAT_SHARES = {"question": 0.2, "questions": 0.35, "note questions": 0.15, "arithmetic": 0.2, "tell": 0.1}
QUESTIONS = {1: 0.15, 2: 0.15, 3: 0.7}  # after one story
MOST_NOTE_FACTS = 2
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
    kind = _pick(HELD_OUT_SHARES if held_out else DOCUMENT_SHARES, rng)
    if kind == "arithmetic":
        problem = pose(world, rng)
        return _asked(problem.question, problem.working)
    if kind == "game":
        return play(world, rng)
    text, facts = _text_to_ask(world, rng, kind)
    if kind == "story":
        return text
    return "\n".join([text, *(_asked(ask(world, fact, rng), answer(world, fact)) for fact in facts)])


def _text_to_ask(world: World, rng: Random, kind: str) -> tuple[str, list[str]]:
    """A story or a note, and its facts in the order in which they are asked."""
    if "note" in kind:
        story = note(world, rng, rng.randint(1, MOST_NOTE_FACTS))
        return story.text, rng.sample(story.facts, len(story.facts))
    story = tell(world, rng)
    return story.text, rng.sample(story.facts, 1 if kind == "question" else _pick(QUESTIONS, rng))


def _asked(question: str, reply: str) -> str:
    return f"Question: {question}\nAnswer: {reply}"


def _chat(world: World, rng: Random, held_out: bool) -> Chat:
    chat = _turn("system", SYSTEM) if rng.random() < SYSTEM_SHARE else []
    kind = _pick(CHAT_SHARES, rng)
    if kind == "arithmetic":
        problem = pose(world, rng)
        return chat + _turn("user", problem.question) + _turn("assistant", problem.working)
    if kind == "tell":
        request = _request(world, rng, held_out)
        return chat + _turn("user", request) + _turn("assistant", tell(world, rng).text)
    text, facts = _text_to_ask(world, rng, kind)
    for i, fact in enumerate(facts):
        question = ask(world, fact, rng)
        chat += _turn("user", question if i else _about(text, question))
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
    return template.format_map(world.names())
