"""Whatever is wrong with a request is said in one line that names the field."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from fathom.engine.collect import Collector
from fathom.engine.request import MOST_STOPS, Request, RequestError, SamplingParams


class Strange:
    """A value that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def refuses(name: str, make: Any, *args: Any, **fields: Any) -> None:
    with pytest.raises(RequestError) as caught:
        make(*args, **fields)
    text = str(caught.value)
    assert name in text and "\n" not in text and ". Fix: " in text and not text.endswith("Fix: "), text
    assert len(text) < 250, text


WRONG_SAMPLING = {
    "stop": (None, 5, b"x", [b"x"], {"a": 1}, "", [""], ["a", None], ["a"] * (MOST_STOPS + 1), "a" * 300),
    "logit_bias": (None, [], [(1, 2.0)], 5, "1", {"1": 1.0}, {1: None}, {1: math.nan}, {True: 1.0}),
    "ignore_eos": ("no", None, 0, 1, []),
    "speculate": ("on", 0, 1, []),
    "max_tokens": (0, -1, 1.0, True, "5"),
    "temperature": (None, -0.1, math.nan, math.inf, True, "1"),
    "top_p": (0, 1.1, None),
    "top_k": (-1, None, 1.5),
    "min_p": (-0.1, 1.1, None),
    "presence_penalty": (None, math.nan, 101),
    "frequency_penalty": (None, math.nan, 101),
    "repetition_penalty": (0, None, 101),
    "seed": (-1, 2**64, 1.0, True),
    "n": (0, 65, None),
    "logprobs": (-1, 21, True),
}
WRONG_REQUEST = {
    "text": (5, b"", ["a"], True),
    "tokens": (5, "123", b"123", bytearray(b"1"), memoryview(b"1"), {1: 2}, {1}, True, 1.5),
    "messages": (5, "hello", b"", {"role": "user", "content": "a"}, True),
}


@pytest.mark.parametrize("name", WRONG_SAMPLING)
def test_sampling_that_is_wrong_is_named(name):
    for value in (*WRONG_SAMPLING[name], Strange()):
        refuses(name, SamplingParams, **{name: value})


@pytest.mark.parametrize("name", WRONG_REQUEST)
def test_a_prompt_that_is_wrong_is_named(name):
    for value in (*WRONG_REQUEST[name], Strange()):
        refuses(name, Request, **{name: value})


def test_the_rest_of_a_request_that_is_wrong_is_named():
    for sampling in (None, {}, {"temperature": 0}, SamplingParams, Strange()):
        refuses("sampling", Request, text="a", sampling=sampling)
    for key in (None, ["x"], 5, b"x", Strange()):
        refuses("key", Request, text="a", key=key)
    refuses("0 of text, tokens and messages", Request)
    refuses("2 of text, tokens and messages", Request, text="a", tokens=[1])
    refuses("json_schema", SamplingParams, json_schema="{}", regex="a")


def test_prompts_from_any_iterable_are_read_once():
    message = {"role": "user", "content": "a"}
    for listed in (list, tuple, iter, lambda each: (x for x in each)):
        assert Request(tokens=listed([5, 6, 5])).tokens == (5, 6, 5)
        assert Request(messages=listed([message])).messages == (message,)
    own = [5, 6]
    request = Request(tokens=own)
    own.append(7)
    assert request.tokens == (5, 6) == replace(request, key="x").tokens
    assert Request(tokens=[]).tokens == ()


def test_an_error_of_the_callers_own_iterable_is_not_hidden():
    def broken():
        yield 5
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        Request(tokens=broken())


def test_what_may_be_asked_is_taken():
    assert SamplingParams(stop="a").stop == SamplingParams(stop=["a"]).stop == ("a",)
    assert SamplingParams(stop=()).stops == ()
    for speculate in (None, True, False):
        assert SamplingParams(speculate=speculate, ignore_eos=True).speculate is speculate
    assert SamplingParams(logit_bias={1: -math.inf, 2: 3}).logit_bias[2] == 3


@pytest.mark.parametrize("requests", ["a", b"a", Request(text="a"), [5], [None], ["a", {}]])
def test_many_requests_are_a_list_of_texts_or_requests(requests):
    refuses("requests", Collector(None).run, requests)
