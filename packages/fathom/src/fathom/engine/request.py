"""What is asked of the engine and what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Any

from fathom.config.errors import FathomError, need, quoted

MOST_N = 64  # sequences of one request: each may hold pages
MOST_LOGPROBS = 20  # alternatives per token, as in OpenAI's interface
MOST_STOPS = 16
MOST_BIAS = 1e9  # far beyond every logit; sums of such numbers stay exact enough to compare
LONGEST_STOP = 256  # characters; text that could begin a stop string is held back
UNLISTED = (str, bytes, bytearray, memoryview, Mapping, Set)  # iterable, and no list of ids or messages


class RequestError(FathomError):
    """A request that can never be served as it is; exit status 2."""

    exit_code = 2


class BusyError(FathomError):
    """The queue is full; the same request may be served later; exit status 75."""

    exit_code = 75


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How tokens are chosen and when to stop. Errors: RequestError names the field and its range."""

    max_tokens: int | None = None  # None = as many as the context holds
    temperature: float = 1.0  # 0 = always the likeliest token
    top_p: float = 1.0  # the smallest set of likeliest tokens that holds this probability
    top_k: int = 0  # the k likeliest; 0 = all
    min_p: float = 0.0  # tokens at least this share as likely as the likeliest
    presence_penalty: float = 0.0  # subtracted once from each token that was written
    frequency_penalty: float = 0.0  # subtracted for every time it was written
    repetition_penalty: float = 1.0  # logits of tokens in prompt or answer are divided (if positive) by it
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of these ids
    stop: str | Many[str] = ()  # the answer ends before the first of these texts
    ignore_eos: bool = False  # write on past the end-of-text token
    seed: int | None = None  # given = the same tokens every time, alone or in company, MTP on or off
    n: int = 1  # answers to the one prompt
    logprobs: int | None = None  # given = log probability of each token, and of so many likeliest ones
    json_schema: str | Mapping[str, Any] | None = None  # the answer is JSON of this schema
    regex: str | None = None  # the whole answer matches this
    # False forbids drafts. None and True leave to the engine whether it drafts, for no answer depends on it;
    # True only insists that it could: without an MTP module, or speculation off, the request is refused.
    speculate: bool | None = None

    def __post_init__(self) -> None:
        self._check_stop()
        self._check_bias()
        _flag(self, "ignore_eos")
        _flag(self, "speculate", optional=True)
        _whole(self, "max_tokens", 1, 10**9, optional=True)
        _real(self, "temperature", 0.0, 100.0)
        _real(self, "top_p", 0.0, 1.0, above=True)
        _whole(self, "top_k", 0, 10**9)
        _real(self, "min_p", 0.0, 1.0)
        _real(self, "presence_penalty", -100.0, 100.0)
        _real(self, "frequency_penalty", -100.0, 100.0)
        _real(self, "repetition_penalty", 0.0, 100.0, above=True)
        _whole(self, "seed", 0, 2**64 - 1, optional=True)
        _whole(self, "n", 1, MOST_N)
        _whole(self, "logprobs", 0, MOST_LOGPROBS, optional=True)
        both = self.json_schema is not None and self.regex is not None
        need(not both, "json_schema and regex are both given", fix="give one of them", error=RequestError)

    def _check_bias(self) -> None:
        fix = "map token ids to numbers, or leave it out"
        _kind("logit_bias", self.logit_bias, Mapping, "a table", fix=fix)
        for token, bias in self.logit_bias.items():
            whole = isinstance(token, int) and not isinstance(token, bool)
            number = isinstance(bias, (int, float)) and (abs(bias) <= MOST_BIAS or abs(bias) == math.inf)
            what = f"logit_bias has {quoted(token)}: {quoted(bias)}"
            fix = f"map token ids to numbers up to {MOST_BIAS:g}, or infinite ones"
            need(whole and number, what, fix=fix, error=RequestError)

    def _check_stop(self) -> None:
        fix = "give one text or a list of them, or leave it out"
        _kind("stop", self.stop, (str, Many), "a list of texts", fix=fix)
        object.__setattr__(self, "stop", self.stops)
        fits = all(isinstance(s, str) and 0 < len(s) <= LONGEST_STOP for s in self.stops)
        what = f"stop={quoted(self.stop)} is not a list of texts"
        fix = f"give at most {MOST_STOPS} texts of 1 to {LONGEST_STOP} characters"
        need(fits and len(self.stops) <= MOST_STOPS, what, fix=fix, error=RequestError)

    @property
    def stops(self) -> tuple[str, ...]:
        """`stop` as a list, also where it is one text."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One prompt: a text, token ids or a conversation; exactly one of the three.

    Token ids and messages may come from any iterable, which is read once, here. Errors: RequestError names
    the field. Single ids and messages are checked where the request is submitted.
    """

    text: str | None = None  # plain text; a begin-of-text token is put before it
    tokens: Many[int] | None = None  # taken as they are
    messages: Many[Mapping[str, Any]] | None = None  # put into the chat template
    sampling: SamplingParams = field(default_factory=SamplingParams)
    key: str = ""  # whose request: keys take turns in the queue

    def __post_init__(self) -> None:
        given = sum(x is not None for x in (self.text, self.tokens, self.messages))
        what = f"a request has {given} of text, tokens and messages"
        need(given == 1, what, fix="give exactly one of them", error=RequestError)
        if self.text is not None:
            _kind("text", self.text, str, "a text", fix="give a str")
        for name in ("tokens", "messages"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _listed(name, getattr(self, name)))
        _kind("sampling", self.sampling, SamplingParams, "SamplingParams", fix="give one, or leave it out")
        _kind("key", self.key, str, "a text", fix="give a str, or leave it out")


