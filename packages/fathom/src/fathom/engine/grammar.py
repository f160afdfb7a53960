"""Answers of a given form: at every place, the tokens that can still lead to a text of the grammar.

The work is llguidance's (https://github.com/guidance-ai/llguidance): derivatives of regular expressions under
an Earley parser. A grammar comes from strangers, so it is measured before it is read, and compiled first in a
process of its own that is killed when its time or memory is spent.

A regex is written as in Rust: no look-around and no references back, so none is catastrophic; and \\d is 0
to 9, not every digit of Unicode. JSON is written with at most one line break and 32 spaces wherever white
space may stand: a model that likes blanks cannot write them for ever.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np

from fathom.config.errors import need, quoted
from fathom.data.tokenizer import Tokenizer
from fathom.engine.request import RequestError, SamplingParams
from fathom.engine.sample import NoTokenError

SCHEMA_BYTES = 64 * 1024
SCHEMA_DEPTH = 32  # objects and lists inside each other
REGEX_BYTES = 4 * 1024
SECONDS = 5.0  # to compile, with the start of the process, about 0.1
ANSWER_SECONDS = 0.2  # of one core, to begin an answer: others wait; 50 KB of schema take 0.06
MEMORY = 1 << 30  # bytes of address space to compile in
KEPT = 128  # compiled grammars of one tokenizer
BLANK = r"\n? {0,32}"
LIMITS = {  # of llguidance; a step's fuel is about 15 ms
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 50_000,  # 1 to 2 kB each
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}
SIMPLER = "ask for something simpler"
NOTHING = "NoExtensionBias"  # llguidance's name for a grammar without a single text


class GrammarError(RequestError):
    """A JSON schema or a regex that cannot be used, or costs too much."""


class Matcher:
    """Where one answer stands in its grammar. Behind an end of text there is only another one.

    llguidance's errors last: behind a NoTokenError there is nothing but another one.
    """

    def __init__(self, build: Callable[[], Any], eos: int, tokens: int) -> None:
        self._build, self._eos, self._tokens = build, eos, tokens
        self._ends = 0  # of text, advanced over; llguidance is not told of them

    @cached_property
    def _matcher(self) -> Any:
        """Built when the answer begins: until then it costs nothing.

        No deep copy of another one: those share their automaton with its limit, so what one answer may
        still do would depend on what others did.
        """
        return self._build()

    def anew(self) -> Matcher:
        """One more, at the beginning of the text, that shares nothing with this one."""
        return Matcher(self._build, self._eos, self._tokens)

    def allowed(self) -> np.ndarray:
        """Tokens that may come next, bool [tokens]: at least one. End of text wherever the grammar may end.

        No control token else. NoTokenError if the grammar is too complex to go on.
        """
        if self._ends:
            allowed_V = np.zeros(self._tokens, dtype=bool)
            allowed_V[self._eos] = True
            return allowed_V
        allowed_V = np.frombuffer(self._matcher.compute_logit_bias(), dtype=np.uint8) > 0
        self._check(bool(allowed_V.any()))
        return allowed_V

    def advance(self, token: int) -> None:
        """Take one of the allowed tokens; NoTokenError if the grammar is too complex to go on behind it."""
        if token == self._eos:
            fits = self._ends > 0 or self._matcher.is_accepting()
            self._ends += fits
        else:
            fits = not self._ends and self._matcher.validate_tokens([token]) == 1
            fits = fits and self._matcher.consume_token(token)
        self._check()
        assert fits, f"token {token} was not allowed here"

    def rollback(self, count: int) -> None:
        """Forget the last `count` tokens; after a NoTokenError there is nothing to go back to."""
        ends = min(count, self._ends)
        self._ends -= ends
        done = count == ends or self._matcher.is_error() or self._matcher.rollback(count - ends)
        assert done, f"cannot take {count} tokens back"

    def _check(self, fine: bool = True) -> None:
        if not fine or self._matcher.is_error():
            what = f"the grammar cannot be followed further ({_reason(self._matcher.get_error())})"
            need(False, what, fix=SIMPLER, error=NoTokenError)

    @property
    def ended(self) -> bool:
        """Whether nothing but the end of text can follow; as costly as `allowed`."""
        allowed_V = self.allowed()
        return bool(allowed_V[self._eos]) and int(allowed_V.sum()) == 1


class Grammar:
    """A compiled grammar; any number of answers may follow it at once."""

    def __init__(self, build: Callable[[], Any], eos: int, tokens: int) -> None:
        self._build, self._eos, self._tokens = build, eos, tokens

    def matcher(self) -> Matcher:
        """A new one, at the beginning of the text; its first use takes a millisecond, or ANSWER_SECONDS."""
        return Matcher(self._build, self._eos, self._tokens)


def compile_grammar(params: SamplingParams, tokenizer: Tokenizer) -> Grammar | None:
    """The grammar that `params` ask for, if they do.

    A tenth of a second the first time, at most SECONDS; microseconds when it is known. May be called
    from any thread. GrammarError in one line: not JSON, not a regex, unsupported, too large, too costly,
    llguidance not installed.
    """
    if params.json_schema is None and params.regex is None:
        return None
    with _lock:
        compiler = _compilers.get(tokenizer) or _compilers.setdefault(tokenizer, _Compiler(tokenizer))
    return compiler.grammar(*_key(params))


async def compile_apart(params: SamplingParams, tokenizer: Tokenizer) -> None:
    """Compile it for the `compile_grammar` that follows, in a thread that only grammars use; same errors.

    Strangers' slow grammars wait for one another there, and neither a text that is to be encoded nor a
    grammar that is known waits for them.
    """
    if not await asyncio.to_thread(_is_known, params, tokenizer):
        await asyncio.get_running_loop().run_in_executor(_APART, compile_grammar, params, tokenizer)


def _is_known(params: SamplingParams, tokenizer: Tokenizer) -> bool:
    compiler = _compilers.get(tokenizer)
    return compiler is not None and compiler.knows(_key(params))


def _key(params: SamplingParams) -> tuple[str, str]:
    if params.regex is not None:
        return "regex", _regex(params.regex)
    return "json_schema", _schema(params.json_schema)


class _Compiler:
    def __init__(self, tokenizer: Tokenizer) -> None:
        library = _library()
        self._eos, self._tokens = tokenizer.eos, tokenizer.size
        wrapper = library.TokenizerWrapper(_Pieces(tokenizer))
        self._tokenizer = library.LLTokenizer(wrapper, n_vocab=tokenizer.size, eos_token=tokenizer.eos)
        self._known: OrderedDict[tuple[str, str], Grammar] = OrderedDict()
        self._lock, self._turn = Lock(), Lock()  # what is known never waits for what is being compiled

    def grammar(self, kind: str, text: str) -> Grammar:
        key = (kind, text)
        if (known := self._recall(key)) is not None:
            return known
        with self._turn:
            grammar = self._recall(key) or self._compiled(kind, text)
        with self._lock:
            self._known[key] = grammar
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return grammar

    def knows(self, key: tuple[str, str]) -> bool:
        return self._recall(key) is not None

    def _recall(self, key: tuple[str, str]) -> Grammar | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def _compiled(self, kind: str, text: str) -> Grammar:
        library = _library()
        try:
            if kind == "regex":
                source = library.LLMatcher.grammar_from_regex(text)
            else:
                options = {"whitespace_pattern": BLANK, "lenient": False}
                source = library.LLMatcher.grammar_from_json_schema(text, overrides=options)
            build = partial(self._built, source)
            error = _checked(source) or _tried(build)
        except ValueError as wrong:
            error = str(wrong)
        need(not error, f"{kind} cannot be used ({_reason(error)})", fix=SIMPLER, error=GrammarError)
        return Grammar(build, self._eos, self._tokens)

    def _built(self, source: str) -> Any:
        library = _library()
        limits = library.LLParserLimits(**LIMITS)
        return library.LLMatcher(self._tokenizer, source, log_level=0, limits=limits)


class _Pieces:
    """A tokenizer as llguidance reads it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id, self.bos_token_id = tokenizer.eos, tokenizer.bos
        self.tokens = [tokenizer.token_bytes(i) or f"<{i}>".encode() for i in range(tokenizer.size)]
        self.special_token_ids = np.flatnonzero(tokenizer.byte_lengths() == 0).tolist()  # never text
        self._tokenizer = ref(tokenizer)  # or the compiler, and with it this, would keep its own key alive

    def __call__(self, text: str) -> list[int]:
        tokenizer = self._tokenizer()
        assert tokenizer is not None, "the tokenizer of this grammar is gone"
        return tokenizer.encode(text)


