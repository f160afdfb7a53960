"""Ten times as many requests as the server holds: refusals say when to come again, and who is in is served.

The short form counts. The long one, `make soak`, lets clients come again and again, and prints how long
refusals took; `benchmarks/serve.py` says what overload costs those who are inside.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from soak_requests import parted
from soak_server import CHAT, TEXT, Plug, Server, request, until

RUNNING, QUEUE, TIMES = 4, 6, 10
HELD = RUNNING + QUEUE
PATIENT = {"header_seconds": 20.0, "body_seconds": 20.0, "write_seconds": 60.0}
LONG = {"prompt": "Mia had", "max_tokens": 500, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Iterator[Server]:
    one = start(settings=PATIENT, engine={"pages": 1024, "max_running": RUNNING, "max_waiting": QUEUE})
    yield one
    assert one.end() == 75


def asked(number: int, tokens: int) -> tuple[str, dict[str, Any]]:
    """Every second one is streamed, every third a chat."""
    body = {"max_tokens": tokens, "ignore_eos": True, "seed": number, "stream": number % 2 == 0}
    if number % 3:
        return TEXT, body | {"prompt": f"Tom ran {number}"}
    return CHAT, body | {"messages": [{"role": "user", "content": f"Tom ran {number}"}]}


def answered(server: Server, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    with Plug(server) as plug:
        return parted(plug.send(request(path, body)).rest())


def check_refusal(headers: dict[str, str], content: bytes) -> None:
    assert int(headers["retry-after"]) >= 1 and headers["connection"] == "close"
    error = json.loads(content)["error"]
    assert error["type"] == "rate_limit_error" and error["code"] == "busy" and "Fix: " in error["message"]


def check_answer(body: dict[str, Any], content: bytes) -> None:
    """Whole: all of its tokens, one end."""
    if not body["stream"]:
        told = json.loads(content)
        assert told["usage"]["completion_tokens"] == body["max_tokens"]
        assert [one["finish_reason"] for one in told["choices"]] == ["length"]
        return
    *events, last, nothing = content.split(b"\n\n")
    assert last == b"data: [DONE]" and nothing == b"", content[-200:]
    parts = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert not any("error" in part for part in parts), parts[-1]
    ends = [one["finish_reason"] for part in parts for one in part["choices"] if one["finish_reason"]]
    assert ends == ["length"], ends


def test_a_full_server_refuses_all_others_and_loses_nobody(server: Server) -> None:
    plugs = [Plug(server).send(request(TEXT, LONG | {"seed": k})) for k in range(HELD)]
    until(lambda: server.figures()["num_requests_inside"] == HELD, what="a full server")
    others = [asked(k, 4) for k in range((TIMES - 1) * HELD)]
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda one: answered(server, *one), others))
    now = server.figures()
    assert now["num_requests_inside"] == HELD, "who was inside has left before the others came"
    assert Counter(status for status, _, _ in told) == {429: (TIMES - 1) * HELD}
    for _, headers, content in told:
        check_refusal(headers, content)
    assert now["num_requests_running"] == RUNNING and now["num_requests_waiting"] == QUEUE
    for plug in plugs[RUNNING:]:
        plug.reset()
    until(lambda: server.figures()["num_requests_inside"] == RUNNING, what="room")
    status, _, content = answered(server, TEXT, LONG | {"max_tokens": 4})
    assert status == 200  # waits for a place among those who run
    check_answer(LONG | {"max_tokens": 4}, content)
    for plug in plugs[:RUNNING]:
        status, _, content = parted(plug.rest())
        assert status == 200
        check_answer(LONG, content)
        plug.socket.close()
    until(server.idle, what="an idle server")
    assert not server.faults()


def test_those_who_wait_are_served_in_the_order_they_came(server: Server) -> None:
    with Plug(server) as first:
        long = LONG | {"max_tokens": 160}
        runs = [Plug(server).send(request(TEXT, long | {"seed": k})) for k in range(RUNNING - 1)]
        first.send(request(TEXT, long))
        until(lambda: server.figures()["num_requests_running"] == RUNNING, what="running requests")
        ended, lock, threads = list[int](), threading.Lock(), list[threading.Thread]()

        def wait(number: int) -> None:
            status, _, _ = answered(server, TEXT, LONG | {"max_tokens": 60 + number, "stream": False})
            with lock:
                ended.append(number if status == 200 else -status)

        for number in range(QUEUE):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            until(lambda n=number: server.figures()["num_requests_waiting"] == n + 1, what="one more waiting")
        assert answered(server, *asked(0, 4))[0] == 429
        for thread in threads:
            thread.join()
        for plug in (first, *runs):
            assert parted(plug.rest())[0] == 200
            plug.socket.close()
    assert sorted(ended) == list(range(QUEUE))
    assert set(ended[:RUNNING]) == set(range(RUNNING)), ended  # the others began when one of these had ended
    until(server.idle, what="an idle server")


@pytest.mark.soak
def test_a_minute_of_ten_times_overload(server: Server) -> None:
    end, lock = time.monotonic() + 60, threading.Lock()
    counts, waits = Counter[int](), list[float]()

    def client(number: int) -> None:
        while time.monotonic() < end:
            path, body = asked(number, 40)
            began = time.monotonic()
            status, headers, content = answered(server, path, body)
            with lock:
                counts[status] += 1
            if status != 429:
                check_answer(body, content)
                continue
            waits.append(1e3 * (time.monotonic() - began))
            check_refusal(headers, content)
            time.sleep(int(headers["retry-after"]))

    with ThreadPoolExecutor(TIMES * HELD) as pool:
        list(pool.map(client, range(TIMES * HELD)))
    until(server.idle, what="an idle server")
    assert set(counts) == {200, 429} and not server.faults()
    waits.sort()
    p50, p99 = (waits[len(waits) * share // 100] for share in (50, 99))
    took = f"{p50:.1f} ms (p50), {p99:.1f} (p99), {waits[-1]:.1f} (most)"
    print(f"\noverload: {dict(counts)}; refused within {took}")
