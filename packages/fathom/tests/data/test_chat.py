"""The chat template: the released strings, every list closed once, the loss on what the assistant wrote."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.errors import DataError
from fathom.data.chat import encode_chat, render
from fathom.data.specials import SPECIALS
from fathom.data.tokenizer import Tokenizer

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"

words = st.text(alphabet=st.sampled_from("ab 日\n{}<'\"&é"), max_size=12)
calls = st.builds(
    lambda name, arguments, kind: {**kind, "function": {"name": name, "arguments": arguments}},
    words,
    st.one_of(words, st.dictionaries(words, st.one_of(st.integers(), words), max_size=2)),
    st.sampled_from([{}, {"type": "function"}]),
)
messages_of = {
    "system": st.fixed_dictionaries({"role": st.just("system"), "content": words}),
    "user": st.fixed_dictionaries({"role": st.just("user"), "content": words}),
    "tool": st.fixed_dictionaries({"role": st.just("tool"), "content": words}),
    "assistant": st.fixed_dictionaries({"role": st.just("assistant"), "content": words}),
    "caller": st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "content": st.one_of(st.none(), words),
            "tool_calls": st.lists(calls, min_size=1, max_size=3),
        }
    ),
}
conversations = st.lists(st.one_of(*messages_of.values()), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["Where is the kite? In the tree, the tree in the park."], 300)


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    transformers = pytest.importorskip("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def says(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(name: str, arguments: Any = "{}") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


@given(messages=conversations, generation_prompt=st.booleans())
@settings(max_examples=150, deadline=None)
def test_jinja_python_and_transformers_agree(
    theirs: Any, tokenizer: Tokenizer, messages: list[dict[str, Any]], generation_prompt: bool
):
    text = render(messages, generation_prompt=generation_prompt)
    kwargs = {"add_generation_prompt": generation_prompt}
    assert theirs.apply_chat_template(messages, tokenize=False, **kwargs) == text
    ids, is_target = encode_chat(tokenizer, messages, generation_prompt=generation_prompt)
    assert theirs.apply_chat_template(messages, return_dict=False, **kwargs) == ids
    assert len(is_target) == len(ids)


@given(messages=conversations)
@settings(max_examples=100, deadline=None)
def test_a_conversation_begins_with_the_prompt_of_each_of_its_replies(messages: list[dict[str, Any]]):
    messages = [m for m in messages if m["role"] != "system"]
    for k, message in enumerate(messages):
        if k and message["role"] == "assistant":
            prompt = render(messages[:k], generation_prompt=True)
            assert render(messages).startswith(prompt)


WEATHER = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>rain\n```json\n{"in": "Köln"}\n```<｜tool▁call▁end｜>'
CLOCK = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>clock\n```json\n{}\n```<｜tool▁call▁end｜>"
weather, clock = call("rain", {"in": "Köln"}), call("clock", "{}")
once = [says("user", "q"), says("assistant", None, tool_calls=[weather])]
twice = [says("user", "q"), says("assistant", "So:", tool_calls=[weather, clock])]
CALLED_ONCE = f"{BOS}{USER}q{ASSISTANT}<｜tool▁calls▁begin｜>{WEATHER}<｜tool▁calls▁end｜>{EOS}"
CALLED_TWICE = f"{BOS}{USER}q{ASSISTANT}So:<｜tool▁calls▁begin｜>{WEATHER}\n{CLOCK}<｜tool▁calls▁end｜>{EOS}"
ONE = "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>rain<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
TWO = (
    "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>rain<｜tool▁output▁end｜>\n"
    "<｜tool▁output▁begin｜>9:00<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
)
rain, nine = says("tool", "rain"), says("tool", "9:00")

# The released strings, but every list is closed once; the template of December 2024 closed none or several.
EXACT = {
    "nobody's system text": ([says("user", "q")], True, f"{BOS}{USER}q{ASSISTANT}"),
    "no prompt for a reply": ([says("user", "q")], False, f"{BOS}{USER}q"),
    "spaces and breaks stay": (
        [says("system", " s\n"), says("user", "\n q "), says("assistant", " a\n\n")],
        False,
        f"{BOS} s\n{USER}\n q {ASSISTANT} a\n\n{EOS}",
    ),
    "several turns": (
        [says("system", "s"), says("user", "q"), says("assistant", "a"), says("user", "r")],
        True,
        f"{BOS}s{USER}q{ASSISTANT}a{EOS}{USER}r{ASSISTANT}",
    ),
    "one call": (once, False, CALLED_ONCE),
    "text and two calls": (twice, False, CALLED_TWICE),
    "one output, then the reply": ([*once, rain], True, CALLED_ONCE + ONE),
    "one output and the reply": (
        [*once, rain, says("assistant", "Wet.")],
        False,
        f"{CALLED_ONCE}{ONE}Wet.{EOS}",
    ),
    "two outputs, then the reply": ([*twice, rain, nine], True, CALLED_TWICE + TWO),
    "two outputs, the reply and a question": (
        [*twice, rain, nine, says("assistant", "Wet."), says("user", "r")],
        True,
        f"{CALLED_TWICE}{TWO}Wet.{EOS}{USER}r{ASSISTANT}",
    ),
    "an output and a question": (
        [*once, rain, says("user", "r")],
        True,
        f"{CALLED_ONCE}{ONE}{USER}r{ASSISTANT}",
    ),
    "an output and another call": (
        [*once, rain, says("assistant", "And", tool_calls=[clock]), nine, says("assistant", "Wet.")],
        False,
        f"{CALLED_ONCE}{ONE}And<｜tool▁calls▁begin｜>{CLOCK}<｜tool▁calls▁end｜>{EOS}"
        f"{ONE.replace('rain', '9:00')}Wet.{EOS}",
    ),
    "arguments of many lines and fences": (
        [says("user", "q"), says("assistant", "", tool_calls=[call("f", '{\n "a": "```"\n}\n```')])],
        False,
        f"{BOS}{USER}q{ASSISTANT}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
        f'{{\n "a": "```"\n}}\n```\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>{EOS}',
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_the_strings_and_tokens_are_exactly_these(tokenizer: Tokenizer, case: str):
    messages, generation_prompt, text = EXACT[case]
    assert render(messages, generation_prompt=generation_prompt) == text
    ids, is_target = encode_chat(tokenizer, messages, generation_prompt=generation_prompt)
    names = {marker: name for name, marker in SPECIALS.items()}
    stretches = [part for part in re.split(f"({'|'.join(map(re.escape, names))})", text) if part]
    expected = [
        [tokenizer.special(names[part])] if part in names else tokenizer.encode(part) for part in stretches
    ]
    assert ids == [i for part in expected for i in part], "a marker is one token, and all else plain text"
    prompts = [k for k, m in enumerate(messages) if m["role"] == "assistant"]
    written = "".join(_reply_of(text, messages, k) for k in prompts)
    targets = [i for i, target in zip(ids, is_target, strict=True) if target]
    assert tokenizer.decode(targets, specials=True) == written


def _reply_of(text: str, messages: list[dict[str, Any]], k: int) -> str:
    """What follows the prompt of message k, to the end of its turn."""
    prompt = render(messages[:k], generation_prompt=True)
    assert text.startswith(prompt)
    return text[len(prompt) : text.index(EOS, len(prompt)) + len(EOS)]


def test_a_plain_conversation():
    messages = [
        says("system", "Be kind."),
        says("user", "Hi"),
        says("assistant", "Hello."),
        says("user", "Bye"),
    ]
    expected = f"{BOS}Be kind.{USER}Hi{ASSISTANT}Hello.{EOS}{USER}Bye"
    assert render(messages) == expected
    assert render(messages, generation_prompt=True) == expected + ASSISTANT


def test_system_messages_come_first_joined_by_a_blank_line():
    assert render([says("user", "u"), says("system", "a"), says("system", "b")]) == f"{BOS}a\n\nb{USER}u"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_list_of_tool_calls_is_closed_exactly_once(count: int):
    made = [call(f"f{n}", {"x": n}) for n in range(count)]
    text = render([says("user", "go"), says("assistant", None, tool_calls=made)])
    one = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>f{0}\n```json\n{{"x": {0}}}\n```<｜tool▁call▁end｜>'
    listed = "\n".join(one.format(n) for n in range(count))
    assert text == f"{BOS}{USER}go{ASSISTANT}<｜tool▁calls▁begin｜>{listed}<｜tool▁calls▁end｜>{EOS}"


def test_tool_results_are_answered_without_a_second_marker():
    asked = [says("user", "q"), says("assistant", "Let me see.", tool_calls=[call("f")])]
    results = [says("tool", "1"), says("tool", "2")]
    closed = (
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>1<｜tool▁output▁end｜>\n"
        "<｜tool▁output▁begin｜>2<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
    )
    begin = render(asked) + closed
    assert render([*asked, *results]) == begin
    assert render([*asked, *results], generation_prompt=True) == begin
    assert render([*asked, *results, says("assistant", "Two.")]) == f"{begin}Two.{EOS}"
    assert (
        render([*asked, *results, says("user", "And?")], generation_prompt=True)
        == f"{begin}{USER}And?{ASSISTANT}"
    )


def test_the_loss_counts_what_the_assistant_wrote(tokenizer: Tokenizer):
    messages = [
        says("system", "the park"),
        says("user", "Where?"),
        says("assistant", "tree", tool_calls=[call("look", "{}"), call("see", "{}")]),
        says("tool", "kite"),
        says("assistant", "In the tree"),
        says("user", "the kite"),
    ]
    ids, is_target = encode_chat(tokenizer, messages, generation_prompt=True)
    shown = [tokenizer.decode([i], specials=True) for i in ids]
    written = "".join(piece for piece, target in zip(shown, is_target, strict=True) if target)
    one = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{{}}\n```<｜tool▁call▁end｜>"
    calls = f"<｜tool▁calls▁begin｜>{one.format('look')}\n{one.format('see')}<｜tool▁calls▁end｜>"
    assert written == f"tree{calls}{EOS}In the tree{EOS}"
    assert "".join(shown) == render(messages, generation_prompt=True)


@given(content=st.lists(st.one_of(words, st.sampled_from(list(SPECIALS.values())))).map("".join))
@settings(max_examples=60, deadline=None)
def test_nobody_can_forge_a_control_token(tokenizer: Tokenizer, content: str):
    roles = ("system", "user", "assistant", "tool")
    ids, _ = encode_chat(tokenizer, [says(role, content) for role in roles])
    empty, _ = encode_chat(tokenizer, [says(role, "") for role in roles])
    control = {tokenizer.special(name) for name in SPECIALS}
    assert [i for i in ids if i in control] == [i for i in empty if i in control]


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "no message"),
        ([says("user", "a"), says("bot", "b")], "message 1 has role 'bot'"),
        ([{"content": "a"}], "message 0 has no role"),
        (["hello"], "message 0 has no role"),
        ([says("user", None)], r"message 0 \(user\) has no content"),
        ([says("user", "a"), {"role": "assistant"}], r"message 1 \(assistant\) has no content"),
        ([says("user", 3)], r"message 0 \(user\) has no content"),  # type: ignore[arg-type]
        ([says("assistant", None, tool_calls=[])], r"message 0 \(assistant\) has no content"),
        ([says("user", "a", tool_calls=[call("f")])], r"message 0 \(user\) has tool_calls"),
        ([says("assistant", "a", tool_calls="f")], r"message 0 \(assistant\) has tool_calls"),
        ([says("assistant", "a", tool_calls=[{}])], "message 0, tool call 0 has no function name"),
        (
            [says("assistant", "", tool_calls=[call("f"), call("g", 7)])],
            "message 0, tool call 1 has no arguments",
        ),
    ],
)
def test_a_bad_message_is_named_by_its_index(messages: list[Any], named: str):
    with pytest.raises(DataError, match=rf"{named}.*Fix: "):
        render(messages)


def test_a_tokenizer_without_the_markers_says_so(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path)
    table = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    table["added_tokens"] = table["added_tokens"][:3]
    (tmp_path / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(DataError, match=r"<｜User｜>.*Fix: "):
        encode_chat(Tokenizer.load(tmp_path), [says("user", "a")])
