"""Requests that no server may stumble over, written by hand. Read by test_malformed.py.

FIELDS   of a chat or a completion: wrong values, each put into an otherwise good body
BODIES   what is no good as a whole
HEADS    wrong methods, addresses and headers: (method, address, headers, body, statuses)
RAW      bytes on a bare connection: (bytes, statuses); 0 = closed without a word
"""

from __future__ import annotations

from typing import Any

CHAT, TEXT, TOKENIZE, EXPERTS = "/v1/chat/completions", "/v1/completions", "/tokenize", "/fathom/experts"
HI = [{"role": "user", "content": "hi"}]
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI}, TEXT: {"prompt": "hi"}, TOKENIZE: {"prompt": "hi"}, EXPERTS: {"tokens": [1]},
}  # fmt: skip
HUGE = 10**400
ENDLESS: Any = {}
for _ in range(40):
    ENDLESS = {"items": ENDLESS}


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def schema(inner: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": inner}


def tool(function: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": function}]


def calls(given: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": "", "tool_calls": given}]


BOTH: dict[str, list[Any]] = {
    "temperature": ["hot", -0.1, 2.1, True, [], {}, HUGE, -HUGE, 1e308],
    "top_p": ["1", 0, -1, 1.0001, False, [0.5], HUGE],
    "top_k": [1.5, -2, "40", True, 10**10, []],
    "min_p": [-0.1, 1.1, "0", True, {}],
    "presence_penalty": [-2.1, 2.1, "1", True, []],
    "frequency_penalty": [-2.1, 2.1, "1", False, {}],
    "repetition_penalty": [0, -1, 101, "1", True],
    "n": [0, -1, 9, 1.5, "2", True, HUGE, [1]],
    "seed": ["x", 1.5, 2**64, -(2**63) - 1, True, []],
    "stop": ["", [""], ["a"] * 17, "x" * 65, ["x" * 65], [1], 1, {}, True, [None], [["a"]]],
    "logit_bias": [
        [], "x", 1, {"x": 1}, {"1000": 1}, {"-1": 1}, {"1.5": 1}, {"1": "x"}, {"1": 101}, {"1": -101},
        {"1": None},
        {"1": True}, {"": 1}, {"٣": 1}, {str(k): 1 for k in range(1025)}, {"9" * 30: 1}, {"1": HUGE},
        {" 1": 1},
    ],
    "max_tokens": [-1, 1.5, "10", True, 513, HUGE, [], {}],
    "stream": ["yes", 1, 0, [], {}],
    "stream_options": [{"include_usage": True}, "x", [], 1],     # without stream
    "user": [1, [], {}, "x" * 513, True],
    "model": [1, "gpt-4", [], {}, True, "x" * 2000, "\u0000", "../played"],
    "ignore_eos": [1, "true", []],
    "fathom_details": [1, "true", {}],
    "response_format": [
        "json", [], {}, {"type": "xml"}, {"type": None}, {"type": 1}, {"type": "text", "json_schema": {}},
        {"type": "json_object", "json_schema": {"schema": {}}}, {"type": "json_schema"}, schema(1),
        schema({}),
        schema({"schema": "x"}), schema({"schema": []}), schema({"schema": True}),
        schema({"schema": ENDLESS}),
        schema({"schema": {"description": "x" * 70_000}}), schema({"schema": {}, "also": 1}),
        schema({"schema": {}, "name": "x" * 65}), schema({"schema": {}, "name": 1}),
        schema({"schema": {}, "strict": "yes"}), {"type": "json_object", "more": 1},
    ],
    "unheard_of": [1, None, [], {}],
    "best": [1],
    "Temperature": [1],
    "": [1],
    "x" * 500: [1],
    "a\nb": [1],
    "__proto__": [{}],
}  # fmt: skip
CHAT_ONLY: dict[str, list[Any]] = {
    "messages": [
        None, [], {}, "hi", 1, [1], [None], ["hi"], [[]], [{}], [{"role": "user"}], [{"content": "hi"}],
        [{"role": "robot", "content": "x"}], [{"role": 1, "content": "x"}], [{"role": None, "content": "x"}],
        [{"role": [], "content": "x"}], [{"role": "function", "name": "f", "content": "x"}],
        [{"role": "user", "content": "x", "more": 1}], [{"role": "user", "content": "x", "tool_calls": []}],
        [{"role": "user", "content": "x", "name": "ada"}],
        [{"role": "user", "content": "x", "tool_call_id": "a"}],
        [{"role": "assistant"}], [{"role": "assistant", "content": None}],
        [{"role": "tool", "content": None}],
        [{"role": "tool", "content": "x", "tool_call_id": 1}],
        [{"role": "assistant", "content": "x", "audio": {}}],
        [{"role": "user", "content": "x"}] * 2049, user(1), user(True), user({}), user([1]), user([{}]),
        user([{"type": "text"}]), user([{"type": "text", "text": 1}]),
        user([{"type": "text", "text": "x", "more": 1}]),
        user([{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}]), user([None]),
        user([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]),
        user([{"type": "file", "file": {"file_id": "/etc/passwd"}}]), user([{"type": []}]),
        calls("x"), calls({}), calls([1]), calls([{}]), calls([{"function": {}}]),
        calls([{"function": {"name": "f"}}]),
        calls([{"function": {"name": 1, "arguments": "{}"}}]),
        calls([{"function": {"name": "f", "arguments": {}}}]),
        calls([{"id": 1, "function": {"name": "f", "arguments": "{}"}}]),
        calls([{"type": "magic", "function": {"name": "f", "arguments": "{}"}}]),
        calls([{"function": {"name": "f", "arguments": "{}"}}] * 129), calls([{"function": "f"}]),
    ],
    "max_completion_tokens": [0, -1, 1.5, "10", True, 513],
    "max_tokens": [0],
    "logprobs": [1, "true", []],
    "top_logprobs": [1, 21, -1, "1", True, 1.5],     # without logprobs
    "tools": [
        "x", {}, 1, [1], [{}], [{"type": "function"}], [{"type": "web_search"}], tool({}), tool("f"),
        tool({"name": ""}),
        tool({"name": "a b"}), tool({"name": "x" * 65}), tool({"name": "f\n"}),
        tool({"name": "f", "parameters": []}),
        tool({"name": "f", "parameters": ENDLESS}), tool({"name": "f", "more": 1}),
        tool({"name": "f", "strict": 1}),
        tool({"name": "f", "description": 1}), tool({"name": "f"}) * 129,
        [{"type": "function", "function": {}, "x": 1}],
        tool({"name": "f", "parameters": {"x": "y" * 70_000}}),
    ],
    "tool_choice": ["required", "always", 1, [], {}, {"type": "function", "function": {"name": "f"}}],
    "functions": [[], [{"name": "f"}]],
    "function_call": ["auto"],
    "parallel_tool_calls": [False, 1],
    "store": [True],
    "modalities": [["text", "audio"], ["audio"], "text"],
    "audio": [{"voice": "x"}],
    "prediction": [{}],
    "reasoning_effort": ["high"],
    "service_tier": ["flex", 1],
    "metadata": [{"a": "b"}],
    "web_search_options": [{}],
    "chat_template": ["{{ 1 }}"],
    "chat_template_kwargs": [{}],
    "prompt": ["hi"],
}  # fmt: skip
TEXT_ONLY: dict[str, list[Any]] = {
    "prompt": [
        None, [], {}, 1, True, [[]], [1.5], [None], [True], [-1], [1000], [HUGE], ["a", 1], ["a", None],
        [[1], 2],
        [[1], []], [["a"]], [[[1]]], ["a"] * 65, [[1]] * 65, [1] * 513, [[1] * 513], [[1, "a"]], [{}],
    ],
    "logprobs": [-1, 21, True, "1", 1.5, []],
    "echo": [1, "true", []],
    "best_of": [2, 0, "1", True],
    "suffix": ["x", 1],
    "messages": [HI],
    "tools": [[]],
    "max_completion_tokens": [1],
}  # fmt: skip
FIELDS: list[tuple[str, str, Any]] = [
    *((CHAT, name, value) for name, values in (*BOTH.items(), *CHAT_ONLY.items()) for value in values),
    *((TEXT, name, value) for name, values in TEXT_ONLY.items() for value in values),
    *((TEXT, name, BOTH[name][0]) for name in BOTH),
    *((TOKENIZE, "prompt", value) for value in (None, 1, [], {}, ["a"], True)),
    *((TOKENIZE, "add_special_tokens", value) for value in (1, "x")),
    *((TOKENIZE, "messages", value) for value in (HI, [], "x")),
    *((TOKENIZE, name, value) for name,
    value in (("model", "x"), ("more", 1), ("add_generation_prompt", False))),
    *((EXPERTS, "tokens", value) for value in (None, [], "x", {}, [1.5], [-1], [1000], [None], [True],
    [1] * 513)),
    *((EXPERTS, "more", value) for value in (1, None)),
]
FIELDS = [case for case in FIELDS if not (case[0] == TEXT and case[1] == "max_completion_tokens")]
BODIES: list[bytes] = [
    b"", b" ", b"{", b"}", b"[]", b"1", b"null", b"true", b'"x"', b"{}x", b"{'a': 1}", b'{"a": }',
    b'{"a": 1,}', b"{a: 1}",
    b"\xff", b'{"prompt": "\xff"}', b"\xef\xbb\xbf{}", b"\x00", b"{\x00}", b'{"messages": NaN}',
    b'{"temperature": NaN}',
    b'{"temperature": Infinity}', b'{"temperature": -Infinity}', b'{"a": "\n"}', b'{"a": "\\x"}',
    b'{"a": "\\ud800"}',
    b'{"messages": [{"role": "user", "content": "\\udfff"}], "prompt": "\\udfff"}', b"[" * 100_000,
    b'{"a":' * 100_000,
    b"{" + b'"a":1,' * 1000, b"1" * 5000, b'{"temperature": ' + b"9" * 5000 + b"}",
    '{"prompt": "hi"}'.encode("utf-16"),
    b'{"temperature": 1e999, "prompt": "x", "messages": [{"role": "user", "content": "x"}]}', b"<xml/>",
    b"a=b&c=d",
    b"// {}", b'{"\\ud83d": 1}', b'{"prompt"', b"\r\n\r\n", b"-", b"0x10", b"\x1f\x8b\x08\x00", b'{"a": 01}',
]  # fmt: skip
JSON = {"Content-Type": "application/json"}
HEADS: list[tuple[str, str, dict[str, str], bytes, set[int]]] = [
    *(("GET", path, {}, b"", {405}) for path in GOOD),
    *((method, CHAT, JSON, b"{}", {405}) for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
    "BREW")),
    *(("POST", path, JSON, b"{}", {405}) for path in ("/", "/health", "/metrics", "/v1/models",
    "/fathom/info")),
    *(("POST", path, JSON, b"{}", {404}) for path in ("/v1", "/v1/embeddings", "/v1/chat/completions/",
    "//v1/completions")),
    *(("GET", path, {}, b"", {404}) for path in (
        "/v1/", "/docs", "/openapi.json", "/redoc", "/admin", "/.env", "/page/", "/page/../wire.py",
        "/page/%2e%2e/wire.py",
        "/page/..%2fwire.py", "/page/index.html%00", "/%00", "/%ff", "/etc/passwd", "/v1/models/",
        "/health/", "/%2e%2e/",
        "/v1/models/" + "x" * 100, "/v1/models/..%2f..%2fetc", "/favicon.ico/x", "/page/%C0%AE", "/HEALTH",
    )),
    *(("POST", CHAT, {"Content-Type": kind}, b"{}", {415}) for kind in (
        "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx",
        "json", "a" * 500,
        "application/json+x", "text/json", "*/*",
    )),
    ("POST", CHAT, {"Content-Type": ""}, b"{}", {415}),
    ("POST", CHAT, JSON | {"Content-Encoding": "gzip"}, b"{}", {415}),
    ("POST", CHAT, JSON | {"Content-Encoding": "br"}, b"{}", {415}),
    ("POST", CHAT, JSON, b" " * (2 << 20) + b"{}", {413}),
    ("GET", "/v1/models?" + "x" * 3000, {}, b"", {414}),
    ("GET", "/" + "x" * 3000, {}, b"", {414}),
    ("GET", "/v1/models", {f"X-{k}": "y" for k in range(100)}, b"", {431}),
    ("GET", "/v1/models", {"X": "y" * 20_000}, b"", {431}),
    ("GET", "/v1/models", {"Host": "evil.example"}, b"", {403}),
    ("GET", "/v1/models", {"Host": "127.0.0.1.evil.example"}, b"", {403}),
    ("GET", "/v1/models", {"Host": "[::2]:80"}, b"", {403}),
    ("GET", "/v1/models", {"Host": "169.254.169.254"}, b"", {403}),
    ("GET", "/v1/models", {"Host": "0.0.0.0"}, b"", {403}),
    ("GET", "/v1/models", {"Host": ""}, b"", {403}),
    ("POST", CHAT, JSON | {"Origin": "https://evil.example"}, b"{}", {403}),
    ("POST", CHAT, JSON | {"Origin": "null"}, b"{}", {403}),
    ("POST", CHAT, JSON | {"Origin": "http://localhost:1"}, b"{}", {403}),
    ("POST", CHAT, JSON | {"Origin": "http://["}, b"{}", {403}),
    ("POST", CHAT, JSON | {"Origin": ""}, b"{}", {403}),
    ("POST", CHAT, JSON | {"X-Forwarded-For": "127.0.0.1"}, b"{}", {403}),
    ("POST", CHAT, JSON | {"Forwarded": "for=127.0.0.1"}, b"{}", {403}),
]  # fmt: skip
HEAD = b"Host: localhost\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n"
BAD = {400}
RAW: list[tuple[bytes, set[int]]] = [
    *((line + b"\r\n\r\n", {400, 403}) for line in (
        b"hello", b"GET", b"GET /", b"GET / HTTP/9.9", b"GET / HTTP/2.0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 x", b"G\x00T / HTTP/1.1", b"GET /a b HTTP/1.1", b"PRI * HTTP/2.0",
        b"GET /\xff\xfe HTTP/1.1",
    )),
    (b"GET / HTTP/1.1\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n" + HEAD + HEAD + b"\r\n", BAD),
    (b"GET / HTTP/1.1\r\n" + HEAD + b"no colon\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n" + HEAD + b"A : b\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n" + HEAD + b"A\x00: b\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n" + HEAD + b"A: b\x00c\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n" + HEAD + b"A: " + b"b" * 70_000 + b"\r\n\r\n", {400, 431}),
    (b"GET /v1/models HTTP/1.0\r\n\r\n", {403}),
    (b"GET /v1/models HTTP/1.1\r\n" + HEAD + b"Origin: http://a\r\nOrigin: http://b\r\n\r\n", BAD),
    (b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", {404, 405}),
    (b"GET http://evil.example/ HTTP/1.1\r\n" + HEAD + b"\r\n", {404}),
    (b"CONNECT evil.example:80 HTTP/1.1\r\n" + HEAD + b"\r\n", {400, 404, 405}),
    (POST + b"Content-Length: x\r\n\r\n", BAD),
    (POST + b"Content-Length: -1\r\n\r\n", BAD),
    (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", BAD),
    (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", {400, 413}),
    (POST + b"Content-Length: 3000000\r\n\r\n", {413}),
    (POST + b"Content-Length: 3000000\r\nExpect: 100-continue\r\n\r\n", {413}),
    (POST + b"Transfer-Encoding: gzip\r\n\r\n", {400, 501}),
    (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", {400, 501}),
    (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", BAD),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", BAD),
    (POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n", BAD),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", BAD),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nTrailer: x\r\n\r\n", BAD),
    (POST + b"\r\n", BAD),
    (b"GET /v1/models HTTP/1.1\r\n" + HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", {200}),
    (b"GET /nothing HTTP/1.1\r\n" + HEAD + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", {404}),
]  # fmt: skip
