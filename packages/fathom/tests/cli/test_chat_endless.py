"""`fathom chat --url` with a server that never comes to an end: it is left, and what it said is kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fathom.cli import chat_http, chat_remote
from fathom.cli.main import main

WORDS = b"data: " + json.dumps({"choices": [{"delta": {"content": "word " * 20}}]}).encode() + b"\n\n"


class Endless(ThreadingHTTPServer):
    """Sends `piece` again and again until its client leaves."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.piece, self.left = b"", threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Of one request."""

    server: Endless

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            while True:
                self.wfile.write(self.server.piece)
        except OSError:
            self.server.left.set()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endless]:
    for name in ("FATHOM_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with Endless() as endless:
        thread = threading.Thread(target=endless.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield endless
        endless.shutdown()
        thread.join()


def ask(server: Endless, piece: bytes, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What is printed, and the one line that says why it ended."""
    server.piece = piece
    url = f"http://127.0.0.1:{server.server_address[1]}"
    assert main(["chat", "--url", url, "--model", "m", "--message", "Hi"]) == 1
    assert server.left.wait(10)
    out, err = capsys.readouterr()
    assert err.startswith("fathom: ") and err.count("\n") == 1 and err.count("Fix: ") == 1
    return out, err


def test_an_answer_without_end_is_kept_as_far_as_it_may_go(server, capsys, monkeypatch):
    monkeypatch.setattr(chat_remote, "LONGEST_TEXT", 1000)
    out, err = ask(server, WORDS, capsys)
    assert out.startswith("word word") and 1000 < len(out) < 1200 and "over 1,000 characters" in err


@pytest.mark.parametrize("piece", [b": ping\n\n", b'data: {"choices": []}\n\n'])
def test_a_stream_without_words_or_end_is_left(server, capsys, monkeypatch, piece):
    monkeypatch.setattr(chat_http, "LONGEST_STREAM", 1000)
    out, err = ask(server, piece, capsys)
    assert out == "" and "over 1,000 bytes" in err
