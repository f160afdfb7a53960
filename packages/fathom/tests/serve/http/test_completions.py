"""Completions as evaluations use them: lists of prompts, token ids, echo, log probabilities, no new token."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from fathom.serve.wire import News

TEXT = "/v1/completions"
TAIL, PART = 998, 999  # of the played engine: the bytes of é
PROMPTS = {
    "a text": ("hi", ["hi"]),
    "texts": (["hi", "you"], ["hi", "you"]),
    "ids": ([104, 105], ["hi"]),
    "lists of ids": ([[104, 105], [121]], ["hi", "y"]),
    "both": ([[104, 105], "you"], ["hi", "you"]),
}


def ask(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post(TEXT, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("form", PROMPTS)
@pytest.mark.parametrize("n", [1, 2])
def test_prompts_in_every_form(http: httpx.Client, link: Any, form: str, n: int) -> None:
    prompt, texts = PROMPTS[form]
    answer = ask(http, prompt=prompt, n=n, echo=True, max_tokens=3)
    assert answer["object"] == "text_completion" and answer["id"].startswith("cmpl-")
    assert [c["index"] for c in answer["choices"]] == list(range(n * len(texts)))
    assert [c["text"] for c in answer["choices"]] == [text + "hel" for text in texts for _ in range(n)]
    assert {c["finish_reason"] for c in answer["choices"]} == {"length"}
    assert answer["usage"]["completion_tokens"] == 3 * n * len(texts)


def test_without_a_number_sixteen_tokens_are_written(http: httpx.Client, link: Any) -> None:
    ask(http, prompt="hi")
    assert link.asks[0].sampling["max_tokens"] == 16


@pytest.mark.parametrize("max_tokens", [0, 1, 2])
@pytest.mark.parametrize("form", PROMPTS)
def test_logprobs_of_an_echoed_prompt(http: httpx.Client, link: Any, form: str, max_tokens: int) -> None:
    prompt, texts = PROMPTS[form]
    answer = ask(http, prompt=prompt, echo=True, logprobs=2, max_tokens=max_tokens)
    for choice, text, given in zip(
        answer["choices"], texts, prompt if form != "ids" else [prompt], strict=False
    ):
        given = text if form == "a text" else given
        told = choice["logprobs"]
        assert "".join(told["tokens"]) == choice["text"] == text + "he"[:max_tokens]
        assert {len(told[name]) for name in told} == {len(text) + max_tokens}
        assert told["text_offset"] == list(range(len(text) + max_tokens))
        first = told["token_logprobs"][0]
        assert (first is None) == (not isinstance(given, str))  # behind a text's begin-of-text there is one
        assert (told["top_logprobs"][0] is None) == (first is None)
        for token, log, top in list(
            zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)
        )[1:]:
            assert top[token] == log and len(top) == 2 and max(top.values()) == log
    assert len(link.asks) == (len(texts) if max_tokens else 0)


def test_what_lm_eval_asks_and_reads(http: httpx.Client, link: Any) -> None:
    """Its local-completions: one token more than the context, and whether each was the likeliest."""
    context, target = [104, 105, 32], [121, 111]
    body = {
        "model": "played", "prompt": [context + target] * 2, "temperature": 0, "max_tokens": 1, "logprobs": 1,
        "seed": 1234, "echo": True,
    }  # fmt: skip
    answer = ask(http, **body)
    for choice in sorted(answer["choices"], key=lambda c: c["index"]):
        logs = choice["logprobs"]["token_logprobs"][len(context) : -1]
        tops = choice["logprobs"]["top_logprobs"][len(context) : -1]
        assert logs == [-1.21, -1.11] and all(
            log == max(top.values()) for log, top in zip(logs, tops, strict=True)
        )
    assert all(a.sampling["ignore_eos"] for a in link.asks)  # so that there is always one token more


def test_no_token_at_all(http: httpx.Client, link: Any) -> None:
    answer = ask(http, prompt="hi", max_tokens=0)
    assert answer["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip
    assert not link.asks


def test_logprobs_without_echo(http: httpx.Client, link: Any) -> None:
    told = ask(http, prompt="hi", max_tokens=2, logprobs=0)["choices"][0]["logprobs"]
    assert told == {
        "tokens": ["h", "e"], "token_logprobs": [-0.5, -0.5], "top_logprobs": [{"h": -0.5}, {"e": -0.5}],
        "text_offset": [0, 1],
    }  # fmt: skip


def test_of_tokens_that_look_the_same_the_likelier_counts(http: httpx.Client, link: Any) -> None:
    link.script = [News(tokens=(999,), logprobs=((999, -3.0, ((999, -1.0),)),), finish_reason="stop")]
    told = ask(http, prompt="hi", logprobs=1)["choices"][0]["logprobs"]
    assert told["top_logprobs"] == [{"\ufffd": -1.0}] and told["token_logprobs"] == [-3.0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("parts, text, offsets", [
    ([104, PART, TAIL, 105], "h\u00e9i", [0, 1, 1, 2]),
    ([104, PART, 105, TAIL], "h\ufffdi\ufffd", [0, 1, 2, 3]),
    ([104, PART], "h\ufffd", [0, 1]),
])  # fmt: skip
def test_the_text_of_ids_is_that_of_all_together(
    http: httpx.Client, link: Any, parts: list[int], text: str, offsets: list[int], stream: bool
) -> None:
    """A character of several tokens is one character, and what the engine writes begins behind it."""
    link.script = [
        News(tokens=(PART,), logprobs=((PART, -1.0, ()),)),
        News(text="\u00e9", tokens=(TAIL,), logprobs=((TAIL, -1.0, ()),)),
        News(text="!", tokens=(33,), logprobs=((33, -1.0, ()),), finish_reason="length"),
    ]
    body = {"prompt": parts, "echo": True, "logprobs": 0, "max_tokens": 3, "stream": stream}
    if stream:
        events = http.post(TEXT, json=body).text.split("\n\n")[:-2]
        told = [json.loads(one.removeprefix("data: "))["choices"][0] for one in events]
    else:
        told = ask(http, **body)["choices"]
    assert "".join(one["text"] for one in told) == text + "\u00e9!"
    end = len(text)
    found = [place for one in told for place in one["logprobs"]["text_offset"]]
    assert found == [*offsets, end, end, end + 1]


def test_streamed_it_is_the_same_text(http: httpx.Client, link: Any) -> None:
    body = {"prompt": ["hi", [121]], "n": 2, "echo": True, "logprobs": 1, "max_tokens": 3, "stream": True}
    events = http.post(TEXT, json=body).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    texts: dict[int, str] = {}
    offsets: dict[int, list[int]] = {}
    for event in events[:-2]:
        for choice in json.loads(event.removeprefix("data: "))["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
            offsets.setdefault(choice["index"], []).extend(choice["logprobs"]["text_offset"])
    assert texts == {0: "hihel", 1: "hihel", 2: "yhel", 3: "yhel"}
    assert offsets[0] == list(range(5)) and offsets[2] == list(range(4))


def test_one_prompt_that_is_refused_refuses_all(http: httpx.Client, link: Any) -> None:
    from fathom.serve.wire import Refused

    link.refuse = Refused("busy", "full. Fix: later")
    assert http.post(TEXT, json={"prompt": ["a", "b", "c"]}).status_code == 429
    assert link.opened == link.closed == 0
