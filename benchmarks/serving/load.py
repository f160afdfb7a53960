"""Clients of a server, in a process of its own: reads a wish, sends requests, says what came back and when.

    cd benchmarks; python -m serving.load PORT

A wish is JSON, and so is the answer to it:

    {"do": "streams", "bodies": [...]}      all at once, each streamed, on a connection of its own
    {"do": "waves", "bodies": [...], "clients": 320, "patience": 1, "spread": 2, "lead": 3, "seconds": 10}

Of a wave's clients each sends one request after the other; one that is refused waits `patience` times what
Retry-After says. First requests come spread over `spread` seconds, and tokens are counted, by what the server
tells of its engine, from `lead` seconds on until `seconds`. Bytes are only
gathered while the clock runs, and read afterwards: what the clients cost is processor time that the server
lacks. An answer's time begins before its connection does, and ends with its last byte.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 120  # seconds without an answer: a fault
FIGURES = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
WRITTEN = b"\nfathom:engine_generation_tokens_total "


@dataclass(slots=True)
class Exchange(asyncio.Protocol):
    """One request, and the pieces that came back, on a connection that the server closes."""

    request: bytes
    began: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    ended: float = 0.0
    pieces: list[bytes] = field(default_factory=list)
    reads: int = 0
    over: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what is wanted."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Gather."""
        self.first = self.first or time.perf_counter()
        self.pieces.append(data)

    def connection_lost(self, problem: Exception | None) -> None:
        """The answer is whole, or never will be."""
        self.ended = time.perf_counter()
        if not self.over.done():
            self.over.set_result(None)

    @property
    def status(self) -> int:
        """Of HTTP; 0 = the connection broke."""
        head = b"".join(self.pieces[:2])[:12]
        return int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0

    def header(self, name: str) -> str | None:
        """Of the answer."""
        head = b"".join(self.pieces).partition(b"\r\n\r\n")[0].decode("latin-1")
        lines = (line.partition(":") for line in head.split("\r\n")[1:])
        return next((value.strip() for key, _, value in lines if key.lower() == name), None)

    def content(self) -> bytes:
        """The body, out of its chunks."""
        head, _, left = b"".join(self.pieces).partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" not in head.lower():
            return left
        found = []
        while left:
            size, _, left = left.partition(b"\r\n")
            found.append(left[: int(size, 16)])
            left = left[int(size, 16) + 2 :]
        return b"".join(found)


def request(body: dict[str, Any]) -> bytes:
    """A completion, asked for on a connection of its own."""
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def send(port: int, wanted: bytes) -> Exchange:
    """One request and its whole answer."""
    exchange = Exchange(wanted)
    async with asyncio.timeout(PATIENCE):
        await asyncio.get_running_loop().create_connection(lambda: exchange, "127.0.0.1", port)
        await exchange.over
    return exchange


async def streams(port: int, wish: dict[str, Any]) -> dict[str, Any]:
    """All at once. `tokens` and `texts` are what the streams say of themselves; `frames` counts events."""
    wanted = [request(body) for body in wish["bodies"]]
    began, own = time.perf_counter(), time.process_time()
    done = await asyncio.gather(*(send(port, one) for one in wanted))
    wall, own = time.perf_counter() - began, time.process_time() - own
    tokens, texts, frames = 0, [], 0
    for exchange in done:
        events = exchange.content().decode().split("\n\n")
        assert exchange.status == 200 and events[-2:] == ["data: [DONE]", ""], (exchange.status, events[-2:])
        told = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
        tokens += told[-1]["usage"]["completion_tokens"]
        texts.append("".join(one["choices"][0]["text"] for one in told if one["choices"]))
        frames += len(told)
    reads = sum(len(one.pieces) for one in done)
    first = max(one.first - began for one in done)
    return {"wall": wall, "cpu": own, "tokens": tokens, "texts": texts, "frames": frames, "reads": reads,
            "first": first}  # fmt: skip


async def waves(port: int, wish: dict[str, Any]) -> dict[str, Any]:
    """Clients that come back for so many seconds. Counts, and milliseconds of every refusal."""
    wanted = itertools.cycle([request(body) for body in wish["bodies"]])
    began, own = time.perf_counter(), time.process_time()
    end, accepted, refused = began + wish["seconds"], list[Exchange](), list[Exchange]()

    async def client(number: int) -> None:
        await asyncio.sleep(wish["spread"] * number / wish["clients"])
        while time.perf_counter() < end:
            exchange = await send(port, next(wanted))
            (refused if exchange.status == 429 else accepted).append(exchange)
            if exchange.status == 429:
                again = float(exchange.header("retry-after") or 0) * wish["patience"]
                await asyncio.sleep(min(again, max(end - time.perf_counter(), 0)))

    async def meter() -> float:
        await asyncio.sleep(wish["lead"])
        first, since = await written(port), time.perf_counter()
        await asyncio.sleep(end - since)
        return (await written(port) - first) / (time.perf_counter() - since)

    rate, *_ = await asyncio.gather(meter(), *(client(number) for number in range(wish["clients"])))
    return {
        "wall": time.perf_counter() - began, "cpu": time.process_time() - own, "tokens_per_s": rate,
        "accepted": len(accepted), "others": sorted({one.status for one in accepted} - {200}),
        "refused": len(refused),
        "with_retry_after": sum(one.header("retry-after") is not None for one in refused),
        "refused_ms": [1e3 * (one.ended - one.began) for one in refused],
    }  # fmt: skip


async def written(port: int) -> float:
    """Tokens that the engine has written so far."""
    content = (await send(port, FIGURES)).content()
    return float(content.partition(WRITTEN)[2].split()[0])


def main() -> None:
    """Answer until stdin ends."""
    port = int(sys.argv[1])
    kinds = {"streams": streams, "waves": waves}
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            wish = json.loads(line)
            print(json.dumps(runner.run(kinds[wish["do"]](port, wish))), flush=True)


if __name__ == "__main__":
    main()
