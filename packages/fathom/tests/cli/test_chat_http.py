"""What `fathom chat --url` refuses before a server answers: addresses, keys, options, no TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from email.utils import formatdate

import pytest

from fathom.cli.chat_errors import later
from fathom.cli.chat_http import Server
from fathom.cli.main import main


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FATHOM_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def one_line(err: str) -> str:
    assert err.startswith("fathom: ") and err.count("\n") == 1 and err.count("Fix: ") == 1, err
    return err


def test_a_key_that_others_could_read_is_said_so():
    plain = [Server(url, key="k").tells_the_key for url in ("http://a.example", "http://192.0.2.1:80")]
    safe = ("https://a.example", "http://localhost", "http://127.0.0.1:8000", "http://[::1]:8000")
    assert all(plain) and not any(Server(url, key="k").tells_the_key for url in safe)
    assert not Server("http://a.example").tells_the_key


def test_retry_after_may_be_a_date():
    assert later(formatdate(time.time() + 30, usegmt=True)) in ("in 30 s", "in 29 s", "in 31 s")
    assert later("soon") == later("") == "in a while" and later("9" * 5000) == "in 999,999,999 s"
    assert later(formatdate(0, usegmt=True)) == later("0") == "in 1 s"


def test_nobody_there(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert main(["chat", "--url", url, "--message", "Hi"]) == 1
    assert f"nobody answers at {url}. Fix: start it" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "options,named",
    [
        (["--url", "localhost:8000"], "is no address"), (["--url", "ftp://a"], "is no address"),
        (["--url", "http://"], "is no address"), (["--url", "http://a:99999"], "is no address"),
        (["--url", "http://[a"], "is no address"), (["--url", "http://a/ b"], "is no address"),
        (["--url", "http://u:p@a"], "--api-key"), (["--url", "http://a/v1?x=1"], "behind its path"),
        (["--url", "http://a", "--api-key", "a\nb"], "no header"),
        (["--url", "http://a", "--timeout", "0"], "--timeout 0"),
        (["--url", "http://a", "--timeout", "nan"], "--timeout nan"),
        (["--url", "http://a", "--speculate", "on"], "--speculate"),
        (["--url", "http://a", "--temperature", "-1"], "--temperature -1"),
        (["--url", "http://a", "--top-p", "0"], "--top-p 0"),
        (["--url", "http://a", "--seed", "-1"], "--seed -1"),
        (["--url", "http://a", "--max-tokens", "0"], "--max-tokens 0"),
        (["--api-key", "k"], "--api-key is for a server"), (["--timeout", "3"], "--timeout is for a server"),
        ([], "nobody to talk with"), (["--url", "http://no.invalid"], "no.invalid"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_named(options, named, capsys):
    assert main(["chat", "--message", "Hi", *options]) == 2
    err = capsys.readouterr().err
    assert named in one_line(err) and "u:p" not in err


def test_tls_is_verified(capsys):
    connection = Server("https://localhost")._connection()
    context = connection._context
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def speak_plainly() -> None:
            with plain.accept()[0] as line:
                line.sendall(b"HTTP/1.1 400 no\r\n\r\n")

        thread = threading.Thread(target=speak_plainly)
        thread.start()
        url = f"https://127.0.0.1:{plain.getsockname()[1]}"
        assert main(["chat", "--url", url, "--model", "m", "--message", "Hi", "--timeout", "5"]) == 1
        thread.join()
    assert "Fix: " in one_line(capsys.readouterr().err)
