"""`fathom chat --url` against a server in a thread that streams, errs, breaks off and falls silent."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fathom.cli import chat_http, chat_remote
from fathom.cli.main import main

FIELDS = {  # of OpenAI's request, as far as the command may send them
    "model": str, "messages": list, "stream": bool, "temperature": (int, float), "top_p": (int, float),
    "max_tokens": int, "max_completion_tokens": int, "seed": int,
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Notes each request and lets the next reply of the list write what it likes."""

    protocol_version = "HTTP/1.1"
    server: Fake

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for name, value in body.items():
            assert isinstance(value, FIELDS[name]), f"{name}={value!r} is not of OpenAI's interface"
        assert all(set(turn) == {"role", "content"} for turn in body["messages"])
        self.server.bodies.append(body)
        self._reply()

    def do_GET(self) -> None:
        self._reply()

    def _reply(self) -> None:
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        self.close_connection = True
        self.server.replies.pop(0)(self)

    def log_message(self, *_: object) -> None:
        pass


class Fake(ThreadingHTTPServer):
    """A server whose replies are written beforehand."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[Callable[[Handler], None]] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[dict] = []
        self.left = threading.Event()  # set where a client was seen to hang up
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.faults: list[str] = []

    def handle_error(self, *_: object) -> None:
        self.faults.append(repr(sys.exc_info()[1]))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    for name in ("FATHOM_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with Fake() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    assert not server.faults and not server.replies, (server.faults, server.replies)


def event(text: object = None, finish: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def raw(data: bytes, kind: str = "text/event-stream", status: int = 200, **headers: str):
    """A reply: `data` as it is, then the end of the connection."""

    def reply(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def said(*texts: str, end: bytes = b"data: [DONE]\n\n"):
    return raw(b"".join(map(event, texts)) + event(None, "stop") + end)


def refusal(status: int, message: str = "no", **headers: str):
    return raw(json.dumps({"error": {"message": message}}).encode(), "application/json", status, **headers)


def models(*names: str):
    return raw(json.dumps({"data": [{"id": name} for name in names]}).encode(), "application/json")


def chat(fake: Fake, *options: str, model: str = "m") -> int:
    return main(["chat", "--url", fake.url, "--model", model, *options])


def ask(fake: Fake, capsys, *replies, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Status, stdout and stderr of one message."""
    fake.replies.extend(replies)
    status = chat(fake, "--message", "Hi", *options)
    return status, *capsys.readouterr()


