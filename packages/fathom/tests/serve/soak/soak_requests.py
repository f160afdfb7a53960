"""Random requests, and what a whole answer to each of them is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

from soak_server import CHAT, TEXT, request

WORDS = ["Mia", "had", "a", "red", "ball", "and", "Tom", "ran", "to", "the", "big", "tree", "é", "猫", "\n"]
PLACES = {"type": "object", "properties": {"at": {"enum": ["home", "sea"]}, "far": {"type": "boolean"}},
          "required": ["at", "far"], "additionalProperties": False}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
MOMENTS = ["head", "body", "sent", "sent", "answer", "answer", "answer"]    # at which a client leaves


@dataclass(frozen=True, kw_only=True)
class Order:
    """One request: what goes over the wire, and what may come back."""

    path: str
    body: dict[str, Any] | None     # None = GET
    wrong: bool = False             # it is to be refused
    leaves: str = ""                # one of MOMENTS; "" = it reads all
    after: float = 0.0              # 0 to 1: how far the sending or the answer is then
    resets: bool = False            # it leaves without a goodbye
    n: int = field(default=1)       # answers

    @property
    def wire(self) -> bytes:
        if self.body is None:
            return f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        return request(self.path, self.body)


def text_of(random: Random, words: int) -> str:
    return " ".join(random.choice(WORDS) for _ in range(words))


def order_of(random: Random, prefixes: list[str], cancelled: float) -> Order:
    """The next request; a share of `cancelled` leaves."""
    path = random.choices([CHAT, TEXT, "/tokenize", "/fathom/experts", "GET"], [45, 40, 5, 5, 5])[0]
    if path == "GET":
        path = random.choice(["/v1/models", "/fathom/info", "/metrics", "/health", "/", "/v1/models/tiny"])
        return Order(path=path, body=None)
    prompt = random.choice([*prefixes, "", ""]) + text_of(random, random.randint(1, 40))
    if path == "/tokenize":
        body: dict[str, Any] = {"prompt": prompt, "return_token_strs": random.random() < 0.5}
    elif path == "/fathom/experts":
        body = {"tokens": [random.randrange(300) for _ in range(random.choice([1, 7, 64, 200]))]}
    else:
        body = _completion(random, path, prompt)
    wrong = random.random() < 0.04
    if wrong:
        body[random.choice(["unheard_of", "temperatur", "stop_at"])] = random.choice([1, "x", None, [], {}])
    leaves = random.choice(MOMENTS) if random.random() < cancelled else ""
    after = random.random() ** 2
    n = body.get("n", 1) * (len(body["prompt"]) if isinstance(body.get("prompt"), list) else 1)
    resets = random.random() < 0.5
    return Order(path=path, body=body, wrong=wrong, leaves=leaves, after=after, n=n, resets=resets)


def _completion(random: Random, path: str, prompt: str) -> dict[str, Any]:
    chance = random.random
    body: dict[str, Any] = {
        "max_tokens": random.choices([1, 5, 20, 40, 300], [6, 6, 6, 6, 1])[0],
        "seed": random.randrange(2**32),
        "temperature": random.choice([0, 0.7, 1.3]), "stream": chance() < 0.6,
        "n": random.choice([1, 1, 1, 2, 3]),
        "ignore_eos": chance() < 0.3, "top_p": random.choice([1, 0.9]), "fathom_details": chance() < 0.2,
    }  # fmt: skip
    if body["stream"] and chance() < 0.5:
        body["stream_options"] = {"include_usage": True}
    if chance() < 0.3:
        body["stop"] = random.choice(["a", ["the", "\n"], ["zzz"]])
    if chance() < 0.1:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACES}}
    elif chance() < 0.1 and path == CHAT:
        body["tools"] = [TOOL]
    if path == TEXT:
        body["prompt"] = [prompt, text_of(random, 5)] if chance() < 0.1 else prompt
        body["echo"] = chance() < 0.2
        body |= {"logprobs": random.randint(0, 5)} if chance() < 0.3 else {}
        return body
    body["messages"] = [{"role": "user", "content": prompt}]
    if chance() < 0.3:
        body["messages"].insert(0, {"role": "system", "content": text_of(random, 10)})
    return body | ({"logprobs": True, "top_logprobs": random.randint(0, 5)} if chance() < 0.3 else {})


def parted(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer that is whole to its last byte; AssertionError otherwise."""
    head, mark, rest = answer.partition(b"\r\n\r\n")
    assert mark, f"an answer without a head: {answer[:200]!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    status = int(first.split()[1])
    if headers.get("transfer-encoding") != "chunked":
        assert len(rest) == int(headers["content-length"]), f"a body of {len(rest)} bytes: {headers}"
        return status, headers, rest
    pieces = []
    while True:
        size, mark, rest = rest.partition(b"\r\n")
        assert mark, "a stream that breaks off"
        length = int(size, 16)
        piece, end, rest = rest[:length], rest[length : length + 2], rest[length + 2 :]
        assert len(piece) == length and end == b"\r\n", "a stream that breaks off"
        if not piece:
            assert not rest, f"more behind the end: {rest[:200]!r}"
            return status, headers, b"".join(pieces)
        pieces.append(piece)


def check_whole(order: Order, answer: bytes) -> int:
    """The status of an answer that is complete."""
    status, headers, content = parted(answer)
    if order.wrong and status != 429:
        assert status == 400 and json.loads(content)["error"]["code"] == "unknown_field", content
        return status
    if status == 429:
        assert int(headers["retry-after"]) >= 1 and json.loads(content)["error"]["type"] == "rate_limit_error"
        return status
    assert status == 200, (status, content[:500])
    if order.body is None or order.path not in (CHAT, TEXT):
        assert content
        return status
    if not order.body["stream"]:
        choices = json.loads(content)["choices"]
        assert [one["index"] for one in choices] == list(range(order.n))
        assert all(one["finish_reason"] in ("stop", "length", "tool_calls") for one in choices), choices
        return status
    assert headers["content-type"].startswith("text/event-stream")
    *events, last, nothing = content.split(b"\n\n")
    assert last == b"data: [DONE]" and nothing == b"", content[-200:]
    parts = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert not any("error" in part for part in parts), parts[-1]
    ends = [one["index"] for part in parts for one in part["choices"] if one["finish_reason"]]
    assert sorted(ends) == list(range(order.n)), f"{order.n} answers, and the ends of {ends}"
    assert ("stream_options" in order.body) == bool(parts[-1].get("usage"))
    return status
