"""Grammars come from strangers: what is too much is refused in one line, in bounded time; nothing breaks."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fathom.data.tokenizer import Tokenizer
from fathom.engine import grammar as grammars
from fathom.engine.grammar import Grammar, GrammarError, compile_grammar
from fathom.engine.request import SamplingParams
from fathom.engine.sample import NoTokenError

pytest.importorskip("llguidance")

TEXT = 'Mia wrote {"name": "kite 日本", "size": [1, 2.5, -300], "red": true, "note": null}\n and abc 1234.\n'


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT] * 3, 380)


def compiled(tokenizer: Tokenizer, **options: Any) -> Grammar:
    grammar = compile_grammar(SamplingParams(**options), tokenizer)
    assert grammar is not None
    return grammar


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def endless() -> dict[str, Any]:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    return schema


def doubled() -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(14):
        schema = {"a": schema, "b": schema}
    return {"properties": schema}


TOO_MUCH = {
    "10,000 deep": ({"json_schema": nested(10_000)}, "nests more than 32"),
    "10,000 deep as text": ({"json_schema": '{"items":' * 10_000}, "nests more than 32|more than 65536"),
    "40 deep as text": ({"json_schema": json.dumps(nested(40))}, "nests more than 32"),
    "brackets": ({"json_schema": "[" * 60_000}, "nests more than 32"),
    "itself": ({"json_schema": endless()}, "nests more than 32"),
    "twice itself": ({"json_schema": doubled()}, "more than 65536 bytes"),
    "a long text": ({"json_schema": {"const": "x" * 70_000}}, "more than 65536 bytes"),
    "no JSON": ({"json_schema": '{"type": '}, "is not JSON"),
    "no number": ({"json_schema": {"const": float("nan")}}, "is not JSON"),
    "a set": ({"json_schema": {"enum": {1}}}, "is not JSON"),
    "a number": ({"json_schema": 7}, "neither JSON nor a table"),
    "a list": ({"json_schema": "[1]"}, "json_schema cannot be used"),
    "no type": ({"json_schema": {"type": "objekt"}}, "Invalid type: objekt"),
    "unsupported": ({"json_schema": {"not": {"type": "string"}}}, "Unimplemented"),
    "elsewhere": ({"json_schema": {"$ref": "https://example.org/schema"}}, "json_schema cannot be used"),
    "no text": ({"json_schema": {"$ref": "#"}}, "no text can satisfy it"),
    "nothing": ({"json_schema": "false"}, "json_schema cannot be used"),
    "surrogate": ({"json_schema": {"const": "\ud800"}}, "json_schema cannot be used"),
    "2**20 cases": ({"json_schema": {"type": "object", "allOf": [
        {"oneOf": [{"required": [f"{i}a"]}, {"required": [f"{i}b"]}]} for i in range(20)
    ]}}, "schema too large"),
    "30,000 parentheses": ({"regex": "(" * 30_000 + ")" * 30_000}, "60000 bytes, above 4096"),
    "2,000 parentheses": ({"regex": "(" * 2000 + "a" + ")" * 2000}, "regex cannot be used"),
    "open": ({"regex": "(a"}, "unclosed group"),
    "look-ahead": ({"regex": "(?=a)b"}, "look-around"),
    "back reference": ({"regex": r"(a)\1"}, "backreferences"),
    "surrogate in a regex": ({"regex": "\ud800"}, "no valid Unicode"),
    "no regex": ({"regex": 7}, "is not a text"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_cannot_be_used_is_refused_in_one_line(tokenizer: Tokenizer, name: str) -> None:
    options, reason = TOO_MUCH[name]
    with pytest.raises(GrammarError, match=reason) as refused:
        compiled(tokenizer, **options)
    message = str(refused.value)
    assert re.fullmatch(r"[^\n]{1,300}\. Fix: [^\n]+", message), message
    assert message.isprintable()


CATASTROPHES = [
    "(a+)+b", "(a|a)*c", "(a?){200}a{200}", "(a{0,1000}){0,1000}", ".*a.{100}b.*c.{100}", "(.*a.*){30}",
    "((((a{1,50}){1,50}){1,50}){1,50}){1,50}", "([a-z]+)*([a-z]+)*([a-z]+)*!", "(x+x+)+y",
]  # fmt: skip


@pytest.mark.parametrize("regex", CATASTROPHES)
def test_catastrophic_regexes_are_followed_or_refused_but_never_lived_through(
    tokenizer: Tokenizer, regex: str
) -> None:
    """Backtracking would take years; here each step ends, and the limits of a step are llguidance's."""
    try:
        matcher = compiled(tokenizer, regex=regex).matcher()
        for n in range(60):
            allowed = np.flatnonzero(matcher.allowed())
            matcher.advance(int(allowed[n % len(allowed)]))
    except NoTokenError as refused:
        assert re.fullmatch(r"the grammar cannot be followed further \([^\n]+\)\. Fix: [^\n]+", str(refused))