def talk(fake: Fake, capsys, monkeypatch, *lines: str, options: tuple[str, ...] = ()) -> tuple[str, str]:
    """stdout and stderr of a conversation."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    assert chat(fake, *options) == 0
    return capsys.readouterr()


def one_line(err: str) -> str:
    assert err.startswith("fathom: ") and err.count("\n") == 1 and err.count("Fix: ") == 1, err
    return err


def test_one_message_is_streamed_and_asks_for_nothing_that_was_not_given(fake, capsys):
    assert ask(fake, capsys, said("Hel", "lo, Mia", "…")) == (0, "Hello, Mia…\n", "")
    assert fake.bodies == [{"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}]
    ((method, path, headers),) = fake.requests
    assert (method, path) == ("POST", "/v1/chat/completions") and "Authorization" not in headers
    assert headers["Host"] == fake.url.removeprefix("http://")


def test_what_was_given_is_sent_under_openais_names(fake, capsys):
    options = ["--temperature", "0.5", "--top-p", "0.9", "--max-tokens", "7", "--seed", "3"]
    assert ask(fake, capsys, said("Hi"), options=(*options, "--system", "Be kind."))[0] == 0
    (body,) = fake.bodies
    wanted = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "seed": 3}
    assert {name: body[name] for name in wanted} == wanted
    assert set(body) == {*wanted, "model", "messages", "stream"}
    assert body["messages"][0] == {"role": "system", "content": "Be kind."}


def test_a_conversation_is_remembered_and_its_commands_reach_the_server(fake, capsys, monkeypatch):
    fake.replies = [said(text) for text in ("one", "two", "three", "four")]
    lines = ["Hi", "/stats", "/temp 0", "/regen", "/system Short.", "More", "/reset", "Again", "/temp"]
    out, err = talk(fake, capsys, monkeypatch, *lines, options=("--seed", "3"))
    first, again, more, fresh = fake.bodies
    assert "answer   1 pieces" in out and "1 answered by m" in out and "temperature 0.0" in out
    assert err == f"Talking with m at {fake.url}/v1. /help lists commands, Ctrl-D leaves.\n\n"
    assert "temperature" not in first and again["temperature"] == 0
    assert first["seed"] == 3 and 3 != again["seed"] < 2**53 and again["messages"] == first["messages"]
    roles = [(turn["role"], turn["content"]) for turn in more["messages"]]
    assert roles == [("system", "Short."), ("user", "Hi"), ("assistant", "two"), ("user", "More")]
    assert [turn["content"] for turn in fresh["messages"]] == ["Short.", "Again"]


def test_an_answer_is_drawn_anew_by_the_server_where_no_seed_was_given(fake, capsys, monkeypatch):
    fake.replies = [said("one"), said("two")]
    talk(fake, capsys, monkeypatch, "Hi", "/help", "/regen", "/exit")
    assert fake.bodies[0] == fake.bodies[1] and "seed" not in fake.bodies[0]
    assert [headers["Connection"] for _, _, headers in fake.requests] == ["close", "close"]


def test_the_first_model_of_the_list_is_taken(fake, capsys):
    fake.replies = [models("tiny", "large"), said("Hi")]
    assert main(["chat", "--url", fake.url, "--message", "Hi"]) == 0
    assert fake.bodies[0]["model"] == "tiny" and fake.requests[0][:2] == ("GET", "/v1/models")
    for nothing in (b"[]", b"3", b"[{}]", b'[{"id": ""}]'):
        fake.replies = [raw(b'{"data": %s}' % nothing, "application/json")]
        assert main(["chat", "--url", fake.url, "--message", "Hi"]) == 2
    assert "lists no model. Fix: name one with --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given,path",
    [("", "/v1"), ("/", "/v1"), ("/v1", "/v1"), ("/v1/", "/v1"), ("/api/v3", "/api/v3"),
     ("/v1/chat/completions", "/v1")],
)  # fmt: skip
def test_the_base_is_v1_unless_a_path_is_given(given, path, fake):
    fake.replies = [said("Hi")]
    assert main(["chat", "--url", fake.url + given, "--model", "m", "--message", "Hi"]) == 0
    assert fake.requests[0][1] == f"{path}/chat/completions"


def test_the_key_is_the_option_then_ours_then_openais_and_is_never_shown(fake, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-third")
    ask(fake, capsys, said("Hi"))
    monkeypatch.setenv("FATHOM_API_KEY", "sk-second")
    ask(fake, capsys, said("Hi"))
    wrong = refusal(401, "Incorrect API key provided: sk-first.")
    status, _, err = ask(fake, capsys, wrong, options=("--api-key", "sk-first"))
    sent = [headers["Authorization"] for _, _, headers in fake.requests]
    assert sent == ["Bearer sk-third", "Bearer sk-second", "Bearer sk-first"]
    assert status == 2 and "[the key]" in one_line(err) and "sk-first" not in err and "--api-key" in err


@pytest.mark.parametrize(
    "reply,status,words",
    [
        (refusal(400, "unknown field: top_p"), 2, ["refuses the request (400: unknown field: top_p)"]),
        (refusal(422, "top_p is 9. Fix: give 1 or less"), 2, ["(422: top_p is 9). Fix: give 1 or less\n"]),
        (refusal(401), 2, ["wants a key", "FATHOM_API_KEY"]),
        (refusal(403), 2, ["does not let this key in"]),
        (refusal(404, "There is no model m."), 2, ["There is no model m)", "such as /v1", "--model"]),
        (raw(b"<h1>no</h1>", "text/html", 404), 2, ["has no such path or model (404). Fix:"]),
        (refusal(429, "slow down", Retry_After="7"), 75, ["(429: slow down). Fix: try again in 7 s\n"]),
        (refusal(429, "full. Fix: wait"), 75, ["(429: full). Fix: try again in a while"]),
        (refusal(503, "the engine restarts", Retry_After="2"), 75, ["cannot answer now", "in 2 s"]),
        (refusal(500, "line\none \x1b[2J" + "x" * 500), 1, ["(500: line one \\x1b[2J", "...)", "log"]),
        (raw(b'{"detail": [{"msg": "bad"}]}', "application/json", 422), 2, ["[{'msg': 'bad'}]"]),
        (raw(b"[" * 100_000, "application/json", 500), 1, ["failed (500)"]),
        (raw(b"", status=204), 1, ["answers strangely (204)"]),
    ],
)
def test_a_refusal_is_one_line_with_a_fix_and_a_status(reply, status, words, fake, capsys):
    found, out, err = ask(fake, capsys, reply)
    assert (found, out) == (status, "") and len(one_line(err)) < 400
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    "data,kind,words",
    [
        (b"data: {no JSON\n\n", "text/event-stream", "no JSON object"),
        (b"data: [1]\n\n", "text/event-stream", "no JSON object"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "text/event-stream", "no JSON object"),
        (b"data: \xff\n\n", "text/event-stream", "not UTF-8"),
        (b'data: {"choices": 3}\n\n', "text/event-stream", "no chat's"),
        (b'data: {"choices": [3]}\n\n', "text/event-stream", "no chat's"),
        (b'data: {"choices": [{"delta": {"content": 3}}]}\n\n', "text/event-stream", "no chat's"),
        (b'data: {"error": {"message": "no pages"}}\n\n', "text/event-stream", "the server says: no pages"),
        (b"data: [DONE]\n\n", "text/event-stream", "has no text"),
        (b"Hello", "text/event-stream", "broke off"),
        (b"", "text/event-stream", "broke off"),
        (b"<h1>Hello</h1>", "text/html", "text/html in place of a stream"),
        (b"Hello", "application/json", "no JSON object"),
        (b"{}", "application/json", "has no text"),
    ],
)
def test_nonsense_is_one_line(data, kind, words, fake, capsys):
    status, out, err = ask(fake, capsys, raw(data, kind))
    assert (status, out) == (1, "") and words in one_line(err)


def test_an_endless_event_is_not_read(fake, capsys, monkeypatch):
    monkeypatch.setattr(chat_http, "LONGEST_EVENT", 1000)
    monkeypatch.setattr(chat_http, "LONGEST_ANSWER", 1000)
    endless = (raw(b"data: " + b"x" * 999), raw(b"data: x\n" * 200), raw(b"x" * 1001, "application/json"))
    for reply in endless:
        assert "over 1,000 bytes" in one_line(ask(fake, capsys, reply)[2])
    pings = b": ping\n\n" * 200 + event("Hi", "stop")
    assert ask(fake, capsys, raw(pings))[:2] == (0, "Hi\n")


def test_streams_as_others_write_them(fake, capsys):
    usage = b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\n'
    crlf = event("Hi").replace(b"\n", b"\r\n") + b"event: x\r\nid: 3\r\n" + event(None, "stop")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(e), e) for e in (event("H"), event("i", "stop"))) + b"0\r\n\r\n"
    split = b'data: {"choices":\ndata: [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\n'
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hi"}]
    for reply in (
        said("Hi", end=b""), said("Hi", end=b"data: [DONE]"), said("Hi", end=b"data:[DONE]\n\n"),
        raw(event("Hi", "stop") + usage + b"data: [DONE]\n\n"), raw(crlf), raw(split),
        raw(chunks, Transfer_Encoding="chunked"), raw(event(parts, "stop")),
        raw(b'{"choices": [{"message": {"content": "Hi"}}]}', "application/json; charset=utf-8"),
    ):  # fmt: skip
        assert ask(fake, capsys, reply) == (0, "Hi\n", "")


def test_a_strangers_text_cannot_steer_the_terminal(fake, capsys):
    text = "a\x1b]0;b\x07c\rd\x9b2Je\tf\r\n\ud83dg"
    assert ask(fake, capsys, said(text))[1] == "a�]0;b�c�d�2Je\tf\n�g\n"


def test_a_stream_that_breaks_off_keeps_its_text_and_can_be_asked_again(fake, capsys, monkeypatch):
    chunk = event("Once")
    for half in (raw(chunk), raw(chunk + b"data: {"), raw(chunk, Content_Length="900"),
                 raw(b"%x\r\n%s\r\nzz" % (len(chunk), chunk), Transfer_Encoding="chunked")):  # fmt: skip
        status, out, err = ask(fake, capsys, half)
        assert (status, out) == (1, "Once\n") and "the answer broke off" in one_line(err)
    fake.replies = [raw(event("Once")), said("Twice"), said("Thrice")]
    fake.bodies.clear()
    out, err = talk(fake, capsys, monkeypatch, "Hi", "Go on", "/regen")
    assert out == "> Once\n> Twice\n> Thrice\n> " and err.count("Fix: /regen") == 1
    assert [turn["content"] for turn in fake.bodies[2]["messages"]] == ["Hi", "Once", "Go on"]


def test_a_refused_message_is_taken_back_and_said_again_by_regen(fake, capsys, monkeypatch):
    fake.replies = [refusal(503), refusal(503), said("Hello"), refusal(503), said("More")]
    out, err = talk(fake, capsys, monkeypatch, "Hi", "/regen", "/regen", "/regen", "Go on")
    assert err.count("cannot answer now") == 3 and "Hello" in out
    assert [turn["content"] for turn in fake.bodies[4]["messages"]] == ["Hi", "Hello", "Go on"]


@pytest.mark.parametrize(
    "sent,words",
    [(None, "has not answered for 0.2 s"), (b"", "hung up without an answer"),
     (b"SSH-2.0\r\n\r\n", "speaks no HTTP"),
     (b"HTTP/1.1 200 OK\r\n", "text/plain in place of a stream"),
     (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event("On"), "0.2 s of silence")],
)  # fmt: skip
def test_a_server_that_falls_silent_is_left(sent, words, fake, capsys):
    silent = sent is None or b"On" in sent

    def reply(handler: Handler) -> None:
        handler.wfile.write(sent or b"")
        handler.wfile.flush()
        if silent and handler.rfile.read(1) == b"":  # until the client hangs up
            fake.left.set()

    status, _, err = ask(fake, capsys, reply, options=("--timeout", "0.2"))
    assert status in (1, 2) and words in one_line(err)
    assert not silent or fake.left.wait(5)


def test_ctrl_c_hangs_up_and_keeps_what_was_written(fake, capsys, monkeypatch):
    seen = threading.Semaphore(0)  # released behind each piece on the screen

    def printed(*words: str, **how: Any) -> None:
        print(*words, **how)
        seen.release()

    monkeypatch.setattr(chat_remote, "print", printed, raising=False)

    def interrupted(*texts: str):
        def reply(handler: Handler) -> None:
            while seen.acquire(blocking=False):
                pass
            raw(b"".join(map(event, texts)))(handler)
            for _ in texts:
                assert seen.acquire(timeout=10)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            handler.connection.settimeout(0.1)
            with contextlib.suppress(ConnectionError):
                while True:
                    try:
                        assert handler.connection.recv(1) == b""
                        break
                    except TimeoutError:  # the signal came just before it began to wait, and waits too
                        handler.wfile.write(b": ping\n\n")
            fake.left.set()

        return reply

    fake.replies = [interrupted("Once ", "upon"), said("a time"), interrupted(), said("Bye")]
    out, err = talk(fake, capsys, monkeypatch, "Hi", "Go on", "Lost", "/regen")
    assert out == "> Once upon\n> a time\n> \n> Bye\n> " and "before the first word. Fix: /regen" in err
    assert [turn["content"] for turn in fake.bodies[1]["messages"]] == ["Hi", "Once upon", "Go on"]
    assert [turn["content"] for turn in fake.bodies[3]["messages"]][-1] == "Lost" and fake.left.wait(5)
    for texts, shown in ((("Once",), "Once\n"), ((), "\n")):
        assert ask(fake, capsys, interrupted(*texts))[:2] == (130, shown)


def test_a_redirect_to_another_place_is_refused_and_takes_no_key_along(fake, capsys):
    with Fake() as other:  # nobody serves it: a request would hang in its queue
        location = f"{other.url}/v1/chat/completions"
        status, _, err = ask(fake, capsys, refusal(307, Location=location), options=("--api-key", "k"))
        other.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            other.socket.accept()
    assert status == 2 and f"sends us on to {other.url}, another place. Fix: if you trust it" in one_line(err)
    for number, where in ((307, "https://127.0.0.1/"), (302, "/v2"), (307, "//[bad"), (308, "/a b")):
        status, _, err = ask(fake, capsys, refusal(number, Location=where))
        assert status in (1, 2) and one_line(err)


def test_a_redirect_at_the_same_place_is_followed_a_few_times(fake, capsys):
    moved = refusal(307, Location="/v2/chat?x=1")
    assert ask(fake, capsys, moved, said("Hi"))[1] == "Hi\n"
    assert fake.requests[1][1] == "/v2/chat?x=1" and fake.bodies[0] == fake.bodies[1]
    assert "in circles" in one_line(ask(fake, capsys, *[moved] * 4)[2])


def test_newer_models_name_max_tokens_otherwise(fake, capsys):
    wrong = refusal(400, "'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
    assert ask(fake, capsys, wrong, said("Hi"), options=("--max-tokens", "5"))[1] == "Hi\n"
    assert fake.bodies[1]["max_completion_tokens"] == 5 and "max_tokens" not in fake.bodies[1]
    assert ask(fake, capsys, wrong)[0] == 2


def test_a_server_needs_no_torch(fake):
    fake.replies = [models("tiny"), said("Hello")]
    words = ["chat", "--url", fake.url, "--message", "Hi"]
    code = f"import sys\nfrom fathom.cli.main import main\nmain({words})\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello\n", "")
