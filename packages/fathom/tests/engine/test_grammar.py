"""Whatever a model would rather say, its answer has the form that was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fathom.data.specials import SPECIALS
from fathom.data.tokenizer import Tokenizer
from fathom.engine import grammar as grammars
from fathom.engine.grammar import Grammar, Matcher, compile_grammar
from fathom.engine.request import SamplingParams

pytest.importorskip("llguidance")

TEXT = 'Mia wrote {"name": "kite 日本", "size": [1, 2.5, -300], "red": true, "note": null}\n and abc 1234.\n'
LONGEST = 400  # tokens of an answer; then the likeliest way out is taken


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT, *SPECIALS.values()] * 3, 380)


def compiled(tokenizer: Tokenizer, **options: Any) -> Grammar:
    grammar = compile_grammar(SamplingParams(**options), tokenizer)
    assert grammar is not None
    return grammar


def compiled_here(tokenizer: Tokenizer, **options: Any) -> Grammar:
    """Without the process: it costs a tenth of a second, and these grammars are harmless."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammars, "_checked", lambda source: "")
        return compiled(tokenizer, **options)


def babble(tokenizer: Tokenizer, matcher: Matcher, seed: int, closing: str = '"}]') -> str | None:
    """What a model of random logits writes; from LONGEST on it prefers the `closing` letters, and to end.

    None if it has found no way out by 4 LONGEST.
    """
    random, ids = np.random.default_rng(seed), list[int]()
    ways_out = {letter.encode() for letter in closing}
    closing_V = np.array([tokenizer.token_bytes(i) in ways_out for i in range(tokenizer.size)])
    control_V = tokenizer.byte_lengths() == 0
    while len(ids) < 4 * LONGEST:
        allowed_V = matcher.allowed()
        assert set(np.flatnonzero(allowed_V & control_V)) <= {tokenizer.eos}
        logit_V = random.standard_normal(tokenizer.size) + (len(ids) > LONGEST) * 50.0 * closing_V
        logit_V[tokenizer.eos] += (len(ids) > LONGEST) * 100.0
        token = int(np.where(allowed_V, logit_V, -np.inf).argmax())
        if token == tokenizer.eos:
            return tokenizer.decode(ids)
        ids.append(token)
        matcher.advance(token)
    return None


leaves = st.sampled_from(
    [
        {"type": "integer"}, {"type": "boolean"}, {"type": "null"}, {"type": "number"}, {"type": "string"},
        {"type": "string", "maxLength": 5}, {"type": "integer", "minimum": -3, "maximum": 12},
        {"const": "a\"b"}, {"enum": ["red", 3, None, {"a": [1]}]},
        {"type": "string", "pattern": "^[a-c]{2,4}$"},
    ]
)  # fmt: skip
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 1, "maxItems": 3}, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(
            lambda fields: {
                "type": "object", "properties": fields, "required": sorted(fields)[::2],
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from(["a", "b ", "日", '"q']), inner, min_size=1, max_size=3),
        ),
    ),
    max_leaves=5,
)  # fmt: skip


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """The part of JSON Schema that `schemas` uses."""
    kinds = {"integer": int, "boolean": bool, "null": type(None), "number": (int, float), "string": str}
    kind = schema.get("type")
    if "anyOf" in schema:
        return any(fits(value, s) for s in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if kind == "array":
        right = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
        return right and all(fits(x, schema["items"]) for x in value)
    if kind == "object":
        known, needed = schema["properties"], set(schema["required"])
        right = isinstance(value, dict) and needed <= value.keys() <= known.keys()
        return right and all(fits(x, known[k]) for k, x in value.items())
    if not isinstance(value, kinds[kind]) or (kind == "boolean") != isinstance(value, bool):
        return False
    if kind == "string":
        matches = re.search(schema.get("pattern", ""), value) is not None
        return matches and len(value) <= schema.get("maxLength", len(value))
    return kind != "integer" or schema.get("minimum", value) <= value <= schema.get("maximum", value)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schemas, st.integers(0, 2**32))
def test_random_logits_write_json_of_the_schema(
    tokenizer: Tokenizer, schema: dict[str, Any], seed: int
) -> None:
    grammar = compiled_here(tokenizer, json_schema=json.dumps(schema) if seed % 2 else schema)
    for n in range(2):
        text = babble(tokenizer, grammar.matcher(), seed + n)
        assert text is not None
        assert fits(json.loads(text), schema), text


def test_white_space_cannot_go_on_for_ever(tokenizer: Tokenizer) -> None:
    matcher = compiled_here(tokenizer, json_schema={"type": "array", "items": {"type": "integer"}}).matcher()
    (start,) = tokenizer.encode("[")
    matcher.advance(start)
    blank_V = np.array([tokenizer.token_bytes(i).isspace() for i in range(tokenizer.size)])
    written = 0
    while len(ways := np.flatnonzero(matcher.allowed() & blank_V)):
        matcher.advance(int(ways[0]))
        written += len(tokenizer.token_bytes(int(ways[0])))
        assert written <= 1 + 32
    assert written > 0


