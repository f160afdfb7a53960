"""What may befall a server, as a table: each fault says what must happen, does it, and tells what happened.

Behind each, whatever it is: nobody is inside, every page and file descriptor is back, a request is answered
as before the fault, and only the engine's death was answered with a status of 500 or above, which is 503.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from soak_server import TEXT, Plug, Server, files_of, request, until

KNOWN: list[Fault] = []
LONG = {"prompt": "Mia had", "max_tokens": 1500, "ignore_eos": True}
PROMPT = 1900   # tokens that take many steps to read
_fresh = count()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row. act(server) gives what happened; an AssertionError = not what must."""

    name: str
    must: str
    act: Callable[[Server], str]
    server: str = "plain"       # which one: those of the same name share it; "own" = one that is used up
    quick: bool = False         # also done by `make test`
    kills: bool = False         # the engine: so 503 is right, and another process stands there afterwards
    words: dict[str, Any] = field(default_factory=dict)     # of an own server


def fault(name: str, must: str, **more: Any) -> Callable[[Callable[[Server], str]], Callable[[Server], str]]:
    """List the function under this name."""

    def listed(act: Callable[[Server], str]) -> Callable[[Server], str]:
        KNOWN.append(Fault(name=name, must=must, act=act, **more))
        return act

    return listed


def unread(tokens: int = PROMPT, **more: Any) -> dict[str, Any]:
    """A request whose prompt no other one begins with, so that no page of it is known."""
    mark = next(_fresh)
    return {"prompt": [(mark + 7 * k * (mark + 1)) % 199 for k in range(tokens)], "max_tokens": 4} | more


def streamed(**more: Any) -> bytes:
    return request(TEXT, LONG | {"stream": True} | more)


@contextmanager
def streams(server: Server, number: int, **more: Any) -> Iterator[list[Plug]]:
    """So many answers that are being written, each with its first event read; their ends are not awaited."""
    with ExitStack() as stack:
        plugs = [stack.enter_context(Plug(server)) for _ in range(number)]
        for plug in plugs:
            plug.send(streamed(**more)).first()
        yield plugs


def told_stream(plug: Plug) -> str:
    """`told` of a stream whose beginning was read."""
    return told(b"HTTP/1.1 200\r\ntext/event-stream" + plug.rest())


def told(answer: bytes) -> str:
    """An answer in some words: its status, and how it ended. AssertionError if it breaks off."""
    match = re.match(rb"HTTP/1\.1 (\d+)", answer)
    if not match:
        assert not answer, f"no answer of HTTP: {answer[:200]!r}"
        return "closed"
    status = match[1].decode()
    if b"text/event-stream" not in answer:
        return status
    assert b"data: [DONE]" in answer, f"a stream that breaks off: {answer[-300:]!r}"
    if b'data: {"error"' in answer:
        return f"{status}, then an error in the stream"
    ends = re.findall(rb'"finish_reason":"(\w+)"', answer)
    return f"{status}, a stream that ended with {b', '.join(ends).decode()}"


def whole(server: Server, body: dict[str, Any]) -> str:
    """The text of the one answer to a request that is answered."""
    answer = server.post(TEXT, {"temperature": 0, "ignore_eos": True} | body)
    assert answer.status == 200, (answer.status, answer.body)
    return str(answer.json()["choices"][0]["text"])


def waits(server: Server, name: str, number: int) -> None:
    """Until this figure is so much."""
    until(lambda: server.figures().get(name) == number, what=f"{name} = {number}")


def endure(one: Fault, server: Server, answer: str) -> str:
    """Do it, and hold the server to what is promised behind every fault; what happened."""
    files, before, engine = files_of(server.pid), server.faults(), server.engine
    happened = one.act(server)
    if one.server == "own":
        assert server.process.poll() is not None, "it still runs"
        assert "Traceback" not in server.said, server.said
        return happened
    until(server.idle, what=f"rest behind {happened!r}")
    assert whole(server, {"prompt": "Mia had", "max_tokens": 12}) == answer
    until(lambda: files_of(server.pid) <= files, what=f"the {files} open files of before,")
    new = {status for status, number in server.faults().items() if number > before.get(status, 0)}
    assert new <= ({503} if one.kills else set()), f"answered with {new}"
    assert (server.engine != engine) == one.kills, "the engine's process"
    assert "Traceback" not in server.said, server.said
    return happened
