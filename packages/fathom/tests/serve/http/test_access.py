"""Who may come in, over every route there is; and what a browser of another site may not."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fathom.config.errors import ConfigError
from fathom.serve import guard
from fathom.serve.access import Access, is_loopback
from fathom.serve.app import make_app
from fathom.serve.errors import ApiError
from fathom.serve.limits import Settings
from fathom.serve.page_files import PageFile
from fathom.serve.run import listen

KEYS = ("first-key-1", "second-key-2")
CONCRETE = {"/v1/models/{model:path}": "/v1/models/played"}


def routes(app: Any) -> list[tuple[str, str]]:
    """(method, path) of every route of the application."""
    found = [(sorted(r.methods)[0], CONCRETE.get(r.path, r.path)) for r in app.routes]
    assert len(found) >= 10 and ("POST", "/fathom/experts") in found and ("GET", "/") in found
    return found


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"ada:{key}".encode()).decode()


WRONG = {
    "nothing": {},
    "a wrong key": {"Authorization": "Bearer wrong-key-00"},
    "a part of a key": {"Authorization": "Bearer first-key-"},
    "a key and more": {"Authorization": "Bearer first-key-1x"},
    "no scheme": {"Authorization": "first-key-1"},
    "another scheme": {"Authorization": "Digest first-key-1"},
    "an empty key": {"Authorization": "Bearer"},
    "a key as a user's name": {"Authorization": "Basic " + base64.b64encode(b"first-key-1:").decode()},
    "basic that is no base64": {"Authorization": "Basic %%%"},
    "two headers": [("Authorization", "Bearer wrong"), ("Authorization", "Bearer first-key-1")],
    "another header": {"X-Api-Key": "first-key-1", "Cookie": "key=first-key-1"},
}
RIGHT = [f"Bearer {KEYS[0]}", f"bearer {KEYS[1]}", basic(KEYS[0])]


def test_only_reading_health_needs_no_key(serve: Callable[..., Any]) -> None:
    one = serve(keys=KEYS)
    for method, expected in (("GET", 200), ("POST", 401), ("PUT", 401)):
        answer = httpx.request(method, one.url + "/health", timeout=10)
        assert answer.status_code == expected, method


def test_every_route_but_health_wants_a_key(serve: Callable[..., Any]) -> None:
    one = serve(keys=KEYS)
    with httpx.Client(base_url=one.url) as http:
        for method, path in [*routes(one.app), ("GET", "/nothing"), ("PUT", "/metrics"), ("HEAD", "/")]:
            for name, headers in WRONG.items():
                answer = http.request(method, path, headers=headers)
                if path == "/health":
                    assert answer.status_code == 200
                    continue
                assert answer.status_code in (401, 400 if name == "two headers" else 401), (
                    method,
                    path,
                    name,
                )
                if answer.status_code == 401 and method != "HEAD":
                    assert answer.json()["error"]["code"] == "invalid_api_key"
                    assert answer.headers["www-authenticate"].startswith(("Bearer", "Basic"))
            for right in RIGHT:
                answer = http.request(method, path, headers={"Authorization": right})
                assert answer.status_code not in (401, 403), (method, path, right)
    assert not one.link.asks


def test_a_browser_asks_its_person_only_for_the_page(serve: Callable[..., Any]) -> None:
    one = serve(keys=KEYS)
    with httpx.Client(base_url=one.url) as http:
        assert http.get("/").headers["www-authenticate"].startswith("Basic")
        assert http.get("/v1/models").headers["www-authenticate"] == "Bearer"
        wrong = {"Authorization": "Bearer wrong-key-00"}
        assert http.get("/", headers=wrong).headers["www-authenticate"] == "Bearer"


def test_requests_carry_whose_they_are(serve: Callable[..., Any]) -> None:
    one = serve(keys=KEYS)
    for key in (*KEYS, KEYS[0]):
        head = {"Authorization": f"Bearer {key}"}
        httpx.post(f"{one.url}/v1/completions", json={"prompt": "x"}, headers=head)
    first, second, again = (ask.key for ask in one.link.asks)
    assert first == again != second and all(key not in first + second for key in KEYS)


def admitted(keys: tuple[str, ...] = (), client: Any = ("127.0.0.1", 1), **headers: str) -> bool:
    head = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    try:
        Access(keys).admit({"client": client, "headers": head}, page=False)
    except ApiError as error:
        assert error.status in (401, 403)
        return False
    return True


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:80", "[::1]:8000", "[::1]"])
def test_this_machine_comes_in_without_a_key(client: str, host: str) -> None:
    assert admitted(client=(client, 1), host=host)


@pytest.mark.parametrize(
    "client", [("10.0.0.1", 1), ("::ffff:10.0.0.1", 1), ("fe80::1", 1), ("", 0), ("x", 1), None]
)
def test_others_do_not(client: Any) -> None:
    assert not admitted(client=client, host="localhost")


@pytest.mark.parametrize("host", [
    "evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]", "10.0.0.1:8000", "", "[",
    "0.0.0.0",
    "localhost@evil.example", "127.1", "0x7f000001", "localhost.", "evil.example:127.0.0.1",
])  # fmt: skip
def test_names_that_lead_here_from_elsewhere_do_not(host: str) -> None:
    assert not admitted(host=host)


def test_a_request_without_a_host_does_not() -> None:
    assert not admitted()


@pytest.mark.parametrize("name", ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip"])
def test_what_a_proxy_passes_on_needs_a_key(name: str) -> None:
    assert not admitted(host="localhost", **{name: "127.0.0.1"})
    assert admitted(KEYS, client=("127.0.0.1", 1), authorization=f"Bearer {KEYS[0]}", **{name: "10.0.0.1"})


@pytest.mark.parametrize("keys", [(), KEYS])
def test_pages_of_other_sites_may_not(keys: tuple[str, ...]) -> None:
    head = {"host": "localhost:8000", "authorization": f"Bearer {KEYS[0]}"}
    assert admitted(keys, **head, origin="http://localhost:8000")
    assert admitted(keys, **head, origin="https://LOCALHOST:8000")
    for origin in (
        "http://localhost:3000",
        "http://evil.example",
        "null",
        "",
        "http://127.0.0.1:8000",
        "file://",
    ):
        assert not admitted(keys, **head, origin=origin), origin


def test_cors_is_off(http: httpx.Client) -> None:
    asked = {"Origin": str(http.base_url), "Access-Control-Request-Method": "POST"}
    for answer in (
        http.options("/v1/chat/completions", headers=asked),
        http.get("/v1/models", headers=asked),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_place_for_everybody_needs_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", ""):
        with pytest.raises(ConfigError, match="Fix: add --api-key"):
            listen(host, 0, Settings())
    for key in ("short", "with space", "with\nline", "ключ-ключ"):
        with pytest.raises(ConfigError, match="Fix: "):
            listen("127.0.0.1", 0, Settings(keys=(key,)))
    listen("0.0.0.0", 0, Settings(keys=KEYS)).close()
    assert is_loopback("localhost") and not is_loopback("localhost.")


def test_every_answer_is_dressed(http: httpx.Client) -> None:
    for path in ("/", "/health", "/nothing", "/v1/models", "/metrics"):
        head = http.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in head["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert head["x-content-type-options"] == "nosniff" and head["cache-control"] == "no-store"
        assert "server" not in head


@pytest.mark.parametrize("where", ["a route", "the guard"])
def test_a_fault_of_the_server_is_an_answer_like_every_other(
    served: Any, link: Any, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """In our form, with the headers of every answer, counted, and its place is free again."""

    def broken(*words: Any, **more: Any) -> None:
        raise RuntimeError("the moon")

    if where == "a route":
        monkeypatch.setattr(link, "encode", broken)
    else:
        monkeypatch.setattr(guard, "need_readable", broken)
    answer = http.post("/tokenize", json={"prompt": "x"})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal_error"
    assert "RuntimeError" in answer.text and "moon" not in answer.text
    for name, value in guard.HEADERS:
        assert answer.headers[name.decode()] == value.decode()
    assert 'http_requests_total{route="/tokenize",status="500"}' in http.get("/metrics").text
    assert served.service.doors.inside == 0


def test_what_is_no_http_is_refused_with_the_same_headers(served: Any) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plug:
        plug.sendall(b"nonsense\r\n\r\n")
        head = plug.recv(65536).partition(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"http/1.1 400") and b"content-security-policy: default-src 'none'" in head


def test_the_page_is_a_fixed_list(played: Any) -> None:
    page = {
        "/": PageFile(b"<p>", "text/html; charset=utf-8"),
        "/page/a.js": PageFile(b"1", "text/javascript"),
    }
    app = make_app(played(), Settings(), page)
    assert {path for _, path in routes(app)} >= {"/", "/page/a.js"}
    assert not [path for _, path in routes(app) if path.startswith("/page/") and path != "/page/a.js"]
