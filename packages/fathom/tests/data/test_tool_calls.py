"""Tool calls as they are written: a reply comes out as it went in, and nothing breaks the reader."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fathom.data.chat import encode_chat
from fathom.data.specials import LAST, SPECIALS
from fathom.data.tokenizer import Tokenizer
from fathom.data.tool_calls import (
    CLOSING,
    OPENING,
    CallArguments,
    CallBegun,
    CallEnded,
    Content,
    Part,
    ToolCallParser,
    parse_tool_calls,
)

ASKED = [{"role": "user", "content": "Go."}]
PIECES = ["a", "日", "😀", "\n", "`", "``", "```", "```json", CLOSING, OPENING, "{}", " ", *LAST.values()]
texts = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
calls_st = st.builds(
    lambda name, arguments, kind: {"type": kind, "function": {"name": name, "arguments": arguments}},
    texts,
    texts,
    st.one_of(st.just("function"), texts.filter(bool)),
)
often = settings(max_examples=300, deadline=None)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    text = 'function get_weather\n```json\n{"city": "Rome", "n": 12}\n```\n'
    return Tokenizer.train([text] * 4, 330)


def ids_of(tokenizer: Tokenizer, *pieces: str) -> list[int]:
    """Control tokens by their short names, everything else as text."""
    ids: list[int] = []
    for piece in pieces:
        ids += [tokenizer.special(piece)] if piece in SPECIALS else tokenizer.encode(piece)
    return ids


def read(tokenizer: Tokenizer, ids: Iterable[int]) -> list[Part]:
    parser = ToolCallParser(tokenizer)
    return [part for token in ids for part in parser.push(token)] + parser.end()


def joined(parts: Iterable[Part]) -> list[Any]:
    """Neighbouring pieces of one text made one: what matters whatever the tokens were."""
    out: list[Any] = []
    for part in parts:
        last = out[-1] if out else None
        if isinstance(part, Content) and isinstance(last, Content):
            out[-1] = Content(last.text + part.text)
        elif isinstance(part, CallArguments) and isinstance(last, CallArguments):
            assert part.index == last.index
            out[-1] = CallArguments(part.index, last.text + part.text)
        else:
            out.append(part)
    return out


def plain_name(call: dict[str, Any]) -> bool:
    """Whether the layout itself can tell where the name ends."""
    name = call["function"]["name"]
    return (name + OPENING).find(OPENING) == len(name)


@given(content=texts, calls=st.lists(calls_st.filter(plain_name), max_size=4))
@often
def test_a_reply_comes_out_as_it_went_in(tokenizer: Tokenizer, content: str, calls: list[dict[str, Any]]):
    reply = {"role": "assistant", "content": content, "tool_calls": calls}
    ids, is_target = encode_chat(tokenizer, [*ASKED, reply])
    written = list(itertools.compress(ids, is_target))
    assert parse_tool_calls(tokenizer, written) == (content, calls)
    expected: list[Part] = [Content(content)] if content else []
    for n, call in enumerate(calls):
        function = call["function"]
        expected.append(CallBegun(n, function["name"], call["type"]))
        expected += [CallArguments(n, function["arguments"])] if function["arguments"] else []
        expected.append(CallEnded(n, complete=True))
    assert joined(read(tokenizer, written)) == expected
    assert joined(read(tokenizer, written[:-1])) == expected, "the engine drops the end-of-text token"


def test_the_parts_of_two_calls_in_their_order(tokenizer: Tokenizer):
    made = [{"function": {"name": f"f{n}", "arguments": {"x": n}}} for n in range(2)]
    reply = {"role": "assistant", "content": "So:", "tool_calls": made}
    ids, is_target = encode_chat(tokenizer, [*ASKED, reply])
    assert joined(read(tokenizer, itertools.compress(ids, is_target))) == [
        Content("So:"),
        CallBegun(0, "f0", "function"),
        CallArguments(0, '{"x": 0}'),
        CallEnded(0, complete=True),
        CallBegun(1, "f1", "function"),
        CallArguments(1, '{"x": 1}'),
        CallEnded(1, complete=True),
    ]


@given(arguments=texts, name=texts)
@often
def test_names_come_first_and_arguments_as_they_are_written(tokenizer: Tokenizer, arguments: str, name: str):
    assume(plain_name({"function": {"name": name}}))
    parser = ToolCallParser(tokenizer)
    before = ids_of(tokenizer, "tool_calls_begin", "tool_call_begin", "function", "tool_sep", name + OPENING)
    head = [part for token in before for part in parser.push(token)]
    assert head == [CallBegun(0, name, "function")]
    ids, came = tokenizer.encode(arguments), ""
    for n, token in enumerate(ids, 1):
        came += "".join(part.text for part in parser.push(token) if isinstance(part, CallArguments))
        sure = tokenizer.decode(ids[:n]).rstrip("\ufffd")
        assert arguments.startswith(came)
        assert len(came) >= len(sure) - len(CLOSING), "more than a closing fence is held back"


soup = st.lists(
    st.one_of(
        st.sampled_from(list(SPECIALS)),
        st.sampled_from(["tool_calls_begin", "tool_call_begin", "tool_sep", "tool_call_end"]),
        st.sampled_from(["A", "日本", "ß😀", "\n", "`", "```", "\n```json\n", "{", "\n```", " ", "x y"]),
    ),
    max_size=40,
)


@given(pieces=soup)
@settings(max_examples=500, deadline=None)
def test_no_output_raises_or_loses_text(tokenizer: Tokenizer, pieces: list[str]):
    ids = ids_of(tokenizer, *pieces)
    parts = read(tokenizer, ids)
    shown = ""
    state: dict[int, str] = {}
    for part in parts:
        if isinstance(part, CallBegun):
            assert part.index == len(state) and "begun" not in state.values(), "calls do not overlap"
            state[part.index] = "begun"
            shown += part.type + part.name
        elif isinstance(part, CallEnded):
            assert state[part.index] == "begun"
            state[part.index] = "ended"
        else:
            assert part.text, "an empty part says nothing"
            shown += part.text
            assert isinstance(part, Content) or state[part.index] == "begun"
    assert set(state.values()) <= {"ended"}
    layout = str.maketrans("", "", "\n `json" + "function")  # fences, blanks, and the type that is assumed
    assert shown.translate(layout) == tokenizer.decode(ids).translate(layout)


@given(ids=st.lists(st.integers(-2, 340), max_size=60))
@often
def test_no_tokens_raise(tokenizer: Tokenizer, ids: list[int]):
    parts = read(tokenizer, ids)
    content, calls = parse_tool_calls(tokenizer, ids)
    assert content == "".join(part.text for part in parts if isinstance(part, Content))
    assert len(calls) == sum(isinstance(part, CallEnded) for part in parts)


@given(text=st.text(), cut=st.integers(0, 1000), token=st.sampled_from(["user", "pad", "eos", "tool_sep"]))
@often
def test_without_calls_the_content_is_what_decode_says(tokenizer: Tokenizer, text: str, cut: int, token: str):
    ids = tokenizer.encode(text)
    ids.insert(cut % (len(ids) + 1), tokenizer.special(token))
    ids = ids[: cut + 1]
    assert parse_tool_calls(tokenizer, ids) == (tokenizer.decode(ids), [])


HEAD = ("tool_calls_begin", "tool_call_begin", "function", "tool_sep")
FULL = (*HEAD, "f\n```json\n{}\n```", "tool_call_end")


def whole(index: int, name: str = "f", arguments: str = "{}", complete: bool = True) -> list[Part]:
    given: list[Part] = [CallArguments(index, arguments)] if arguments else []
    return [CallBegun(index, name, "function"), *given, CallEnded(index, complete)]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param(HEAD[:1], [], id="an empty list"),
        pytest.param(("a", *HEAD[:3]), [Content("afunction")], id="cut before the separator"),
        pytest.param(("a", *HEAD[:3], "tool_call_end", "b"), [Content("afunctionb")], id="no separator"),
        pytest.param(HEAD, whole(0, "", "", False), id="cut before the name"),
        pytest.param((*HEAD, "get_we"), whole(0, "get_we", "", False), id="cut inside the name"),
        pytest.param((*HEAD, "f\n```js"), whole(0, "f", "", False), id="cut inside the opening fence"),
        pytest.param((*HEAD, 'f\n```json\n{"a'), whole(0, "f", '{"a', False), id="cut inside the arguments"),
        pytest.param((*HEAD, "f\n```json\n{}\n``"), whole(0, "f", "{}\n``", False), id="cut inside a fence"),
        pytest.param((*HEAD, "f\n```json\n{}\n```"), whole(0, "f", "{}", False), id="cut behind the fence"),
        pytest.param(
            (*HEAD, "f\n```json\n{}", "eos", " b"),
            [*whole(0, "f", "{}", False), Content(" b")],
            id="end of text",
        ),
        pytest.param((*FULL, "eos", " "), [*whole(0), Content(" ")], id="end of text in a list"),
        pytest.param(
            (*HEAD, "f\n```json\n{}\n```", "tool_calls_end", "b"),
            [*whole(0, "f", "{}", False), Content("b")],
            id="the list's end before the call's",
        ),
        pytest.param(
            (*HEAD, "f\n```json\n{}", "tool_call_end"), whole(0, "f", "{}", False), id="no closing fence"
        ),
        pytest.param((*HEAD, "f\n{}\n```", "tool_call_end"), whole(0, "f", "{}", False), id="no opening one"),
        pytest.param((*HEAD, "f\n{}", "tool_call_end"), whole(0, "f", "{}", False), id="no fences"),
        pytest.param(
            (*HEAD, "f\n```\n{}\n```", "tool_call_end"), whole(0, "f", "```\n{}", False), id="other language"
        ),
        pytest.param((*HEAD, "f", "tool_call_end"), whole(0, "f", "", False), id="a name alone"),
        pytest.param(
            (*HEAD, "f\n```json\nno JSON\n```", "tool_call_end"), whole(0, "f", "no JSON"), id="no JSON"
        ),
        pytest.param((*HEAD, "f\n```json\n\n```", "tool_call_end"), whole(0, "f", ""), id="no arguments"),
        pytest.param(
            (*HEAD, "f\n```json\n{", *HEAD[1:], "g\n```json\n{}\n```", "tool_call_end"),
            [*whole(0, "f", "{", False), *whole(1, "g")],
            id="a call inside a call",
        ),
        pytest.param(
            (*HEAD, "f\n```json\n{", *FULL, "tool_calls_end"),
            [*whole(0, "f", "{", False), *whole(1)],
            id="a list inside a call",
        ),
        pytest.param(("a", *FULL[1:], "b"), [Content("a"), *whole(0), Content("b")], id="no list"),
        pytest.param(
            (*FULL, "\n\n ", *FULL[1:], "tool_calls_end"), [*whole(0), *whole(1)], id="blanks between"
        ),
        pytest.param(
            (*FULL, "\nand\n", *FULL[1:], "tool_calls_end", "\nb"),
            [*whole(0), Content("\nand"), *whole(1), Content("\nb")],
            id="text between",
        ),
        pytest.param(
            (*FULL, "tool_calls_end", "tool_call_end", "tool_calls_end", "x", *FULL),
            [*whole(0), Content("x"), *whole(1)],
            id="closed twice, and a second list",
        ),
        pytest.param(
            (*HEAD, "f\n```json\n{", "tool_sep", "user", "tool_outputs_begin", "}\n```", "tool_call_end"),
            whole(0),
            id="tokens that mean nothing there",
        ),
        pytest.param(
            ("a", "tool_call_end", "\n", "tool_calls_end", " "), [Content("a\n ")], id="ends of nothing"
        ),
        pytest.param(
            ("tool_call_begin", "tool_sep", "f\n```json\n{}\n```", "tool_call_end"), whole(0), id="no type"
        ),
    ],
)
def test_malformed_output_is_read_as_documented(
    tokenizer: Tokenizer, pieces: tuple[str, ...], expected: list[Part]
):
    assert joined(read(tokenizer, ids_of(tokenizer, *pieces))) == expected


def test_a_character_cut_by_a_control_token_is_not_mended(tokenizer: Tokenizer):
    first, second = tokenizer.encode("é")  # a token for each byte
    head, end = ids_of(tokenizer, *HEAD, "f\n```json\n"), ids_of(tokenizer, "tool_call_end")
    ids = [first, *head, first, *end, second]
    assert joined(read(tokenizer, ids)) == [
        Content("\ufffd"),
        *whole(0, "f", "\ufffd", complete=False),
        Content("\ufffd"),
    ]


def test_text_that_spells_the_markers_is_text(tokenizer: Tokenizer):
    text = "".join(SPECIALS.values()) + OPENING + "{}" + CLOSING
    assert parse_tool_calls(tokenizer, tokenizer.encode(text)) == (text, [])


def test_a_tokenizer_without_markers_writes_no_calls(tokenizer: Tokenizer):
    table = json.loads(tokenizer.definition if hasattr(tokenizer, "definition") else tokenizer._definition)
    table["added_tokens"] = table["added_tokens"][:3]
    bare = Tokenizer(json.dumps(table))
    assert parse_tool_calls(bare, bare.encode("a\n```json\n")) == ("a\n```json\n", [])
