"""Signals, an end that takes its time, no files, no disk."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import ExitStack

from faults import LONG, fault, request, streamed, streams, told, told_stream, waits
from soak_server import TEXT, Plug, Server, alive, until

LENGTH = "200, a stream that ended with length"
FEW_FILES = 64


def ended(server: Server) -> str:
    return f"status {server.ended(server.engine)}"


@fault("SIGTERM while answers are written", "they finish; status 75", server="own", quick=True)
def _(server: Server) -> str:
    with streams(server, 3, max_tokens=100) as plugs, Plug(server) as plain:
        plain.send(request(TEXT, LONG | {"max_tokens": 100}))
        waits(server, "num_requests_running", 4)
        server.signal(signal.SIGTERM)
        answers = [*(told_stream(plug) for plug in plugs), told(plain.rest())]
    assert answers == [LENGTH] * 3 + ["200"], answers
    status = ended(server)
    assert status == "status 75", status
    return f"all finished, {status}"


@fault("SIGINT while an answer is written", "it finishes; status 130", server="own")
def _(server: Server) -> str:
    with streams(server, 1, max_tokens=60) as (plug,):
        server.signal(signal.SIGINT)
        answer = told_stream(plug)
    status = ended(server)
    assert (answer, status) == (LENGTH, "status 130"), (answer, status)
    return f"{answer}, {status}"


@fault("SIGTERM, and an answer longer than --drain", "it is broken off and told; status 75", server="own",
       words={"settings": {"drain_seconds": 0.5}})  # fmt: skip
def _(server: Server) -> str:
    with streams(server, 1) as (plug,):
        server.signal(signal.SIGTERM)
        answer = told_stream(plug)
    status = ended(server)
    assert status == "status 75", status
    return f"{answer}, {status}"


@fault("SIGTERM, and a client that never reads", "left when its time is over; status 75", server="own",
       words={"settings": {"drain_seconds": 1.0}})  # fmt: skip
def _(server: Server) -> str:
    with Plug(server, buffer=2048) as plug:
        plug.send(streamed(n=4, logprobs=20, fathom_details=True))
        waits(server, "num_requests_running", 4)
        server.signal(signal.SIGTERM)
        status = ended(server)
        assert status == "status 75", status
        return status


@fault("SIGTERM, and half a head and half a body", "closed; status 75", server="own",
       words={"settings": {"drain_seconds": 1.0}})  # fmt: skip
def _(server: Server) -> str:
    wire = streamed()
    with Plug(server) as head, Plug(server) as body:
        head.send(wire[:30])
        body.send(wire[:-5])
        waits(server, "num_requests_inside", 1)
        server.signal(signal.SIGTERM)
        answers = told(head.rest()), told(body.rest())
    status = ended(server)
    assert status == "status 75", status
    return f"{answers[0]}; {answers[1]}; {status}"


@fault("SIGTERM, and the last client leaves", "it ends then, long before --drain; status 75", server="own",
       words={"settings": {"drain_seconds": 10_000.0}})  # fmt: skip
def _(server: Server) -> str:
    with streams(server, 1):
        server.signal(signal.SIGTERM)
        time.sleep(0.1)
    status = ended(server)
    assert status == "status 75", status
    return status


@fault("a second SIGTERM", "it ends at once, and its stream says so; status 75", server="own",
       words={"settings": {"drain_seconds": 10_000.0}})  # fmt: skip
def _(server: Server) -> str:
    with streams(server, 1) as (plug,):
        server.signal(signal.SIGTERM)
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        answer = told_stream(plug)
    status = ended(server)
    assert status == "status 75", status
    return f"{answer}, {status}"


@fault("SIGTERM, and the engine is killed", "clients are told; status 75", server="own")
def _(server: Server) -> str:
    with streams(server, 1) as (plug,):
        server.signal(signal.SIGTERM)
        time.sleep(0.2)
        os.kill(server.engine, signal.SIGKILL)
        answer = told_stream(plug)
    status = ended(server)
    assert status == "status 75", status
    return f"{answer}, {status}"


@fault("SIGTERM, and the engine hangs", "killed with its server; status 75", server="own",
       words={"settings": {"drain_seconds": 0.5}, "waits": {"grace": 1.0}})  # fmt: skip
def _(server: Server) -> str:
    with streams(server, 1) as (plug,):
        os.kill(server.engine, signal.SIGSTOP)
        server.signal(signal.SIGTERM)
        answer = told_stream(plug)
    status = ended(server)
    assert status == "status 75", status
    return f"{answer}, {status}"


@fault("SIGTERM while the engine loads", "status 75, and no engine stays", server="own",
       words={"wait": False})  # fmt: skip
def _(server: Server) -> str:
    until(lambda: server.engine, what="an engine")
    server.signal(signal.SIGTERM)
    status = ended(server)
    assert status == "status 75", status
    return status


@fault("the server is killed", "its engine ends by itself; clients are closed", server="own")
def _(server: Server) -> str:
    with streams(server, 1) as (plug,):
        engine = server.engine
        server.signal(signal.SIGKILL)
        plug.rest()
        server.ended()
        until(lambda: not alive(engine), what="the end of the engine")
    return "both are gone"


@fault("no room for its log, and the engine is killed", "started again", server="command", kills=True)
def _(server: Server) -> str:
    """A file that may not grow: to a program it is a full disk. The next engine would inherit the limit."""
    endless = resource.RLIM_INFINITY
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, endless))
    os.kill(server.engine, signal.SIGKILL)
    until(lambda: not server.engine, what="the end of the engine")
    time.sleep(0.5)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (endless, endless))
    until(server.idle, what="another engine")
    return "started again"


@fault("nobody reads its log any more, and the engine is killed", "started again", server="piped", kills=True)
def _(server: Server) -> str:
    server.unread()
    engine = server.engine
    os.kill(engine, signal.SIGKILL)
    until(lambda: not alive(engine))
    until(server.idle, what="another engine")
    return "started again"


@fault("more connections than files", "those inside go on; the others wait", server="few files")
def _(server: Server) -> str:
    with streams(server, 1, max_tokens=200) as (plug,), ExitStack() as stack:
        for _ in range(2 * FEW_FILES):
            stack.enter_context(Plug(server))
        answer = told_stream(plug)
    assert answer == LENGTH and server.said.count("no file is left") == 1, (answer, server.said)
    return answer


@fault("no files left, and the engine is killed", "started again", server="few files", kills=True)
def _(server: Server) -> str:
    with ExitStack() as stack:
        for _ in range(2 * FEW_FILES):
            stack.enter_context(Plug(server))
        time.sleep(0.3)
        engine = server.engine
        os.kill(engine, signal.SIGKILL)
        until(lambda: not alive(engine))
        time.sleep(0.3)
    until(server.idle, what="another engine")
    return "started again"