_compilers: WeakKeyDictionary[Tokenizer, _Compiler] = WeakKeyDictionary()
_lock = Lock()
_APART = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        what = "json_schema and regex need llguidance, which is not installed"
        need(False, what, fix="pip install 'fathom-lm[serve]'", error=GrammarError)
    return llguidance


def _checked(source: str) -> str:
    """What is wrong with a grammar, found in a process that cannot outlive its limits; "" if nothing is."""
    program = str(Path(__file__).with_name("grammar_check.py"))  # by path: the package would import torch
    asked = json.dumps({"grammar": source, "limits": LIMITS, "bytes": MEMORY})
    try:
        done = subprocess.run(
            [sys.executable, "-P", program], input=asked.encode(), capture_output=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"it takes more than {SECONDS:g} s to compile"
    except OSError as error:
        return f"no process to compile it in: {error.strerror}"
    try:
        return str(json.loads(done.stdout)["error"])
    except (ValueError, KeyError):
        return f"it takes more than {MEMORY >> 20} MiB to compile, or breaks the compiler"


def _tried(build: Callable[[], Any]) -> str:
    """What is wrong with a grammar that every answer to it builds once more; "" if nothing is."""
    began = time.thread_time()
    error = str(build().get_error())
    if not error and time.thread_time() - began > ANSWER_SECONDS:
        error = f"an answer to it takes more than {ANSWER_SECONDS:g} s to begin"
    return error


def _regex(text: Any) -> str:
    known = isinstance(text, str)
    need(known, f"regex={quoted(text)} is not a text", fix="give it as a text", error=GrammarError)
    size = len(str(text).encode("utf-8", errors="surrogatepass"))
    what = f"the regex has {size} bytes, above {REGEX_BYTES}"
    need(size <= REGEX_BYTES, what, fix=SIMPLER, error=GrammarError)
    valid = not any(0xD800 <= ord(character) < 0xE000 for character in text)
    need(valid, "the regex is no valid Unicode", fix="take lone surrogates out", error=GrammarError)
    return re.sub(r"\\(.)", lambda pair: "[0-9]" if pair[1] == "d" else pair[0], str(text), flags=re.DOTALL)


def _schema(schema: Any) -> str:
    """The schema as JSON text, keys in their order; measured before anything recursive reads it."""
    known = isinstance(schema, (str, Mapping))
    what = f"json_schema={quoted(schema)} is neither JSON nor a table"
    need(known, what, fix="give JSON text or a dict", error=GrammarError)
    _measure(*(_size_of_text(schema) if isinstance(schema, str) else _size_of_table(schema)))
    try:
        value = json.loads(schema) if isinstance(schema, str) else dict(schema)
        value = {} if value is True else value  # JSON Schema's two shortest: everything, nothing
        text = json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        need(False, f"json_schema is not JSON ({_reason(str(error))})", fix="correct it", error=GrammarError)
    _measure(len(text), 0)
    return text


def _measure(size: int, depth: int) -> None:
    what = f"json_schema has more than {SCHEMA_BYTES} bytes"
    need(size <= SCHEMA_BYTES, what, fix=SIMPLER, error=GrammarError)
    what = f"json_schema nests more than {SCHEMA_DEPTH} objects and lists"
    need(depth <= SCHEMA_DEPTH, what, fix=SIMPLER, error=GrammarError)


def _size_of_text(schema: str) -> tuple[int, int]:
    if len(schema) > SCHEMA_BYTES:
        return len(schema), 0
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", schema, flags=re.DOTALL)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return len(schema), deepest


def _size_of_table(schema: Mapping[str, Any]) -> tuple[int, int]:
    """Values at least, and depth, both no further than the limits: the table may hold itself."""
    level: list[Any] = [schema]
    count = depth = 0
    while level and count <= SCHEMA_BYTES and depth <= SCHEMA_DEPTH:
        count += len(level)
        nested = [x for x in level if isinstance(x, (Mapping, list, tuple))]
        depth += bool(nested)
        level = []
        for x in nested:
            level += list(x.values()) if isinstance(x, Mapping) else list(x)
            if count + len(level) > SCHEMA_BYTES:
                break
    return count + len(level), depth


def _reason(error: str) -> str:
    """The heart of a message of llguidance or json, short and on one line."""
    text = " ".join(error.replace("<non-verbose/>", "").replace(NOTHING, "no text can satisfy it").split())
    for mark in ("(in regex): ", "error: "):
        text = text.split(mark)[-1]
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text.split(" 1 | ")[0])
    return (text if len(text) <= 120 else f"{text[:117]}...").rstrip(" .") or "no reason is known"
