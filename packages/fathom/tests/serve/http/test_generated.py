"""Bodies that nobody thought of: whatever is sent, the answer is 200 or an error in OpenAI's form."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fathom.serve.chat import KNOWN as CHAT_KNOWN
from fathom.serve.chat import NEUTRAL as CHAT_NEUTRAL
from fathom.serve.completions import KNOWN as TEXT_KNOWN
from fathom.serve.errors import json_bytes

NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-2, 30))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20))
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "developer"])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": st.text(max_size=20) | JSON}), max_size=4
)
NAMES = {
    "/v1/chat/completions": (*CHAT_KNOWN, *CHAT_NEUTRAL),
    "/v1/completions": TEXT_KNOWN,
    "/tokenize": ("prompt", "messages", "add_special_tokens", "return_token_strs"),
    "/fathom/experts": ("tokens",),
}
NEEDED = {
    "/v1/chat/completions": st.fixed_dictionaries({"messages": MESSAGES | JSON}),
    "/v1/completions": st.fixed_dictionaries({"prompt": st.text() | st.lists(st.integers(0, 1100)) | JSON}),
    "/tokenize": st.just({}),
    "/fathom/experts": st.just({}),
}
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def check(http: httpx.Client, path: str, data: Any) -> None:
    needed = data.draw(NEEDED[path])
    some = st.dictionaries(st.sampled_from(NAMES[path]) | st.text(max_size=6), JSON, max_size=3)
    body = data.draw(some) | needed
    answer = http.post(path, content=json_bytes(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 404), (body, answer.text)
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert "Fix: " in error["message"] and "\n" not in error["message"]
    elif not answer.headers["content-type"].startswith("text/event-stream"):
        answer.json()
    else:
        assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("path", NAMES)
@settings(max_examples=100, deadline=None, suppress_health_check=QUIET)
@given(data=st.data())
def test_generated_bodies(http: httpx.Client, link: Any, path: str, data: Any) -> None:
    check(http, path, data)


@pytest.mark.soak
@pytest.mark.parametrize("path", NAMES)
@settings(max_examples=2500, deadline=None, suppress_health_check=QUIET)
@given(data=st.data())
def test_ten_thousand_generated_bodies(http: httpx.Client, link: Any, path: str, data: Any) -> None:
    check(http, path, data)


@settings(max_examples=200, deadline=None, suppress_health_check=QUIET)
@given(raw=st.binary(max_size=200))
def test_generated_bytes(http: httpx.Client, link: Any, raw: bytes) -> None:
    answer = http.post("/v1/chat/completions", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and "Fix: " in answer.json()["error"]["message"]
