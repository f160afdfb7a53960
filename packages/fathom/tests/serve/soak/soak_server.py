"""A server in a process of its own, its engine in another, and what can be seen of both from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PATIENCE = 60.0     # seconds until a wait for anything is given up
ENGINE = {"device": "cpu", "page_size": 16, "pages": 256, "max_running": 8, "max_waiting": 32,
          "prefill_tokens": 32, "debug": True}  # fmt: skip
SETTINGS = {"header_seconds": 0.8, "body_seconds": 0.8, "write_seconds": 1.5, "drain_seconds": 20.0}
WAITS = {"first": 0.1, "longest": 0.4, "grace": 5.0, "silence": 6.0}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


class Told(NamedTuple):
    """An answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def until(true: Callable[[], Any], seconds: float = PATIENCE, what: str = "it") -> Any:
    """Wait until it is, and give what it is."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"{what} never came about within {seconds:g} s"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether it runs; one that ended and that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def files_of(pid: int) -> int:
    """File descriptors that a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_of(pid: int) -> int:
    """Resident bytes of a process that are its own: mapped files, such as libraries, come and go."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])    # type: ignore[index]


class Clock:
    """The clocks of a server and its engine; see clock/sitecustomize.py."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "clock"
        self.file.write_bytes(bytes(16))

    def set(self, wall: float, steady: float) -> None:
        """Seconds by which they are off from now on."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("<dd", wall, steady))


class Server:
    """`launch.py` in a process. All that it says is kept; nothing of it may be a traceback."""

    def __init__(
        self, model: Path, folder: Path, *, wait: bool = True, command: bool = False, piped: bool = False,
        **words: Any,
    ) -> None:
        """`words`: settings, engine, waits, files of launch.py; `piped`: its standard error is a pipe.

        With `command` it is `fathom serve` itself, whose limits are those of everybody.
        """
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.clock = Clock(self.folder)
        self._log = (self.folder / "stderr").open("wb")
        merged = {
            "settings": SETTINGS | words.get("settings", {}), "engine": ENGINE | words.get("engine", {}),
            "waits": WAITS | words.get("waits", {}), "files": words.get("files", 0),
        }  # fmt: skip
        path = os.pathsep.join([str(HERE / "clock"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        own = {"PYTHONPATH": path, "SOAK_CLOCK": str(self.clock.file), "OMP_NUM_THREADS": "1"}
        self.key = next(iter(merged["settings"].get("keys", ())), "")

        argv = [str(HERE / "launch.py"), str(model), json.dumps(merged)]
        if command:
            engine = [f"engine.{name}={json.dumps(value)}".replace('"', "") for name, value in ENGINE.items()]
            argv, wait = ["-m", "fathom", "serve", "--model", str(model), "--port", "0", *engine], False
        self.process = subprocess.Popen(
            [sys.executable, *argv], stdout=subprocess.PIPE, text=True, env=os.environ | own,
            stderr=subprocess.PIPE if piped else self._log,
        )  # fmt: skip
        self.pid, self.port = self.process.pid, 0
        try:
            line = "launched " if not command else "API"
            self.port = int(re.findall(r"\d+", self._line(line))[0 if not command else 4])
            if wait:
                self.wait()
        except BaseException:
            self.kill()
            raise

    def wait(self) -> None:
        """Until it serves."""
        self._line("up")

    def _line(self, begin: str) -> str:
        """The next line that begins so."""
        said = ""
        for line in self.process.stdout:    # type: ignore[union-attr]
            said += line
            if line.startswith(begin):
                return line
        raise AssertionError(f"the server does not start: {said}{self.said}")

    @property
    def said(self) -> str:
        """On standard error."""
        return (self.folder / "stderr").read_text(errors="replace")

    def unread(self) -> None:
        """Nobody reads its standard error, a pipe, from now on."""
        self.process.stderr.close()     # type: ignore[union-attr]

    @property
    def engine(self) -> int:
        """The process of the engine; 0 = there is none."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        found = [one for task in tasks for one in task.read_text().split()]
        return next((int(one) for one in found if alive(int(one))), 0)

    def get(self, path: str, **headers: str) -> Told:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, body: Any, **headers: str) -> Told:
        return self._ask("POST", path, body, {"Content-Type": "application/json"} | headers)

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Told:
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as http:
            key = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            content = None if body is None else json.dumps(body).encode()
            http.request(method, path, content, key | headers)
            answer = http.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Told(answer.status, told, answer.read())

    def figures(self) -> dict[str, float]:
        """Of /metrics, without the prefix."""
        lines = self.get("/metrics").body.decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("fathom:"): float(value) for name, value in pairs}

    def faults(self) -> dict[int, int]:
        """How often it has answered with each status of 500 and above."""
        found: dict[int, int] = {}
        for name, value in self.figures().items():
            match = re.fullmatch(r'http_requests_total\{.*status="(5\d\d)".*\}', name)
            if match:
                found[int(match[1])] = found.get(int(match[1]), 0) + int(value)
        return found

    def idle(self) -> bool:
        """Whether an engine is up and nobody is inside: no answer runs or waits, and all pages are back."""
        now = self.figures()
        names = "num_requests_inside", "num_requests_running", "num_requests_waiting", "kv_cache_pages_used"
        return now["engine_up"] == 1 and not any(now[name] for name in names)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """SIGTERM if it runs; its exit status."""
        engine = self.engine if self.process.poll() is None else 0
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.ended(engine)

    def ended(self, engine: int = 0) -> int:
        """Its exit status, once it has ended by itself, and with it its engine."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server does not end: {self.said}") from None
        if engine:
            until(lambda: not alive(engine), what="the end of the engine")
        self.process.stdout.close()     # type: ignore[union-attr]
        assert "Traceback" not in self.said, self.said
        return status

    def kill(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        for pid in (self.engine if self.process.poll() is None else 0, self.pid):
            if pid and alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()     # type: ignore[union-attr]
        self._log.close()


class Plug:
    """A bare connection."""

    def __init__(self, server: Server, *, buffer: int = 0) -> None:
        """`buffer`: bytes that the kernel takes before the server notices that nobody reads."""
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", server.port))

    def __enter__(self) -> Plug:
        return self

    def __exit__(self, *problem: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Plug:
        self.socket.sendall(data)
        return self

    def some(self, most: int = 65536) -> bytes:
        """What comes next; b"" = it is closed."""
        try:
            return self.socket.recv(most)
        except ConnectionError:
            return b""

    def rest(self) -> bytes:
        """All until it is closed."""
        pieces = []
        while piece := self.some():
            pieces.append(piece)
        return b"".join(pieces)

    def first(self, mark: bytes = b"data: ") -> bytes:
        """What comes until `mark` has, as at the first event of a stream."""
        data = b""
        while mark not in data:
            piece = self.some()
            assert piece, f"closed before {mark!r}: {data!r}"
            data += piece
        return data

    def reset(self) -> None:
        """Close without a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def request(path: str, body: Any, *, head: str = "Connection: close") -> bytes:
    """A POST as it goes over the wire."""
    content = json.dumps(body).encode()
    length = f"Content-Length: {len(content)}"
    kind = "Content-Type: application/json"
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", kind, length, *([head] if head else []), "", ""]
    return "\r\n".join(lines).encode() + content
