"""Thousands of random requests, many of which are left at random moments: nothing stays behind.

    python -m pytest -m soak -k random_requests -s
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from soak_requests import Order, check_whole, order_of, text_of
from soak_server import PATIENCE, Server, files_of, memory_of, until

AT_ONCE = 32
CANCELLED = 0.33     # of those with a body, so that it is 30 % of all
# Pages for a third of what may run, so that sequences are preempted and cached prefixes are thrown away.
ENGINE = {"pages": 96, "max_running": 8, "max_waiting": 48, "prefill_tokens": 32}
LIMITS = {"header_seconds": 10.0, "body_seconds": 10.0, "write_seconds": 20.0}
# What a request and its answer hold in the server is tens of KiB: if one in twenty stayed, it would grow by
# more than EACH a request. The engine's torch compiles kernels for every number of rows, and keeps them: that
# grows with the shapes that were seen, not with the requests. It is held to a total, and `alone` shows leaks.
KEPT = {"server": 8 << 20, "engine": 384 << 20}
EACH = 1 << 10
ALONE_KEPT = 4 << 20    # over requests that come a third time, one at a time: their shapes are known


async def talk(port: int, order: Order) -> bytes | None:
    """The whole answer; None where the client left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        wire = order.wire
        if order.leaves in ("head", "body"):
            head = wire.index(b"\r\n\r\n") + 4
            begin, end = (0, head) if order.leaves == "head" else (head, len(wire))
            writer.write(wire[: begin + int((end - begin) * order.after)])
            await writer.drain()
            await asyncio.sleep(0.01 * order.after)
            return None
        writer.write(wire)
        await writer.drain()
        if order.leaves == "sent":
            await asyncio.sleep(0.2 * order.after)
            return None
        if order.leaves == "answer":
            with suppress(asyncio.IncompleteReadError):
                await reader.readexactly(1 + int(4000 * order.after))
            return None
        return await reader.read()
    finally:
        if order.leaves and order.resets:
            plug = writer.get_extra_info("socket")
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def soak(port: int, random: Random, prefixes: list[str], count: int) -> Counter[str]:
    """Send so many, AT_ONCE at a time; how often each status came, and how many left."""
    happened: Counter[str] = Counter()
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            order = order_of(random, prefixes, CANCELLED)
            async with asyncio.timeout(PATIENCE):
                answer = await talk(port, order)
            if answer is None:
                happened["left"] += 1
                continue
            try:
                happened[str(check_whole(order, answer))] += 1
            except AssertionError as problem:
                raise AssertionError(f"{problem}\n{order}\n{answer[-1000:]!r}") from None

    async with asyncio.TaskGroup() as clients:
        for _ in range(AT_ONCE):
            clients.create_task(client())
    return happened


def kept(server: Server) -> dict[str, int]:
    """Bytes that each of the two processes holds while nobody asks for anything."""
    until(server.idle, what="rest")
    return {"server": memory_of(server.pid), "engine": memory_of(server.engine)}


def alone(server: Server, random: Random, prefixes: list[str], few: int) -> int:
    """Bytes by which the engine grows over requests that it had before, each alone."""
    orders, after = [order_of(random, prefixes, 0.0) for _ in range(few)], []
    for _ in range(3):
        for order in orders:
            check_whole(order, asyncio.run(talk(server.port, order)) or b"")
        after.append(kept(server)["engine"])
    assert after[2] - after[1] <= ALONE_KEPT, f"the engine grew by {after} bytes over the same requests"
    return after[2] - after[1]


def run(server: Server, count: int, few: int, seed: int) -> None:
    random, began = Random(seed), time.monotonic()
    prefixes = [text_of(random, words) for words in (10, 40, 80, 80, 120)]
    assert server.get("/v1/models").status == 200
    time.sleep(0.5)     # its connection is closed on both sides
    files = {pid: files_of(pid) for pid in (server.pid, server.engine)}
    engine, total = server.engine, server.figures()["kv_cache_pages"]
    happened = asyncio.run(soak(server.port, random, prefixes, count // 4))
    first = kept(server)
    happened += asyncio.run(soak(server.port, random, prefixes, count - count // 4))
    last, figures = kept(server), server.figures()
    print(f"\n{count} requests with seed {seed} in {time.monotonic() - began:.0f} s: {dict(happened)}")
    grown = {name: last[name] - first[name] for name in first}
    print(f"memory after a quarter {first}, grown by {grown} bytes; files {[*files.values()]}")
    tokens, left = (figures[f"{name}_total"] for name in ("engine_generation_tokens", "request_abandoned"))
    more = alone(server, random, prefixes, few)
    print(f"{tokens:g} tokens; {left:g} left while it was answered; the same {few} alone: {more} bytes more")
    assert server.engine == engine and figures["kv_cache_pages"] == total
    assert figures["kv_cache_pages_cached"] <= total
    until(lambda: all(files_of(pid) <= n for pid, n in files.items()), what=f"the files {files}")
    for name, bytes_ in grown.items():
        most = KEPT[name] + EACH * count
        assert bytes_ <= most, f"the {name} grew by {bytes_} bytes, above {most}"
    assert not server.faults(), server.faults()
    assert happened["200"] > count * (1 - CANCELLED) / 2, "most were refused: this shows little"
    assert server.end() == 75


def seeded(start: Callable[..., Server], count: int, few: int, seed: int) -> None:
    """`run`, with its seed told if it fails."""
    try:
        run(start(engine=ENGINE, settings=LIMITS), count, few, seed)
    except BaseException as problem:
        problem.add_note(f"the requests come from the seed {seed}")
        raise


def test_random_requests_leave_nothing_behind(start: Any) -> None:
    seeded(start, 60, 5, 1)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_five_thousand_random_requests_leave_nothing_behind(start: Any) -> None:
    seeded(start, 5000, 40, time.time_ns() % 2**32)