@dataclass(frozen=True, slots=True)
class Logprob:
    """Natural log of the model's own probability of a token, before temperature, bias and penalties."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token, log probability) of the likeliest, in that order


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """News of one sequence: what a step added to it."""

    request_id: int
    index: int  # which of the n answers
    text: str = ""  # certain by now; joined over all deltas it is the answer
    tokens: tuple[int, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    finish_reason: str | None = None  # "stop", "length", "cancelled" or "error"; the last delta has one
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of these, found in the prefix tree
    accepted: int = 0  # so many of `tokens`, from the first on, were drafts that stood
    rejected: tuple[int, ...] = ()  # drafts behind them that fell; the next token stands for the first
    error: str = ""  # with finish_reason "error": one line


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One finished answer."""

    index: int
    text: str
    tokens: tuple[int, ...]  # the end-of-text token is not among them
    finish_reason: str
    logprobs: tuple[Logprob, ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """All answers to one request."""

    request_id: int
    prompt_tokens: int
    cached_tokens: int
    completions: tuple[Completion, ...]

    @property
    def text(self) -> str:
        """The first answer."""
        return self.completions[0].text


def _kind(name: str, value: object, kind: Any, says: str, *, fix: str) -> None:
    need(isinstance(value, kind), f"{name}={quoted(value)} is not {says}", fix=fix, error=RequestError)


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    """`value` as a tuple. Texts, bytes, tables and sets are iterable too, and always meant otherwise."""
    try:
        each = None if isinstance(value, UNLISTED) else iter(value)
    except TypeError:  # beyond `Iterable`: an array of no dimension says only here that it cannot
        each = None
    fix = f"give {name} as a list"
    need(each is not None, f"{name}={quoted(value)} is not a list", fix=fix, error=RequestError)
    return tuple(each or ())


def _flag(params: SamplingParams, name: str, *, optional: bool = False) -> None:
    value = getattr(params, name)
    known = isinstance(value, bool) or (optional and value is None)
    says, fix = ("True, False or None", "one of them") if optional else ("True or False", "either")
    need(known, f"{name}={quoted(value)} is not {says}", fix=f"set {name} to {fix}", error=RequestError)


def _whole(params: SamplingParams, name: str, low: int, high: int, *, optional: bool = False) -> None:
    value = getattr(params, name)
    if value is None and optional:
        return
    whole = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    what = f"{name}={quoted(value)} is not a whole number from {low} to {high}"
    need(whole, what, fix=f"set {name} within these bounds", error=RequestError)


def _real(params: SamplingParams, name: str, low: float, high: float, *, above: bool = False) -> None:
    value = getattr(params, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = number and (low < value if above else low <= value) and value <= high
    bounds = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
    what = f"{name}={quoted(value)} is not a number {bounds}"
    need(fits, what, fix=f"set {name} within these bounds", error=RequestError)
