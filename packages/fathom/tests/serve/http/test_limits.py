"""Bodies, queues, slow clients: what is too much is refused before it costs anything."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

TEXT = "/v1/completions"
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


def plugged(one: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", one.port), timeout=10)


def whole(plug: socket.socket) -> bytes:
    """An answer of one object, while its connection stays open."""
    got = b""
    while not got.endswith(b"}}"):
        piece = plug.recv(65536)
        assert piece, got
        got += piece
    return got


def status(plug: socket.socket) -> int:
    return int(plug.recv(65536).split(b" ", 2)[1])


def test_a_chunked_body_is_counted_as_it_comes(serve: Callable[..., Any]) -> None:
    one, sent = serve(body_bytes=100_000), 0

    def endless() -> Any:
        nonlocal sent
        while sent < 50_000_000:
            sent += 10_000
            yield b" " * 10_000

    with httpx.Client(base_url=one.url) as http:
        try:
            answer = http.post(TEXT, content=endless(), headers={"Content-Type": "application/json"})
            assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"
        except httpx.WriteError:  # it may also notice at the next piece that nobody listens
            pass
        assert sent < 10_000_000
        assert http.get("/health").status_code == 200
        fits = http.post(
            TEXT, content=iter([b'{"prompt"', b': "x"}']), headers={"Content-Type": "application/json"}
        )
        assert fits.status_code == 200


def test_a_slow_body_has_an_end(serve: Callable[..., Any]) -> None:
    one = serve(body_seconds=0.3)
    with plugged(one) as plug:
        plug.sendall(HEAD + b"Content-Length: 20\r\n\r\n")
        for _ in range(5):
            plug.sendall(b" ")
            time.sleep(0.05)
        assert status(plug) == 408
    until(lambda: one.service.doors.inside == 0)


def test_a_slow_head_has_an_end(serve: Callable[..., Any]) -> None:
    one = serve(header_seconds=0.3)
    for begin in (b"", b"GET / HT", HEAD):
        with plugged(one) as plug:
            plug.sendall(begin)
            began = time.monotonic()
            assert plug.recv(100) == b"" and time.monotonic() - began < 3


def test_a_kept_connection_with_half_a_head_has_an_end(serve: Callable[..., Any]) -> None:
    one = serve(header_seconds=0.3)
    with plugged(one) as plug:
        plug.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status(plug) == 200
        plug.sendall(b"GET /hea")
        plug.settimeout(3)
        while plug.recv(65536):
            pass


def test_a_body_that_nobody_asked_for_has_an_end(serve: Callable[..., Any]) -> None:
    """It is announced with a GET, and begins when the answer is there."""
    one = serve(header_seconds=0.3)
    with plugged(one) as plug:
        plug.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert status(plug) == 200
        plug.sendall(b"x")
        plug.settimeout(3)
        with suppress(ConnectionResetError):
            while plug.recv(65536):
                pass


def test_the_queue_is_bounded_and_says_so_fast(serve: Callable[..., Any], played: Any) -> None:
    link = played()
    link.silent = True
    one = serve(link, running=2, queue=3, drain_seconds=0.1)
    with httpx.Client(base_url=one.url, timeout=30) as http:
        for _ in range(5):
            thread = threading.Thread(
                target=lambda: httpx.post(one.url + TEXT, json={"prompt": "x"}, timeout=30)
            )
            thread.start()
        until(lambda: link.opened == 5)
        http.get("/health")
        took = []
        for body in [b'{"prompt": "x"}', b"no json", b" " * 1_000_000] * 5:
            began = time.monotonic()
            answer = http.post(TEXT, content=body, headers={"Content-Type": "application/json"})
            took.append(time.monotonic() - began)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["type"] == "rate_limit_error"
        assert sorted(took)[len(took) // 2] < 0.05
        assert http.get("/health").status_code == http.get("/metrics").status_code == 200
    assert link.opened == 5


@pytest.mark.parametrize("why", ["full", "no key", "too large"])
def test_who_is_refused_hears_it_before_its_body_is_there(
    serve: Callable[..., Any], played: Any, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr("fathom.serve.intake.LINGER", 60.0)
    link = played()
    link.silent = True
    one = serve(link, running=1, queue=1, drain_seconds=0.1, keys=("first-key-1",) if why == "no key" else ())
    with plugged(one) as first, plugged(one) as second, plugged(one) as plug:
        if why == "full":
            first.sendall(HEAD + b"Content-Length: 20\r\n\r\n")
            second.sendall(HEAD + b"Content-Length: 20\r\n\r\n")
            until(lambda: one.service.doors.inside == 2)
        plug.sendall(HEAD + b"Content-Length: %d\r\n\r\n " % (10**9 if why == "too large" else 20))
        answer = whole(plug)
        assert int(answer.split(b" ", 2)[1]) == {"full": 429, "no key": 401, "too large": 413}[why]


LONG = "x" * 2049
TALK = {"messages": [{"role": "user", "content": LONG}]}
TOO_LONG = [
    ("/tokenize", {"prompt": LONG}), ("/tokenize", TALK), ("/v1/chat/completions", TALK),
    (TEXT, {"prompt": LONG}), (TEXT, {"prompt": ["x", LONG]}),
]  # fmt: skip


@pytest.mark.parametrize("path, body", TOO_LONG)
def test_a_text_that_no_tokens_could_fit_is_not_even_encoded(
    http: httpx.Client, link: Any, path: str, body: dict[str, Any]
) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == next(iter(body))
    assert "2,049 characters" in answer.text and link.encoded == link.opened == 0


@pytest.mark.parametrize("name", ["prompt", "messages"])
def test_tokenize_is_bounded_by_the_context(http: httpx.Client, link: Any, name: str) -> None:
    for tokens, expected in ((512, 200), (513, 400)):
        text = "x" * (tokens - 1)  # the begin of text is one, too
        body = {"prompt": text} if name == "prompt" else {"messages": [{"role": "user", "content": text}]}
        answer = http.post("/tokenize", json=body)
        assert answer.status_code == expected, answer.text
    assert answer.json()["error"]["param"] == name and "513 tokens" in answer.text


def test_a_body_that_waits_holds_a_place(serve: Callable[..., Any]) -> None:
    one = serve(running=1, queue=1, body_seconds=5)
    with plugged(one) as first, plugged(one) as second:
        for plug in (first, second):
            plug.sendall(HEAD + b"Content-Length: 20\r\n\r\n")
        until(lambda: one.service.doors.inside == 2)
        assert httpx.post(one.url + TEXT, json={"prompt": "x"}).status_code == 429
    until(lambda: one.service.doors.inside == 0)
    assert httpx.post(one.url + TEXT, json={"prompt": "x"}).status_code == 200


EXACT = {   # what just fits; one more is in malformed.py
    "n": 8, "stop": ["x" * 64] * 16, "logit_bias": {str(k % 1000): 1 for k in range(1000)}, "max_tokens": 512,
    "user": "x" * 512, "temperature": 2, "seed": 2**64 - 1, "top_k": -1,
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_what_just_fits_is_taken(http: httpx.Client, link: Any, name: str) -> None:
    messages = [{"role": "user", "content": "x"}]
    answer = http.post("/v1/chat/completions", json={"messages": messages, name: EXACT[name]})
    assert answer.status_code == 200, answer.text


def test_messages_tools_schemas_and_prompts_that_just_fit(http: httpx.Client, link: Any) -> None:
    message, deep = {"role": "user", "content": "x"}, {}
    for _ in range(31):
        deep = {"items": deep}
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": deep}}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    for body in ({"messages": [message] * 2048}, {"messages": [message], "tools": [tool] * 128},
                 {"messages": [message], "response_format": schema},
                 {"messages": [message], "logprobs": True, "top_logprobs": 20}):  # fmt: skip
        assert http.post("/v1/chat/completions", json=body).status_code == 200
    assert http.post(TEXT, json={"prompt": ["x"] * 64}).status_code == 200
    assert http.post(TEXT, json={"prompt": [1] * 512}).status_code == 200


def test_a_body_of_just_the_limit_fits(http: httpx.Client, link: Any) -> None:
    for spare, expected in ((0, 200), (1, 413)):
        frame = json.dumps({"prompt": "x"}).encode()
        body = frame + b" " * ((2 << 20) - len(frame) + spare)
        answer = http.post(TEXT, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == expected
