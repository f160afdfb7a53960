"""Grading is strict: one right answer, in its own words, and nothing beside it."""

from __future__ import annotations

import pytest

from fathom.data.smallworld import Prompt, grade

USER = [{"role": "user", "content": "..."}]


def story(answer: str) -> Prompt:
    return Prompt(USER, answer, "story")


def arithmetic(answer: str) -> Prompt:
    return Prompt(USER, answer, "arithmetic")


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("Red.", "Red."),
        ("Red.", "red"),
        ("Red.", "  RED .\n"),
        ("The fox.", "A fox."),
        ("The fox.", "fox"),
        ("An apple.", "the apple"),
        ("Under the bench.", "under  the\nbench"),
    ],
)
def test_right_story_answers(answer, reply):
    assert grade(story(answer), reply)


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("Red.", ""),
        ("Red.", "."),
        ("Red.", "Blue."),
        ("Red.", "Red or blue."),
        ("Red.", "Red. Blue."),
        ("Red.", "Red, blue, green."),
        ("Red.", "Red.."),
        ("Red.", "Not red."),
        ("The fox.", "The"),
        ("The fox.", "The fox and the owl."),
        ("Under the bench.", "Under the table."),
        ("Under the bench.", "Under bench."),
        ("Under the bench.", "Near the bench."),
    ],
)
def test_wrong_story_answers(answer, reply):
    assert not grade(story(answer), reply)


@pytest.mark.parametrize(
    "reply",
    [
        "7",
        "7.",
        " 7\n",
        "At the park, Mia had 3 + 4 = 7 kites.",
        "3+4=7",
        "The answer is 7.",
        "3 + 4 = 7. It is 7.",
    ],
)
def test_right_numbers(reply):
    assert grade(arithmetic("7"), reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "seven",
        "8",
        "17",
        "70",
        "07",
        "-7",
        "7.5",
        "7,5",
        "7e3",
        "7/2",
        "7 or 8",
        "8 7",
        "1 2 3 4 5 6 7",
        "3 + 4",
        "3 + 4 = 8",
        "3 + 4 = 8 = 7",
        "3 + 4 = 7, 5 + 3 = 8",
        "3 + 4 = 6. No, 3 + 4 = 7.",
        "7 = 3 + 4",
        "3 + 4 = 7 kites and 8 balls",
        "= ",
    ],
)
def test_wrong_numbers(reply):
    assert not grade(arithmetic("7"), reply)


def test_many_guesses_never_pay():
    every = " ".join(map(str, range(11)))
    assert not any(grade(arithmetic(str(n)), every) for n in range(11))
