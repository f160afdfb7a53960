"""Clients that leave, and a server that ends."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fathom.serve.wire import Refused

TEXT = "/v1/completions"


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


def sent(one: Any, more: str) -> socket.socket:
    body = f'{{"prompt": "x"{more}}}'.encode()
    plug = socket.create_connection(("127.0.0.1", one.port), timeout=10)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    plug.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return plug


@pytest.mark.parametrize("more", [', "stream": true', "", ', "n": 2, "prompt": ["a", "b"]'])
@pytest.mark.parametrize("when", ["queued", "writing"])
def test_a_client_that_leaves_ends_its_request_at_once(served: Any, link: Any, more: str, when: str) -> None:
    link.silent, link.forever = when == "queued", when == "writing"
    with sent(served, more) as plug:
        until(lambda: link.opened > 0)
        if when == "writing" and "stream" in more:
            plug.recv(2000)
        time.sleep(0.05)
        assert link.closed == 0
    began = time.monotonic()
    until(lambda: link.closed == link.opened)
    assert time.monotonic() - began < 0.5
    until(lambda: served.service.doors.inside == 0)


@pytest.mark.parametrize("more", [', "stream": true', ""])
@pytest.mark.parametrize("pipelined", [b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_bytes_of_a_next_request_do_not_hide_that_its_client_left(
    served: Any, link: Any, more: str, pipelined: bytes
) -> None:
    link.forever = True
    with sent(served, more) as plug:
        until(lambda: link.opened > 0)
        time.sleep(0.05)  # the server waits for what the client does
        plug.sendall(pipelined)
        time.sleep(0.05)
        assert link.closed == 0
    until(lambda: link.closed == link.opened)
    until(lambda: served.service.doors.inside == 0)


def test_bytes_behind_a_request_without_end_close_its_connection(served: Any, link: Any) -> None:
    link.silent, piece, total = True, b"x" * 65536, 0
    with sent(served, "") as plug:
        until(lambda: link.opened > 0)
        with pytest.raises(ConnectionError):
            while total < 64 << 20:
                total += plug.send(piece)
    until(lambda: link.closed == link.opened)


@pytest.mark.parametrize("more", [', "stream": true', ""])
def test_tokens_of_a_client_that_left_are_counted(served: Any, link: Any, more: str) -> None:
    def figure(name: str) -> float:
        text = httpx.get(served.url + "/metrics").text
        return float(next(line for line in text.splitlines() if line.startswith(name)).split()[-1])

    names = "fathom:generation_tokens_total", "fathom:prompt_tokens_total", "fathom:request_abandoned_total"
    before = [figure(name) for name in names]
    link.forever = True
    with sent(served, more):
        until(lambda: figure(names[0]) >= before[0] + 20)
    until(lambda: link.closed == link.opened)
    until(lambda: figure(names[2]) == before[2] + 1)
    assert figure(names[1]) == before[1] + 3


def test_a_client_that_does_not_read_is_left(serve: Callable[..., Any], played: Any) -> None:
    from fathom.serve.wire import News

    link = played()
    link.script = [News(text="x" * 100_000, tokens=(1,)) for _ in range(1000)]
    one = serve(link, write_seconds=0.3)
    with sent(one, ', "stream": true'):
        until(lambda: link.closed == 1)
        until(lambda: one.service.doors.inside == 0)
        until(lambda: one.connections == 0)


def test_health_and_requests_while_the_engine_is_down(served: Any, link: Any, http: httpx.Client) -> None:
    link.info = None
    for answer in (http.get("/health"), http.post(TEXT, json={"prompt": "x"}), http.get("/v1/models")):
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "server_error"
    assert "fathom:engine_up 0.0" in http.get("/metrics").text
    link.info = type(link)().info
    assert http.get("/health").json() == {"status": "ok"}


def test_an_engine_that_makes_no_sign_is_not_well(served: Any, link: Any, http: httpx.Client) -> None:
    link.trouble = "the engine has made no sign for 31 s"
    answer = http.get("/health")
    assert answer.status_code == 503 and "no sign for 31 s. Fix: " in answer.json()["error"]["message"]
    link.trouble = ""
    assert http.get("/health").status_code == 200


def test_a_server_ends_in_one_line_when_its_engine_is_given_up(played: Any) -> None:
    import asyncio

    from fathom.config.errors import FathomError
    from fathom.serve.limits import Settings
    from fathom.serve.run import Running, listen

    link = played()

    def up(info: Any) -> None:
        link.gave_up = "10 engines in a row did not become ready. Fix: none"

    running = Running(link, Settings(), listen("127.0.0.1", 0, Settings()))
    with pytest.raises(FathomError, match="10 engines in a row") as told:
        asyncio.run(asyncio.wait_for(running.run(up), 10))
    assert told.value.exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_answers_finish(serve: Callable[..., Any], played: Any, number: Any) -> None:
    link, answers = played(), list[Any]()
    link.pause = 0.05
    one = serve(link)
    body = {"prompt": "x", "stream": True}
    threads = [
        threading.Thread(target=lambda: answers.append(httpx.post(one.url + TEXT, json=body, timeout=10)))
        for _ in range(3)
    ]
    with httpx.Client(base_url=one.url) as kept:
        assert kept.get("/health").status_code == 200
        for thread in threads:
            thread.start()
        until(lambda: link.opened == 3)
        one.signal(number)
        until(lambda: one.service.doors.draining)
        refused = kept.post(TEXT, json={"prompt": "x"})
        assert refused.status_code == 503 and "retry-after" in refused.headers
        assert kept.get("/health").status_code == 503
    for thread in threads:
        thread.join()
    assert one.end() == {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    assert all(a.text.endswith("data: [DONE]\n\n") and "error" not in a.text for a in answers)
    with pytest.raises(httpx.ConnectError):
        httpx.get(one.url + "/health")


def test_draining_has_an_end_and_a_second_signal_ends_it_sooner(
    serve: Callable[..., Any], played: Any
) -> None:
    for twice, seconds in ((False, 0.3), (True, 60.0)):
        link = played()
        link.forever = True
        one = serve(link, drain_seconds=seconds)
        with sent(one, ', "stream": true'):
            until(lambda link=link: link.opened == 1)
            began = time.monotonic()
            one.signal(signal.SIGTERM)
            if twice:
                until(lambda one=one: one.service.doors.draining)
                one.signal(signal.SIGTERM)
            assert one.end() == 75
            assert time.monotonic() - began < 6
            assert link.closed == 1


def test_an_engine_that_cannot_start_is_one_line(played: Any) -> None:
    import asyncio

    from fathom.config.errors import ConfigError
    from fathom.serve.limits import Settings
    from fathom.serve.run import Running, listen

    link = played()
    link.info = None
    running = Running(link, Settings(), listen("127.0.0.1", 0, Settings()))
    with pytest.raises(ConfigError, match="no model. Fix: give one"):
        asyncio.run(running.run(lambda info: None))
    assert isinstance(Refused("busy", "x"), Exception)
