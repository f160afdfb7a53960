"""An engine that dies, hangs, has no pages left, or whose clock jumps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from faults import LONG, fault, request, streams, told, told_stream, unread, waits, whole
from soak_server import TEXT, WAITS, Plug, Server, alive, until

HOUR = 3600.0
SMALL_PAGES = 24    # of 16 positions
BROKEN = "200, then an error in the stream"


def killed(server: Server, number: int = signal.SIGKILL) -> int:
    """The engine that was."""
    engine = server.engine
    os.kill(engine, number)
    return engine


def again(server: Server, engine: int) -> None:
    """Until another engine is up."""
    until(lambda: not alive(engine), what="the end of the engine")
    until(server.idle, what="another engine")


@fault("the engine is killed while it is idle", "started again; until then 503 with Retry-After", kills=True)
def _(server: Server) -> str:
    engine = killed(server)
    until(lambda: not alive(engine) and server.get("/health").status == 503, what="that it is known")
    answer = server.post(TEXT, {"prompt": "x"})
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1, answer
    again(server, engine)
    return "503, then started again"


@fault("the engine is killed while it reads a prompt", "503 for that request", kills=True)
def _(server: Server) -> str:
    with Plug(server) as plug:
        plug.send(request(TEXT, unread()))
        waits(server, "num_requests_running", 1)
        again(server, killed(server))
        answer = told(plug.rest())
    assert answer == "503", answer
    return answer


@fault("the engine is killed while it writes", "streams say so, the rest is 503", kills=True, quick=True)
def _(server: Server) -> str:
    with streams(server, 2) as plugs, Plug(server) as plain:
        plain.send(request(TEXT, LONG))
        waits(server, "num_requests_running", 3)
        again(server, killed(server))
        answers = [*(told_stream(plug) for plug in plugs), told(plain.rest())]
    assert answers == [BROKEN, BROKEN, "503"], answers
    return "; ".join(answers[1:])


@fault("the engine is killed while requests are queued", "all of them are told", kills=True)
def _(server: Server) -> str:
    with streams(server, 8) as plugs, Plug(server) as one, Plug(server) as two:
        for late in (one, two):
            late.send(request(TEXT, LONG | {"stream": late is one}))
        waits(server, "num_requests_waiting", 2)
        again(server, killed(server))
        assert all(b'data: {"error"' in plug.rest() for plug in plugs)
        answers = [told(late.rest()) for late in (one, two)]
    assert answers == ["503", "503"], answers
    return "8 errors in streams, and " + ", ".join(answers)


@fault("the engine is killed, and again while it starts", "started a third time", kills=True)
def _(server: Server) -> str:
    first = killed(server)
    second = until(lambda: (pid := server.engine) != first and pid, what="a second engine")
    os.kill(second, signal.SIGKILL)
    again(server, second)
    assert server.engine not in (first, second)
    return "started a third time"


@fault("the engine is killed as its client leaves", "started again", kills=True)
def _(server: Server) -> str:
    with streams(server, 1):
        engine = killed(server)
    again(server, engine)
    return "started again"


@fault("the engine hangs", "it is killed when its silence is over, as if it had died", kills=True)
def _(server: Server) -> str:
    with streams(server, 1) as (plug,), Plug(server) as plain:
        plain.send(request(TEXT, LONG))
        waits(server, "num_requests_running", 2)
        engine = killed(server, signal.SIGSTOP)
        answers = told_stream(plug), told(plain.rest())
        again(server, engine)
    assert answers == (BROKEN, "503"), answers
    return "; ".join(answers)


@fault("the engine hangs for a moment", "nobody notices", quick=True)
def _(server: Server) -> str:
    with streams(server, 1, max_tokens=80) as (plug,):
        engine = killed(server, signal.SIGSTOP)
        time.sleep(WAITS["silence"] / 6)
        os.kill(engine, signal.SIGCONT)
        answer = told_stream(plug)
    assert answer == "200, a stream that ended with length", answer
    return answer


@fault("the engine gets SIGTERM", "its answers are told that they end; it is started again", kills=True)
def _(server: Server) -> str:
    with streams(server, 1) as (plug,):
        again(server, killed(server, signal.SIGTERM))
        return told_stream(plug)


@fault("the engine gets SIGINT", "nothing: Ctrl-C is for the server to judge", quick=True)
def _(server: Server) -> str:
    with streams(server, 1, max_tokens=40) as (plug,):
        killed(server, signal.SIGINT)
        answer = told_stream(plug)
    assert answer == "200, a stream that ended with length", answer
    return answer


@fault("the whole machine sleeps", "answers go on when it wakes")
def _(server: Server) -> str:
    with streams(server, 2, max_tokens=80) as plugs:
        both = server.pid, server.engine
        for pid in both:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(WAITS["silence"] * 1.2)
        for pid in both:
            os.kill(pid, signal.SIGCONT)
        answers = {told_stream(plug) for plug in plugs}
    assert answers == {"200, a stream that ended with length"}, answers
    return "; ".join(answers)


@fault("a prompt that no cache holds", "400", server="small", quick=True)
def _(server: Server) -> str:
    with Plug(server) as plug:
        answer = told(plug.send(request(TEXT, unread(16 * SMALL_PAGES + 1))).rest())
    assert answer == "400", answer
    return answer


@fault("eight answers, and pages for two", "whole, and what they are alone", server="small", quick=True)
def _(server: Server) -> str:
    bodies = [unread(20, max_tokens=120, seed=k) for k in range(8)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda body: whole(server, body), bodies))
    assert together == [whole(server, body) for body in bodies]
    return "8 answers, as alone"


@fault("clients gone while pages are short", "the others go on", server="small")
def _(server: Server) -> str:
    with streams(server, 5, max_tokens=300) as (first, *others):
        for plug in others:
            plug.reset()
        answer = told_stream(first)
    assert answer == "200, a stream that ended with length", answer
    return answer


@contextmanager
def jumping(server: Server, wall: float, steady: float) -> Iterator[None]:
    """Clocks that jump to so much off in the middle of two answers."""
    with streams(server, 2, max_tokens=120) as plugs:
        server.clock.set(wall, steady)
        yield
        answers = {told_stream(plug) for plug in plugs}
    assert answers == {"200, a stream that ended with length"}, answers


@fault("the clock of the day jumps an hour ahead, and back two", "nobody notices", server="clock")
def _(server: Server) -> str:
    for wall in (HOUR, -HOUR):
        with jumping(server, wall, 0.0):
            pass
    return "both streams are whole, twice"


@fault("both clocks jump an hour ahead", "nobody notices", server="clock")
def _(server: Server) -> str:
    with jumping(server, HOUR, HOUR):
        pass
    return "both streams are whole"


@fault("both clocks jump an hour back", "nobody notices", server="clock")
def _(server: Server) -> str:
    with jumping(server, 0.0, 0.0):
        pass
    return "both streams are whole"
