"""The `openai` client against a real server: every field we accept, all at once and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from fathom.serve.chat import KNOWN as CHAT_KNOWN
from fathom.serve.completions import KNOWN as TEXT_KNOWN
from fathom.serve.wire import News, Refused, ToolCall

HI = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "now", "description": "d", "parameters": SCHEMA, "strict": False},
    }
]
BOTH = {  # field: (as the client gives it, field of Ask.sampling, what stands there)
    "temperature": (0.5, "temperature", 0.5),
    "top_p": (0.9, "top_p", 0.9),
    "presence_penalty": (0.5, "presence_penalty", 0.5),
    "frequency_penalty": (-2, "frequency_penalty", -2.0),
    "logit_bias": ({"97": 5, "98": -100}, "logit_bias", {97: 5.0, 98: -100.0}),
    "stop": (["a", "b"], "stop", ["a", "b"]),
    "seed": (-1, "seed", 2**64 - 1),
    "n": (3, "n", 3),
    "max_tokens": (4, "max_tokens", 4),
    "user": ("ada", None, None),
}
EXTRA = {  # fields that OpenAI does not have
    "top_k": (40, "top_k", 40),
    "min_p": (0.1, "min_p", 0.1),
    "repetition_penalty": (1.1, "repetition_penalty", 1.1),
    "ignore_eos": (True, "ignore_eos", True),
    "fathom_details": (True, None, None),
}
CHAT = {
    "max_completion_tokens": (4, "max_tokens", 4),
    "logprobs": (True, "logprobs", 0),
    "tool_choice": ("auto", None, None),
    "tools": (TOOLS, None, None),
    "response_format": (
        {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
        "json_schema", SCHEMA,
    ),
}  # fmt: skip
TEXT = {
    "logprobs": (2, "logprobs", 2),
    "echo": (True, None, None),
    "response_format": ({"type": "json_object"}, "json_schema", {"type": "object"}),
}
OWN_WORDS = {"response_format"}  # the client's completions.create does not know it


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def words(name: str, value: Any, *, text: bool) -> dict[str, Any]:
    return {"extra_body": {name: value}} if name in EXTRA or (text and name in OWN_WORDS) else {name: value}


def said(stream: Any) -> tuple[str, list[Any]]:
    """The text of choice 0 over all chunks, and the chunks."""
    chunks = list(stream)
    parts = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == 0]
    return "".join((p.delta.content if hasattr(p, "delta") else p.text) or "" for p in parts), chunks


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", [*BOTH, *EXTRA, *CHAT])
def test_chat_takes_each_field(client: openai.OpenAI, link: Any, name: str, stream: bool) -> None:
    value, field, expected = (BOTH | EXTRA | CHAT)[name]
    more: dict[str, Any] = {"tools": TOOLS} if name == "tool_choice" else {}
    answer: Any = client.chat.completions.create(
        model="played", messages=HI, stream=stream, **more, **words(name, value, text=False)
    )
    text = said(answer)[0] if stream else answer.choices[0].message.content
    assert text in ("hello world", "hell")
    if field is not None:
        assert link.asks[0].sampling[field] == expected
    assert link.asks[0].messages == ({"role": "user", "content": "hi"},)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", [*BOTH, *EXTRA, *TEXT])
def test_completions_take_each_field(client: openai.OpenAI, link: Any, name: str, stream: bool) -> None:
    value, field, expected = (BOTH | EXTRA | TEXT)[name]
    answer: Any = client.completions.create(
        model="played", prompt="hi", stream=stream, **words(name, value, text=True)
    )
    text = said(answer)[0] if stream else answer.choices[0].text
    assert text in ("hello world", "hell", "hihello world")
    if field is not None:
        assert link.asks[0].sampling[field] == expected


def test_no_accepted_field_is_left_out() -> None:
    also = {"model", "messages", "prompt", "stream", "stream_options", "top_logprobs"}
    assert set(CHAT_KNOWN) == {*BOTH, *EXTRA, *CHAT} | also - {"prompt"}
    assert set(TEXT_KNOWN) | {"max_completion_tokens"} == {*BOTH, *EXTRA, *TEXT, "max_completion_tokens"} | (
        also - {"messages", "top_logprobs"}
    )


def test_a_chat_answer_has_openais_shape(client: openai.OpenAI, link: Any) -> None:
    answer = client.chat.completions.create(model="played", messages=HI, n=2)  # type: ignore[arg-type]
    assert (
        answer.object == "chat.completion" and answer.model == "played" and answer.id.startswith("chatcmpl-")
    )
    assert [c.index for c in answer.choices] == [0, 1]
    assert {c.finish_reason for c in answer.choices} == {"stop"}
    assert answer.usage is not None and answer.usage.prompt_tokens == 3
    assert answer.usage.completion_tokens == 22 and answer.usage.total_tokens == 25
    assert (
        answer.usage.prompt_tokens_details is not None
        and answer.usage.prompt_tokens_details.cached_tokens == 1
    )


def test_a_stream_begins_with_the_role_and_ends_with_a_reason(client: openai.OpenAI, link: Any) -> None:
    text, chunks = said(client.chat.completions.create(model="played", messages=HI,
        stream=True))  # type: ignore
    assert text == "hello world"
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].finish_reason is None
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all("usage" not in c.model_fields_set for c in chunks) and len({c.id for c in chunks}) == 1


def test_usage_comes_in_a_chunk_of_its_own(client: openai.OpenAI, link: Any) -> None:
    options = {"include_usage": True}
    _, chunks = said(client.chat.completions.create(
        model="played", messages=HI, stream=True, stream_options=options  # type: ignore[call-overload]
    ))  # fmt: skip
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 11
    assert all(c.usage is None and "usage" in c.model_fields_set for c in chunks[:-1])


def test_the_stream_on_the_wire(http: Any, link: Any) -> None:
    body = {"messages": HI, "stream": True, "max_tokens": 1}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert all(e.startswith("data: {") for e in events[:-2]) and events[-2:] == ["data: [DONE]", ""]


def test_logprobs_of_a_chat(client: openai.OpenAI, link: Any) -> None:
    answer = client.chat.completions.create(
        model="played", messages=HI, logprobs=True, top_logprobs=2  # type: ignore[arg-type]
    )  # fmt: skip
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    first = logprobs.content[0]
    assert (first.token, first.logprob, first.bytes) == ("h", -0.5, [104])
    assert [(t.token, t.logprob) for t in first.top_logprobs] == [("h", -0.5), ("i", -1.5)]
    assert len(logprobs.content) == 11


def test_half_a_character_has_its_bytes_and_impossible_tokens_a_finite_logprob(http: Any, link: Any) -> None:
    entry = (999, float("-inf"), ((999, float("-inf")),))
    link.script = [News(tokens=(999,), logprobs=(entry,), finish_reason="stop")]
    body = {"messages": HI, "logprobs": True}
    content = http.post("/v1/chat/completions", json=body).json()["choices"][0]["logprobs"]["content"]
    assert content[0]["bytes"] == [0xC3] and content[0]["logprob"] == -9999.0


def test_calls_of_tools(client: openai.OpenAI, link: Any) -> None:
    def script() -> list[Any]:
        return [
            News(text="Let me see. ", tokens=(1,)),
            News(tokens=(2,), tool_calls=(ToolCall(index=0, id="call_1", name="now"),)),
            News(tokens=(3,), tool_calls=(ToolCall(index=0, arguments='{"a"'),)),
            News(tokens=(4,), tool_calls=(ToolCall(index=0, arguments=": 1}"),), finish_reason="stop"),
        ]

    link.script = script()
    answer: Any = client.chat.completions.create(model="played", messages=HI, tools=TOOLS)  # type: ignore
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me see. "
    call = choice.message.tool_calls[0]
    assert (call.id, call.type, call.function.name, call.function.arguments) == (
        "call_1",
        "function",
        "now",
        '{"a": 1}',
    )
    assert link.asks[0].tools[0]["function"]["name"] == "now"
    with client.chat.completions.stream(model="played", messages=HI, tools=TOOLS) as stream:  # type: ignore
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    assert final.choices[0].message.tool_calls[0].function.arguments == '{"a": 1}'
    again = [*HI, choice.message.model_dump(), {"role": "tool", "tool_call_id": "call_1", "content": "3"}]
    client.chat.completions.create(model="played", messages=again, tools=TOOLS, tool_choice="none")
    assert link.asks[-1].messages[1]["tool_calls"][0]["function"] == {"name": "now", "arguments": '{"a": 1}'}
    assert link.asks[-1].tools == ()


def test_messages_in_every_form(client: openai.OpenAI, link: Any) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages: Any = [{"role": "developer", "content": "d"}, {"role": "user", "content": parts}]
    client.chat.completions.create(model="played", messages=messages)
    expected = ({"role": "system", "content": "d"}, {"role": "user", "content": "ab"})
    assert link.asks[0].messages == expected


def test_models(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["played"]
    assert client.models.retrieve("played").owned_by == "fathom"
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-4", prompt="")
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("request", openai.BadRequestError),
        ("busy", openai.RateLimitError),
        ("engine", openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses(
    client: openai.OpenAI, link: Any, kind: str, error: Any, stream: bool
) -> None:
    link.refuse = Refused(kind, "not so. Fix: otherwise")
    with pytest.raises(error, match="not so. Fix: otherwise") as caught:
        client.chat.completions.create(model="played", messages=HI,
            stream=stream)  # type: ignore[call-overload]
    assert ("retry-after" in caught.value.response.headers) == (kind != "request")


@pytest.mark.parametrize(
    "end",
    [
        Refused("engine", "it died. Fix: again"),
        News(finish_reason="error", error="it failed. Fix: again"),
        News(finish_reason="cancelled"),
    ],
)
def test_an_error_in_mid_stream_is_an_event(client: openai.OpenAI, link: Any, end: Any) -> None:
    link.script = [News(text="a", tokens=(97,)), end]
    stream: Any = client.chat.completions.create(model="played", messages=HI, stream=True)  # type: ignore
    with pytest.raises(openai.APIError, match="Fix: "):
        list(stream)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="played", messages=HI)  # type: ignore[arg-type]


def test_details_mark_drafts(http: Any, link: Any) -> None:
    link.script = [
        News(text="ab", tokens=(97, 98), accepted=1, prompt_tokens=4),
        News(text="c", tokens=(99,), accepted=0, rejected=(120, 121)),
        News(text="d", tokens=(100,), accepted=1, rejected=(122,)),
        News(text="e", tokens=(101,), finish_reason="stop", prompt_tokens=4),
    ]
    body = {"messages": HI, "fathom_details": True}
    answer = http.post("/v1/chat/completions", json=body).json()
    tokens = answer["choices"][0]["fathom"]["tokens"]
    assert [(t["text"], t["draft"], t["rejected"]) for t in tokens] == [
        ("a", "accepted", []), ("b", "", []), ("c", "", ["x", "y"]), ("d", "accepted", []), ("e", "", ["z"]),
    ]  # fmt: skip
    figures = answer["fathom"]
    assert (figures["drafted"], figures["accepted"]) == (5, 2)
    assert (figures["cache_bytes"], figures["plain_cache_bytes"]) == (90, 9 * 280)
    assert (figures["prompt_tokens"], figures["completion_tokens"]) == (4, 5)
    for options in ({}, {"stream_options": {"include_usage": True}}):
        streamed = http.post("/v1/chat/completions", json=body | {"stream": True} | options).text
        last = streamed.split("\n\n")[-3]
        assert '"tokens_per_second"' in last and streamed.count('"tokens_per_second"') == 1
