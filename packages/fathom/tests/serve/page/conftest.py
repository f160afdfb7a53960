"""A server as the page sees it, made up: it streams slowly, refuses, breaks off, and remembers who left."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import fathom.serve

PAGE = Path(fathom.serve.__file__).parent / "page"
FILES = {path.name: path.read_bytes() for path in PAGE.iterdir()}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [   # a browser in a container, that calls nobody of its own accord
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
INFO = {
    "model": "small-world", "line": "a story model, 31M parameters", "context": 2048, "vocabulary": 4096,
    "cache_bytes_per_token": 1280, "plain_cache_bytes_per_token": 12288, "drafts": True, "layers": 5,
    "experts": [0, 16, 16, 16, 16], "experts_per_token": 2,
}  # fmt: skip
ANSWER = "Mia had a **red** kite.\n\n- it flew high\n- over the `hill`\n\nShe ran home."
WIDE, PHONE = {"width": 1360, "height": 860}, {"width": 360, "height": 740}

Open = Callable[..., Any]


@dataclass
class Fake:
    """What the next answers are and what was asked. `plan` holds one of WAYS for each coming request for an
    answer; without one it is "ok".
    """

    plan: list[str] = field(default_factory=list)
    answer: str = ANSWER
    delay: float = 0.0              # seconds between tokens
    key: str = ""
    info: dict[str, Any] = field(default_factory=lambda: dict(INFO))
    well: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)   # bodies of requests for an answer
    paths: list[str] = field(default_factory=list)
    left: int = 0                   # clients that went away before their answer had ended
    url: str = ""

    def tokens(self) -> list[dict[str, Any]]:
        """The answer in pieces; every third was drafted, one draft fell."""
        pieces = re.findall(r"\s*[^\s]+|\s+$", self.answer)
        found = [{"id": 7 + i, "text": text, "draft": "accepted" if i % 3 == 1 else "", "rejected": []}
                 for i, text in enumerate(pieces)]  # fmt: skip
        if len(found) > 2:
            found[2]["rejected"] = [" blue", " dog"]
        return found


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection; all but files close it behind them."""

    fake: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def head(self, status: int, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        given = {"Content-Type": f"{kind}; charset=utf-8", "Content-Security-Policy": CSP,
                 "X-Content-Type-Options": "nosniff", **(more or {"Connection": "close"})}  # fmt: skip
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()

    def json(self, status: int, value: Any, more: dict[str, str] | None = None) -> None:
        self.head(status, "application/json", more)
        self.wfile.write(json.dumps(value).encode())

    def refuse(self, status: int, message: str, more: dict[str, str] | None = None) -> None:
        self.json(status, {"error": {"message": message, "type": "x", "param": None, "code": None}}, more)

    def let_in(self) -> bool:
        if not self.fake.key or self.headers.get("Authorization") == f"Bearer {self.fake.key}":
            return True
        self.refuse(401, "no key")
        return False

    def do_GET(self) -> None:
        self.fake.paths.append(self.path)
        name = "index.html" if self.path == "/" else self.path.removeprefix("/page/")
        if self.path == "/health":
            self.json(200 if self.fake.well else 503, {})
        elif self.path == "/fathom/info":
            if not self.fake.well:
                self.refuse(503, "the engine is starting")
            elif self.let_in():
                self.json(200, self.fake.info)
        elif name in FILES:
            self.head(200, TYPES[Path(name).suffix], {"Content-Length": str(len(FILES[name]))})
            self.wfile.write(FILES[name])
        else:
            self.refuse(404, "no such page")

    def do_POST(self) -> None:
        self.fake.paths.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.let_in():
            return
        if self.path == "/tokenize":
            self.json(200, {"tokens": list(range(5))})
        elif self.path == "/fathom/experts":
            self.json(200, self.experts(body["tokens"]))
        else:
            self.fake.asked.append(body)
            WAYS[self.fake.plan.pop(0) if self.fake.plan else "ok"](self)

    def experts(self, tokens: list[int]) -> dict[str, Any]:
        many, k = self.fake.info["experts"], self.fake.info["experts_per_token"]
        routed = [layer for layer, n in enumerate(many) if n]
        chosen = [[[(3 * token + 5 * layer + 7 * rank) % many[layer] for rank in range(k)]
                   for layer in routed] for token in tokens]  # fmt: skip
        return {"layers": routed, "experts": chosen}

    def event(self, value: Any) -> None:
        data = value if isinstance(value, str) else json.dumps(value)
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def stream(self, broken_after: int | None = None) -> None:
        try:
            self.head(200, "text/event-stream")
            self.wfile.write(b": a comment\r\n\r\n")
            self.events(broken_after)
        except (BrokenPipeError, ConnectionResetError):
            self.fake.left += 1

    def events(self, broken_after: int | None) -> None:
        details = self.fake.asked[-1].get("fathom_details", False)
        tokens = self.fake.tokens()
        for i, token in enumerate(tokens):
            if i == broken_after:
                return self.event({"error": {"message": "out of pages", "type": "server_error"}})
            choice: dict[str, Any] = {"index": 0, "delta": {"content": token["text"]}, "finish_reason": None}
            if details:
                choice["fathom"] = {"tokens": [token]}
            self.event({"choices": [choice]})
            time.sleep(self.fake.delay)
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        total = 5 + len(tokens)
        usage = {"prompt_tokens": 5, "completion_tokens": len(tokens)}
        last: dict[str, Any] = {"choices": [], "usage": usage}
        if details:
            stood = sum(token["draft"] == "accepted" for token in tokens)
            last["fathom"] = {"tokens_per_second": 41.5, "drafted": stood + 2, "accepted": stood,
                              "cache_bytes": 1280 * total, "plain_cache_bytes": 12288 * total,
                              **usage}  # fmt: skip
        self.event(last)
        return self.event("[DONE]")

    def down(self) -> None:
        self.fake.well = False
        self.refuse(503, "the engine is starting again")


WAYS: dict[str, Callable[[Handler], None]] = {
    "ok": Handler.stream,
    "busy": lambda to: to.refuse(429, "the queue is full", {"Retry-After": "2", "Connection": "close"}),
    "down": Handler.down,
    "broken": lambda to: to.stream(broken_after=3),
    "cut": lambda to: to.connection.shutdown(socket.SHUT_RDWR),
    "request": lambda to: to.refuse(400, "temperature must be at most 2"),
    "long": lambda to: to.refuse(413, "9000 tokens are above the context of 2048"),
    "failed": lambda to: to.refuse(500, "a layer is gone. Fix: load the model again"),
    "forbidden": lambda to: to.refuse(403, "this origin is not let in"),
}


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A server on a free port of this machine."""
    state = Fake()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"fake": state}))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")    # while it runs no test can have an event loop of its own
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; `make system` installs it")
    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, fake: Fake) -> Iterator[Open]:
    """Open the page. Afterwards nothing may have failed, nobody else been asked, and the CSP been kept."""
    contexts: list[Any] = []
    faults: list[str] = []

    def heard(message: Any, refused: bool) -> None:
        if not (refused and message.text.startswith("Failed to load resource")):    # the browser's own line
            faults.append(f"console: {message.text}")

    def asked(request: Any) -> None:
        if not request.url.startswith((fake.url, f"blob:{fake.url}")):
            faults.append(f"request: {request.url}")

    def open_it(*, refused: bool = False, size: Any = WIDE, storage: Any = None, **more: Any) -> Any:
        context = browser.new_context(viewport=size, storage_state=storage, **more)
        context.set_default_timeout(8000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard(message, refused))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", asked)
        page.goto(fake.url)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not faults, faults
