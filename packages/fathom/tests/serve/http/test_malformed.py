"""No request of malformed.py makes the server fail: each is refused in OpenAI's form."""

from __future__ import annotations

import json
import re
import runpy
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

TABLE = runpy.run_path(str(Path(__file__).with_name("malformed.py")))
FIELDS, BODIES, HEADS, RAW, GOOD = (TABLE[name] for name in ("FIELDS", "BODIES", "HEADS", "RAW", "GOOD"))


def refusal(answer: Any, *statuses: int) -> dict[str, Any]:
    """The error of an answer, which is one in OpenAI's form."""
    assert answer.status_code in (statuses or (400, 404)), (answer.status_code, answer.text)
    body = answer.json()
    assert list(body) == ["error"] and set(body["error"]) == {"message", "type", "param", "code"}
    message = body["error"]["message"]
    assert "Fix: " in message and "\n" not in message and len(message) < 900
    assert body["error"]["type"].endswith("_error") and body["error"]["code"]
    return body["error"]


def test_there_are_many() -> None:
    assert len(FIELDS) + len(BODIES) + len(HEADS) + len(RAW) >= 400


@pytest.mark.parametrize("path", GOOD)
def test_wrong_fields_are_refused_by_name(http: httpx.Client, link: Any, path: str) -> None:
    for where, name, value in FIELDS:
        if where != path:
            continue
        body = GOOD[path] | {name: value}
        content = json.dumps(body).encode()
        answer = http.post(path, content=content, headers={"Content-Type": "application/json"})
        error = refusal(answer)
        param = error["param"] or ""
        kind = (name, value if len(str(value)) < 100 else "...", error)
        if name.isprintable() and name not in ("max_tokens", "n"):
            assert param.startswith((name[:50], "prompt")) or len(name) > 60, kind
        assert not link.asks, kind
    assert http.post(path, json=GOOD[path]).status_code == 200


@pytest.mark.parametrize("path", GOOD)
def test_wrong_bodies_are_refused(http: httpx.Client, link: Any, path: str) -> None:
    for body in BODIES:
        refusal(http.post(path, content=body, headers={"Content-Type": "application/json"}))
    assert not link.asks
    assert http.post(path, json=GOOD[path]).status_code == 200


def test_wrong_heads_are_refused(http: httpx.Client, link: Any) -> None:
    for method, path, headers, body, statuses in HEADS:
        url = httpx.URL(
            scheme="http", host=http.base_url.host, port=http.base_url.port, raw_path=path.encode()
        )
        answer = http.request(method, url, headers=headers, content=body)
        refusal(answer, *statuses)
    assert not link.asks


def exchange(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plug:
        plug.sendall(sent)
        got = b""
        while piece := plug.recv(65536):
            got += piece
            head, _, body = got.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if length is not None and len(body) >= int(length[1]):
                break
        return got


@pytest.mark.parametrize("number", range(len(RAW)))
def test_wrong_bytes_are_refused(served: Any, link: Any, number: int) -> None:
    sent, statuses = RAW[number]
    got = exchange(served.port, sent)
    status = int(got.split(b" ", 2)[1]) if got else 0
    assert status in statuses, (sent[:200], got[:500])
    if status >= 400:
        head, _, body = got.partition(b"\r\n\r\n")
        assert b"application/json" in head and b"Fix: " in json.loads(body)["error"]["message"].encode()
    assert not link.asks
    assert httpx.get(f"{served.url}/health").status_code == 200


def test_an_image_is_named_and_no_url_is_fetched(http: httpx.Client, link: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
        part = {"type": "image_url", "image_url": {"url": url}}
        body = {"messages": [{"role": "user", "content": [part]}]}
        error = refusal(http.post("/v1/chat/completions", json=body), 400)
        assert error["param"] == "messages[0].content[0]" and "image_url" in error["message"]
        with pytest.raises(TimeoutError):
            trap.accept()


def test_the_nearest_known_field_is_named(http: httpx.Client, link: Any) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "temprature": 1}
    error = refusal(http.post("/v1/chat/completions", json=body), 400)
    assert (error["param"], error["code"]) == ("temprature", "unknown_field")
    assert "use temperature" in error["message"]
