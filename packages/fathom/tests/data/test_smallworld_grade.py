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
        ("All red.", "All red."),
        ("All red.", "red"),
        ("All red.", "  RED .\n"),
        ("A kind fox.", "The kind fox."),
        ("A kind fox.", "A fox"),
        ("A kind fox.", "fox"),
        ("A tasty apple.", "An apple."),
        ("Right under the bench.", "under  the\nbench"),
        ("Red.", "red"),
    ],
)
def test_right_story_answers(answer, reply):
    assert grade(story(answer), reply)


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("All red.", ""),
        ("All red.", "."),
        ("All red.", "All"),
        ("All red.", "All blue."),
        ("All red.", "Red or blue."),
        ("All red.", "All red. All blue."),
        ("All red.", "Red, blue, green."),
        ("All red.", "Red.."),
        ("All red.", "Not red."),
        ("All red.", "All all red."),
        ("A kind fox.", "A kind"),
        ("A kind fox.", "A kind fox and a kind owl."),
        ("Right under the bench.", "Right under the table."),
        ("Right under the bench.", "Right under bench."),
        ("Right under the bench.", "Right near the bench."),
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
