"""Clients that leave, wait, lie, or send what is no request."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from faults import LONG, fault, request, streamed, streams, told, unread, waits
from soak_server import CHAT, ENGINE, SETTINGS, TEXT, Plug, Server, until

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LEFT = "the request ends, its pages are back"


def leave(server: Server, data: bytes, *, seconds: float = 0.0, resets: bool = False) -> str:
    with Plug(server) as plug:
        plug.send(data)
        time.sleep(seconds)
        if resets:
            plug.reset()
    return "left"


@fault("gone before the request line", "nothing", quick=True)
def _(server: Server) -> str:
    return leave(server, b"")


@fault("gone within the request line", "nothing", quick=True)
def _(server: Server) -> str:
    return leave(server, b"POST /v1/comple")


@fault("gone within the headers", "nothing", quick=True)
def _(server: Server) -> str:
    return leave(server, HEAD[:60])


@fault("gone before the body", LEFT, quick=True)
def _(server: Server) -> str:
    return leave(server, HEAD + b"Content-Length: 20\r\n\r\n", seconds=0.05)


@fault("gone within the body", LEFT, quick=True)
def _(server: Server) -> str:
    return leave(server, HEAD + b'Content-Length: 20\r\n\r\n{"prompt', seconds=0.05, resets=True)


@fault("gone behind the body, before the first token", LEFT, quick=True)
def _(server: Server) -> str:
    return leave(server, streamed(), resets=True)


@fault("gone while an answer is streamed", LEFT, quick=True)
def _(server: Server) -> str:
    with streams(server, 1):
        return "left"


@fault("reset while an answer with n=3 is streamed", LEFT, quick=True)
def _(server: Server) -> str:
    with streams(server, 1, n=3) as (plug,):
        plug.reset()
    return "left"


@fault("gone while a whole answer is written", LEFT, quick=True)
def _(server: Server) -> str:
    with Plug(server) as plug:
        plug.send(request(TEXT, LONG | {"n": 2}))
        waits(server, "num_requests_running", 2)
    return "left"


@fault("gone while a long prompt is read", LEFT, quick=True)
def _(server: Server) -> str:
    with Plug(server) as plug:
        plug.send(request(TEXT, unread(stream=True)))
        waits(server, "num_requests_running", 1)
        plug.reset()
    return "left"


@fault("gone while its prompt is scored", LEFT)
def _(server: Server) -> str:
    body = unread() | {"echo": True, "logprobs": 1, "max_tokens": 0}
    return leave(server, request(TEXT, body), seconds=0.05)


@fault("gone while it is queued", "it never runs; the others go on", quick=True)
def _(server: Server) -> str:
    with streams(server, ENGINE["max_running"]) as plugs:
        with Plug(server) as late:
            late.send(streamed())
            waits(server, "num_requests_waiting", 1)
        waits(server, "num_requests_waiting", 0)
        waits(server, "num_requests_running", ENGINE["max_running"])
        assert all(plug.some() for plug in plugs)
    return "left, and all that ran went on"


@fault("half-closed behind the request", "it counts as gone: closed, its pages are back", quick=True)
def _(server: Server) -> str:
    with Plug(server) as plug:
        plug.send(streamed())
        plug.socket.shutdown(1)
        rest = plug.rest()
        assert b"[DONE]" not in rest
    return "closed" if not rest else "broken off and closed"


@fault("half-closed within the body", "closed, its place is free", quick=True)
def _(server: Server) -> str:
    with Plug(server) as plug:
        plug.send(HEAD + b'Content-Length: 20\r\n\r\n{"prompt')
        plug.socket.shutdown(1)
        return told(plug.rest())


@fault("headers a byte at a time", "closed when a head's time is over", quick=True)
def _(server: Server) -> str:
    began = time.monotonic()
    with Plug(server) as plug:
        plug.socket.settimeout(0.05)
        for byte in HEAD * 20:
            try:
                plug.send(bytes([byte]))
                if plug.some() == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert time.monotonic() - began < 10 * SETTINGS["header_seconds"]
    return "closed"


@fault("a body a byte at a time", "408 when a body's time is over", quick=True)
def _(server: Server) -> str:
    with Plug(server) as plug:
        plug.send(HEAD + b"Content-Length: 1000\r\n\r\n")
        for _ in range(10):
            plug.send(b" ")
            time.sleep(0.02)
        answer = told(plug.rest())
        assert answer == "408", answer
        return answer


@fault("a reader of 500 bytes at a time", "it gets all of it", quick=True)
def _(server: Server) -> str:
    with Plug(server, buffer=2048) as plug:
        plug.send(streamed(max_tokens=150))
        data = b""
        while piece := plug.some(500):
            data += piece
            time.sleep(0.002)
        answer = told(data)
        assert answer == "200, a stream that ended with length", answer
        return answer


@fault("a reader that never reads", "closed when its time is over, its pages are back")
def _(server: Server) -> str:
    before = server.figures()["request_abandoned_total"]
    with Plug(server, buffer=2048) as plug:
        plug.send(streamed(n=4, logprobs=20, fathom_details=True))
        until(lambda: server.figures()["request_abandoned_total"] > before, what="that it is left")
        until(server.idle, what="rest")
        assert b"[DONE]" not in plug.rest()
    return "broken off and closed"


@fault("two requests in one packet", "both are answered, in order", quick=True)
def _(server: Server) -> str:
    first = request(TEXT, {"prompt": "Tom", "echo": True, "max_tokens": 1}, head="")
    second = request(TEXT, {"prompt": "Lily", "echo": True, "max_tokens": 1})
    with Plug(server) as plug:
        answer = plug.send(first + second).rest()
    assert answer.count(b"HTTP/1.1 200") == 2 and answer.index(b'"Tom') < answer.index(b'"Lily')
    return "200, 200"


@fault("gone with two requests sent", "both end")
def _(server: Server) -> str:
    return leave(server, request(TEXT, LONG, head="") + streamed(), seconds=0.1)


@fault("a body longer than its length", "400 for each part, or closed", quick=True)
def _(server: Server) -> str:
    with Plug(server) as plug:
        answer = plug.send(HEAD + b'Content-Length: 9\r\n\r\n{"prompt": "x"}\r\n\r\n').rest()
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 400") >= 1, answer
    return ", ".join(["400"] * answer.count(b"HTTP/1.1 400"))


# What is sent, whole, and what may come of it.
SENT = [
    ("a body shorter than its length", "408 when a body's time is over",
     HEAD + b'Content-Length: 999\r\n\r\n{"prompt": "x"}', ("408",)),
    ("a length that is no number", "400",
     HEAD + b"Content-Length: -1\r\n\r\n{}", ("400",)),
    ("chunks that are none", "400 or closed",
     HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", ("400", "closed")),
    ("a header of 60 KB", "431, 400 or closed",
     HEAD + b"X: " + b"x" * 60_000 + b"\r\n\r\n", ("431", "400", "closed")),
    ("a thousand headers", "431, 400 or closed",
     HEAD + b"X: x\r\n" * 1000 + b"Content-Length: 2\r\n\r\n{}", ("431", "400", "closed")),
    ("NUL in a header", "400",
     HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}", ("400",)),
    ("TLS to a plain port", "400 or closed",
     bytes.fromhex("16030100c8010000c40303") + bytes(200), ("400", "closed")),
]  # fmt: skip


def answered(sent: bytes, allowed: tuple[str, ...]) -> Callable[[Server], str]:
    """A fault that is bytes, to which one of these is the answer."""

    def one(server: Server) -> str:
        with Plug(server) as plug:
            answer = told(plug.send(sent).rest())
        assert answer in allowed, answer
        return answer

    return one


for name, expected, sent, allowed in SENT:
    fault(name, expected, quick=True)(answered(sent, allowed))


@fault("a length and chunks", "one answer, and closed: nothing is read twice", quick=True)
def _(server: Server) -> str:
    second = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Plug(server) as plug:
        plug.send(HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second)
        answer = plug.rest()
    assert answer.count(b"HTTP/1.1 ") == 1 and b'"status"' not in answer, "the second request was answered"
    return told(answer)


@fault("Expect: 100-continue", "100, then 200", quick=True)
def _(server: Server) -> str:
    body = b'{"prompt": "x", "max_tokens": 1}'
    with Plug(server) as plug:
        head = HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        begun = plug.send(head).first(b"\r\n\r\n")
        assert begun.startswith(b"HTTP/1.1 100"), begun
        answer = told(plug.send(body).rest())
        assert answer == "200", answer
        return f"100, {answer}"


@fault("100 connections that say nothing", "closed when a head's time is over", quick=True)
def _(server: Server) -> str:
    with ExitStack() as stack:
        plugs = [stack.enter_context(Plug(server)) for _ in range(100)]
        assert all(plug.rest() == b"" for plug in plugs)
    return "100 closed"


@fault("600 connections at once", "those above the limit are closed, the others after their time")
def _(server: Server) -> str:
    with ExitStack() as stack:
        plugs = [stack.enter_context(Plug(server)) for _ in range(600)]
        assert all(plug.rest() == b"" for plug in plugs)
    return "600 closed"


@fault("60 long requests at once", "some get 429 with Retry-After; those inside end when their client leaves")
def _(server: Server) -> str:
    with ExitStack() as stack:
        plugs = [stack.enter_context(Plug(server)) for _ in range(60)]
        for plug in plugs:
            plug.send(request(CHAT, {"messages": [{"role": "user", "content": "Mia"}], "max_tokens": 1000}))
        refused = f'http_requests_total{{route="{CHAT}",status="429"}}'
        until(lambda: server.figures().get(refused, 0) >= 20, what="20 times 429")
        waits(server, "num_requests_inside", 40)
    return "20 of 60 got 429"


@fault("no key, and a wrong one", "401, and nothing is taken up", server="keyed")
def _(server: Server) -> str:
    found = []
    for head in ("Connection: close", "Authorization: Bearer wrong-wrong\r\nConnection: close"):
        with Plug(server) as plug:
            found.append(told(plug.send(request(TEXT, LONG, head=head)).rest()))
    assert found == ["401", "401"], found
    return "401, 401"