pieces = st.sampled_from(
    ["a", "[a-f]", "[^x]", "\\d", "[\\d_]", "\\\\d", "日", "\\.", "(?:ab|c)", "[0-9]{2}", " ", "\\n", '"']
)
regexes = st.recursive(
    pieces,
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "{1,3}"])),
    ),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(regexes, st.integers(0, 2**32))
def test_random_logits_write_what_the_regex_matches(tokenizer: Tokenizer, regex: str, seed: int) -> None:
    """One whose way out is long, as [^x]*abab, may not be found by chance: such an answer is cut."""
    text = babble(tokenizer, compiled_here(tokenizer, regex=regex).matcher(), seed, closing="abc0.")
    assert text is None or re.fullmatch(regex, text), text


@pytest.mark.parametrize("regex", ["[^x]*a", "(?:[^x])*[0-9]{2}", "(?:[^x]|日)+(?:ab|c)"])
def test_a_regex_with_one_way_out_is_left_by_it(tokenizer: Tokenizer, regex: str) -> None:
    for seed in range(3):
        text = babble(tokenizer, compiled_here(tokenizer, regex=regex).matcher(), seed, closing="abc0.")
        assert text is not None and re.fullmatch(regex, text), text


@pytest.mark.parametrize("regex", [r"\d+", r"[\d]+", r"[\d_]+"])
def test_a_digit_is_one_that_can_be_read_as_a_number(tokenizer: Tokenizer, regex: str) -> None:
    """llguidance knows more digits than Python's re: those of a newer Unicode."""
    allowed_V = compiled_here(tokenizer, regex=regex).matcher().allowed()
    starts = {tokenizer.token_bytes(int(i))[:1] for i in np.flatnonzero(allowed_V)}
    assert starts - {b"_"} == {b"%d" % digit for digit in range(10)}


def test_the_end_is_allowed_exactly_where_the_grammar_may_end(tokenizer: Tokenizer) -> None:
    matcher = compiled_here(tokenizer, regex="ab?c*").matcher()
    may_end = []
    for letter in "abcc":
        may_end.append(bool(matcher.allowed()[tokenizer.eos]))
        matcher.advance(*tokenizer.encode(letter))
    assert [*may_end, bool(matcher.allowed()[tokenizer.eos])] == [False, True, True, True, True]
    assert not matcher.ended


@pytest.mark.parametrize("regex", ["", "a", "(a|b)c?"])
def test_ended_means_that_only_the_end_may_follow(tokenizer: Tokenizer, regex: str) -> None:
    matcher = compiled_here(tokenizer, regex=regex).matcher()
    for letter in "ac"[: len(regex)][: 1 if regex == "a" else 2]:
        assert not matcher.ended
        matcher.advance(*tokenizer.encode(letter))
    for _ in range(3):  # an engine that ignores the end of text goes on
        assert matcher.ended
        assert np.flatnonzero(matcher.allowed()).tolist() == [tokenizer.eos]
        matcher.advance(tokenizer.eos)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["(ab|a|b){1,6}c?", "a*b*", "[ab]{0,3}"]), st.integers(0, 2**32), st.data())
def test_drafts_that_are_rolled_back_leave_no_trace(
    tokenizer: Tokenizer, regex: str, seed: int, data: st.DataObject
) -> None:
    """Any walk, with the end of text in it, against a fresh matcher that went the same way."""
    grammar, random = compiled_here(tokenizer, regex=regex), np.random.default_rng(seed)
    matcher, path = grammar.matcher(), list[int]()
    for _ in range(12):
        drafts = data.draw(st.integers(0, 4))
        for _ in range(drafts):
            token = int(random.choice(np.flatnonzero(matcher.allowed())))
            path.append(token)
            matcher.advance(token)
        back = data.draw(st.integers(0, min(len(path), 4)))
        matcher.rollback(back)
        path = path[: len(path) - back]
        fresh = grammar.matcher()
        for token in path:
            fresh.advance(token)
        assert np.array_equal(matcher.allowed(), fresh.allowed())
        assert matcher.ended == fresh.ended


def test_answers_to_one_grammar_do_not_mix(tokenizer: Tokenizer) -> None:
    grammar = compiled_here(tokenizer, regex="a+b")
    one, other = grammar.matcher(), grammar.matcher()
    one.advance(*tokenizer.encode("a"))
    (b,) = tokenizer.encode("b")
    assert one.allowed()[b] and not other.allowed()[b] and not grammar.matcher().allowed()[b]
    one.advance(b)
    with pytest.raises(AssertionError, match="was not allowed here"):
        other.advance(b)
    assert other.allowed().any()  # a wrong step changes nothing
    with pytest.raises(AssertionError, match="was not allowed here"):
        other.advance(tokenizer.eos)
    assert not other.ended


def test_control_tokens_are_no_text_even_where_the_file_does_not_mark_them(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    table = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    for token in table["added_tokens"]:
        token["special"] = False
    careless = Tokenizer(json.dumps(table))
    text = babble(careless, compiled_here(careless, regex="[^a]{40}").matcher(), 1)
    assert text is not None and len(text) == 40  # babble itself looks for control tokens


def test_nothing_asked_is_nothing_compiled(tokenizer: Tokenizer) -> None:
    assert compile_grammar(SamplingParams(), tokenizer) is None
