"""smallworld's streams: reproducible, of the kinds and shares they state, each answer the right one."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from fathom.data.smallworld import Prompt, chats, documents, grade, prompts, words
from fathom.data.smallworld.arithmetic import LARGEST, pose
from fathom.data.smallworld.facts import FACTS, answer, ask, state
from fathom.data.smallworld.game import FEWEST, MOST
from fathom.data.smallworld.stream import CHAT_SHARES, DOCUMENT_SHARES, PROMPT_SHARES, QUESTIONS
from fathom.data.smallworld.world import draw

STREAMS = [documents, chats, prompts]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("held_out", [False, True])
def test_a_longer_stream_begins_with_the_shorter(stream, held_out):
    assert list(stream(7, 20, held_out=held_out)) == list(stream(7, 60, held_out=held_out))[:20]
    assert len(list(stream(7, 60, held_out=held_out))) == 60


@pytest.mark.parametrize("stream", STREAMS)
def test_seeds_and_sides_give_other_items(stream):
    first = list(stream(0, 30))
    assert first != list(stream(1, 30))
    assert first != list(stream(0, 30, held_out=True))


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_are_read_as_they_are_consumed(stream):
    assert len(list(islice(stream(0, 10**12), 3))) == 3
    assert list(stream(0, 0)) == []


def test_a_stream_is_the_same_everywhere():
    assert next(documents(1, 1)) == (
        "Leo said: jolly baker, tasty peach, right near the tree.\n"
        "Bob said: right near the tree, tasty peach, jolly baker.\n"
        "Then both said: right near the tree, jolly baker, tasty peach."
    )


def test_a_game_says_the_same_items_three_times_and_is_never_held_out():
    games = [text.split("\n") for text in documents(2, 400) if kind_of(text) == "game"]
    for lines in games:
        items = [sorted(line.partition(": ")[2].rstrip(".").split(", ")) for line in lines]
        assert len(lines) == 3 and items[0] == items[1] == items[2]
        assert FEWEST <= len(items[0]) <= MOST
    assert not [text for text in documents(2, 400, held_out=True) if kind_of(text) == "game"]


def kind_of(text: str) -> str:
    first, *rest = text.split("\n")
    if first.startswith("Question: "):
        return "arithmetic"
    if not rest:
        return "story"
    if " said: " in first:
        return "game"
    return "story questions" if len(first.split()) >= 50 else "note questions"


def test_documents_have_the_stated_shares_and_one_to_three_questions():
    texts = list(documents(2, 4000))
    counts = Counter(map(kind_of, texts))
    for kind, share in DOCUMENT_SHARES.items():
        assert counts[kind] / len(texts) == pytest.approx(share, abs=0.03)
    asked = Counter(t.count("\nQuestion: ") for t in texts if kind_of(t) == "story questions")
    for number, share in QUESTIONS.items():
        assert asked[number] / asked.total() == pytest.approx(share, abs=0.05)


def test_vocabulary_is_small_and_every_word_common():
    counts = Counter(w for text in documents(2, 5000) for w in re.findall(r"[a-z]+", text.lower()))
    assert 200 <= len(counts) <= 600
    assert min(counts.values()) >= 30


def kind_of_chat(turns: list[dict[str, str]]) -> str:
    text, _, question = turns[0]["content"].rpartition("\n")
    if not text:
        return "tell" if " a story about " in question else "arithmetic"
    if len(text.split()) < 50:
        return "note questions"
    return "question" if len(turns) == 2 else "questions"


def test_chats_alternate_and_have_the_stated_shares():
    counts: Counter[str] = Counter()
    for chat in chats(2, 4000):
        turns = [m for m in chat if m["role"] != "system"]
        assert [m["role"] for m in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert all(m["content"] for m in chat)
        counts[kind_of_chat(turns)] += 1
    alone = CHAT_SHARES["questions"] * QUESTIONS[1]  # "questions" may be one
    for kind, share in (CHAT_SHARES | {"question": CHAT_SHARES["question"] + alone}).items():
        expected = share - alone if kind == "questions" else share
        assert counts[kind] / 4000 == pytest.approx(expected, abs=0.03)


def test_a_requested_story_is_about_what_was_requested():
    told = 0
    for chat in chats(4, 2000):
        request = re.fullmatch(
            r"\w+(?: me)? a story about (\w+) and an? (\w+)(?: at the (\w+))?\.", chat[-2]["content"]
        )
        if request:
            told += 1
            assert all(word in chat[-1]["content"] for word in request.groups() if word)
    assert told > 100


def test_prompts_have_the_stated_shares_and_their_own_answer_is_right():
    items = list(prompts(2, 3000))
    counts = Counter(prompt.kind for prompt in items)
    for kind, share in PROMPT_SHARES.items():
        assert counts[kind] / len(items) == pytest.approx(share, abs=0.03)
    for prompt in items:
        assert grade(prompt, prompt.answer)
        assert [m["role"] for m in prompt.messages] == ["user"]


def test_the_answer_stands_in_the_story_and_is_short():
    for prompt in prompts(3, 2000):
        if prompt.kind == "story":
            story = prompt.messages[0]["content"].rsplit("\n", 1)[0].lower()
            assert prompt.answer.removesuffix(".").lower() in story
            assert 2 <= len(prompt.answer.split()) <= 4


@pytest.mark.parametrize("fact", FACTS)
def test_every_sentence_holds_the_answer_and_no_question_does(fact):
    rng = Random(3)
    for _ in range(200):
        world = draw(rng, held_out=False)
        plain = answer(world, fact).removesuffix(".").lower()
        assert re.search(rf"\b{plain}\b", state(world, fact, rng).lower())
        assert not re.search(rf"\b{plain}\b", ask(world, fact, rng).lower())


def test_working_is_right_and_numbers_stay_small():
    rng = Random(0)
    results = set()
    for _ in range(2000):
        problem = pose(draw(rng, held_out=False), rng)
        first, sign, second, result = re.search(r"(\d+) ([+-]) (\d+) = (\d+)", problem.working).groups()
        assert eval(f"{first} {sign} {second}") == int(result) == problem.result
        assert re.findall(r"\d+", problem.question) == [first, second]
        assert all(1 <= int(n) <= LARGEST for n in (first, second, result))
        for number, noun in re.findall(r"(\d+) (?:more )?([a-z]+)", f"{problem.question} {problem.working}"):
            assert noun in (words.THINGS if number == "1" else map(words.plural, words.THINGS))
        results.add(problem.result)
    assert results == set(range(1, LARGEST + 1))


def test_the_working_is_a_right_reply():
    worked = [chat for chat in chats(5, 1000) if " = " in chat[-1]["content"]]
    assert len(worked) > 100
    for chat in worked:
        result = int(chat[-1]["content"].rsplit("= ", 1)[1].split()[0])
        assert grade(Prompt(chat[:-1], str(result), "arithmetic"), chat[-1]["content"])
        assert not grade(Prompt(chat[:-1], str(result + 1), "arithmetic"), chat[-1]["content"])
