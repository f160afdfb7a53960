"""Tool calls whatever the tokens are: any cutting of the text reads the same, and reading is linear."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.data import tool_calls
from fathom.data.specials import SPECIALS
from fathom.data.tool_calls import CLOSING, OPENING, CallArguments, CallBegun, CallEnded, Part, ToolCallParser

PIECES = ["a", "日", "\n", "`", "``", "```", "```json", CLOSING, OPENING, "{}", " ", "\n```js"]
texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
names = texts.filter(lambda name: (name + OPENING).find(OPENING) == len(name))


class Vocabulary:
    """Stands for a tokenizer whose tokens are any texts at all."""

    def __init__(self, *pieces: str) -> None:
        """Names of control tokens stand for these."""
        markers = list(SPECIALS)
        self.ids = [self.special(p) if p in markers else n for n, p in enumerate(pieces)]
        self.pieces = pieces

    def special(self, name: str) -> int:
        return -1 - list(SPECIALS).index(name)


class Counting(str):
    """A text that counts the characters that are copied or looked at."""

    work = 0

    def _counted(self, text: str) -> Counting:
        Counting.work += len(text)
        return Counting(text)

    def __add__(self, other: str) -> Counting:
        return self._counted(str.__add__(self, other))

    def __radd__(self, other: str) -> Counting:
        return self._counted(str.__add__(other, self))

    def __getitem__(self, where: Any) -> Counting:
        return self._counted(str.__getitem__(self, where))

    def __contains__(self, what: str) -> bool:  # type: ignore[override]
        Counting.work += len(self)
        return str.__contains__(self, what)

    def find(self, *what: Any) -> int:
        Counting.work += len(self)
        return str.find(self, *what)

    def isspace(self) -> bool:
        Counting.work += len(self)
        return str.isspace(self)

    def removesuffix(self, suffix: str) -> Counting:
        return self._counted(str.removesuffix(self, suffix))


class Joining:
    """Stands for a list of pieces; what is joined is counted too."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def append(self, piece: str) -> None:
        Counting.work += 1
        self.pieces.append(piece)

    def __iter__(self) -> Any:
        Counting.work += sum(map(len, self.pieces))
        return iter(self.pieces)


class Spelled:
    """Stands for TextStream."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._pieces = vocabulary.pieces

    def push(self, token: int) -> Counting:
        return Counting(self._pieces[token])

    def end(self) -> Counting:
        return Counting("")


class Counted(ToolCallParser):
    """The parser with its list of held pieces replaced whenever it makes a new one."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, Joining() if name == "_held" and value == [] else value)


@pytest.fixture(autouse=True, scope="module")
def _spelled():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool_calls, "TextStream", Spelled)
        yield


def read(parser: ToolCallParser, ids: list[int]) -> list[Part]:
    return [part for token in ids for part in parser.push(token)] + parser.end()


@given(name=names, arguments=texts, cuts=st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=300, deadline=None)
def test_it_does_not_matter_how_text_is_cut_into_tokens(name: str, arguments: str, cuts: list[int]):
    text = name + OPENING + arguments + CLOSING
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(bounds)]
    vocabulary: Any = Vocabulary("tool_call_begin", "tool_sep", *pieces, "tool_call_end")
    first, *middle, last = read(ToolCallParser(vocabulary), vocabulary.ids)
    assert (first, last) == (CallBegun(0, name, "function"), CallEnded(0, complete=True))
    assert all(isinstance(part, CallArguments) for part in middle)
    assert "".join(part.text for part in middle) == arguments


HEAD = ("tool_calls_begin", "tool_call_begin", "function", "tool_sep")
WORST = {
    "content": ((), "a"),
    "blanks in a list": (HEAD[:1], "\n"),
    "a type": (HEAD[:2], "t"),
    "a name": (HEAD, "n"),
    "a name of lines": (HEAD, "\n"),
    "a name of half fences": (HEAD, "\n```json"),
    "arguments": ((*HEAD, "f" + OPENING), "a"),
    "arguments of lines": ((*HEAD, "f" + OPENING), "\n"),
    "arguments of half fences": ((*HEAD, "f" + OPENING), "\n``"),
    "arguments of fences": ((*HEAD, "f" + OPENING), "\n```"),
}


def work(*pieces: str) -> int:
    """Characters that reading these tokens looks at or copies."""
    vocabulary: Any = Vocabulary(*pieces)
    parser, Counting.work = Counted(vocabulary), 0
    read(parser, vocabulary.ids)
    return Counting.work


@pytest.mark.parametrize("case", WORST)
def test_twice_the_tokens_are_twice_the_work(case: str):
    before, unit = WORST[case]
    once, twice = work(*before, *[unit] * 1000), work(*before, *[unit] * 2000)
    assert twice <= 2.1 * once + 100
    assert once >= 1000 or case == "content", "the work is not counted"


def test_twice_the_calls_are_twice_the_work():
    call = (*HEAD[1:], "f" + OPENING, "{}", CLOSING, "tool_call_end", "\n")
    assert 0 < work(HEAD[0], *call * 200) <= 2.1 * work(HEAD[0], *call * 100)