WIDE = "(?s:.*[a-m].{30}[n-z].*)x"  # every letter is a new state


def walk(tokenizer: Tokenizer, grammar: Grammar, seed: int) -> tuple[int, str]:
    """Tokens of a text of random letters until the grammar gives up, and what it says."""
    matcher, random, letters = grammar.matcher(), np.random.default_rng(seed), "cabwrite"
    for n in range(1000):
        try:
            matcher.allowed()
            matcher.advance(*tokenizer.encode(random.choice(list(letters))))
        except NoTokenError as error:
            for token in (tokenizer.eos, *tokenizer.encode("a")):
                with pytest.raises(NoTokenError):
                    matcher.advance(token)
            with pytest.raises(NoTokenError):
                matcher.allowed()
            matcher.rollback(1)
            return n, str(error)
    return 1000, ""


def test_an_answer_at_its_limit_ends_and_no_other_notices(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars, "LIMITS", grammars.LIMITS | {"max_lexer_states": 400})
    grammar = compiled(tokenizer, regex=WIDE)
    first = [walk(tokenizer, grammar, seed) for seed in range(4)]
    assert [walk(tokenizer, grammar, seed) for seed in reversed(range(4))] == first[::-1]
    for n, error in first:
        assert 0 < n < 1000
        assert re.fullmatch(r"the grammar cannot be followed further \([^\n]+\)\. Fix: [^\n]+", error)


def test_what_takes_long_to_begin_is_refused(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "ANSWER_SECONDS", 0.01)
    with pytest.raises(GrammarError, match=r"an answer to it takes more than 0.01 s to begin\)\. Fix: "):
        compiled(tokenizer, json_schema={"type": "integer", "multipleOf": 9973})


SLOW = {"type": "integer", "multipleOf": 99_999_989}  # an automaton of as many states


def test_time_is_limited(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "SECONDS", 1.0)
    with pytest.raises(GrammarError, match=r"more than 1 s to compile\)\. Fix: "):
        compiled(tokenizer, json_schema=SLOW)


def test_memory_is_limited(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies, this one does not, and the next grammar is compiled as ever."""
    monkeypatch.setattr(grammars, "MEMORY", 96 << 20)
    monkeypatch.setattr(grammars, "SECONDS", 60.0)
    with pytest.raises(GrammarError, match=r"more than 96 MiB to compile, or breaks the compiler\)\. Fix: "):
        compiled(tokenizer, json_schema=SLOW)
    assert compiled(tokenizer, regex="enough for [a-z]+") is not None


def test_a_grammar_is_compiled_once_and_the_oldest_is_forgotten(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    monkeypatch.setattr(grammars, "_checked", lambda source: checked.append(source) or "")
    monkeypatch.setattr(grammars, "KEPT", 3)
    fresh = Tokenizer.train([TEXT], 300)
    first = compiled(fresh, regex="a0")
    for n in (1, 2, 0, 3):
        compiled(fresh, regex=f"a{n}")
    assert compiled(fresh, regex="a0") is first
    assert len(checked) == 4
    compiled(fresh, regex="a1")  # the least recently used of four
    assert len(checked) == 5
    as_text = compiled(fresh, json_schema='{"type":"null"}')
    assert as_text is compiled(fresh, json_schema={"type": "null"})


def test_a_tokenizer_is_not_kept_for_its_grammars() -> None:
    tokenizer = Tokenizer.train([TEXT], 290)
    gone = weakref.ref(tokenizer)
    compiled(tokenizer, regex="a")
    del tokenizer
    gc.collect()
    assert gone() is None


def test_without_llguidance_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    fresh = Tokenizer.train([TEXT], 300)
    with pytest.raises(GrammarError, match=r"^[^\n]*not installed\. Fix: pip install 'fathom-lm\[serve\]'$"):
        compile_grammar(SamplingParams(regex="a"), fresh)


def test_the_process_that_compiles_loads_neither_torch_nor_numpy() -> None:
    program = Path(grammars.__file__).with_name("grammar_check.py")
    grammar = '{"grammars": [{"lark_grammar": "start: /a+/"}]}'
    asked = {"grammar": grammar, "limits": grammars.LIMITS, "bytes": grammars.MEMORY}
    command = [sys.executable, "-X", "importtime", "-P", str(program)]
    done = subprocess.run(command, input=json.dumps(asked).encode(), capture_output=True, check=True)
    assert json.loads(done.stdout) == {"error": ""}
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.decode().splitlines()}
    assert "llguidance" in loaded
    assert not loaded & {"torch", "numpy", "tokenizers", "fathom"}
