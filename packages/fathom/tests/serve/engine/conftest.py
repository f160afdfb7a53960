"""A model of a few steps, links to processes that serve it, and ways to be unkind to them."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fathom.cli.main import main
from fathom.serve.link import EngineLink
from fathom.serve.supervise import Waits
from fathom.serve.wire import Ask, News, pack, unpack

PATIENCE = 60  # seconds until a test gives up
SETTINGS = {"page_size": 16, "pages": 256, "device": "cpu", "max_running": 8, "max_waiting": 8}
SMALL = [
    "data.documents=120", "data.held_out=0.1", "data.workers=1", "train.steps=3", "train.seq_len=48",
    "model.hidden_size=32", "model.num_layers=2", "model.moe.num_experts=4", "model.max_positions=2048",
]  # fmt: skip
SOON = Waits(first=0.1, longest=0.4, grace=5.0)


@asynccontextmanager
async def linked(model: Path, **settings: Any) -> AsyncIterator[EngineLink]:
    """A link whose engine is ready."""
    link = EngineLink(model, SETTINGS | settings, waits=SOON)
    await link.start()
    try:
        await link.ready()
        yield link
    finally:
        await link.close()


def ask(text: str = "Mia had", **sampling: Any) -> Ask:
    return Ask(text=text, sampling={"max_tokens": 12, "ignore_eos": True, "seed": 5} | sampling)


async def read(link: Any, asked: Ask) -> list[News]:
    async with aclosing(link.generate(asked)) as news:
        return [one async for one in news]


def tokens(news: list[News], index: int = 0) -> tuple[int, ...]:
    return tuple(token for one in news if one.index == index for token in one.tokens)


def text(news: list[News], index: int = 0) -> str:
    return "".join(one.text for one in news if one.index == index)


def run(coroutine: Any) -> Any:
    async def patiently() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await coroutine

    return asyncio.run(patiently())


async def until(true: Callable[[], Any]) -> None:
    """Wait until it is."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.01)


class Bare:
    """An engine process without a link: frames by hand."""

    def __init__(self, model: Path | str, **settings: Any) -> None:
        self.own, theirs = socket.socketpair()
        words = [str(theirs.fileno()), str(model), json.dumps(SETTINGS | settings)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fathom.serve.engine_process", *words],
            pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()
        self.own.settimeout(PATIENCE)

    def say(self, **message: Any) -> None:
        self.own.sendall(pack(message))

    def hear(self) -> dict[str, Any] | None:
        head = self.own.recv(4, socket.MSG_WAITALL)
        return unpack(self._exactly(int.from_bytes(head, "big"))) if head else None

    def _exactly(self, size: int) -> bytes:
        """MSG_WAITALL does not wait for all on a socket with a timeout."""
        body = b""
        while len(body) < size:
            piece = self.own.recv(size - len(body))
            assert piece, "the connection ended within a frame"
            body += piece
        return body

    def end(self) -> tuple[int, str]:
        """Its status and what it said to people."""
        _, said = self.process.communicate(timeout=PATIENCE)
        self.own.close()
        return self.process.returncode, said


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "run"
    assert main(["train", "tiny", *SMALL, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="session")
def play() -> SimpleNamespace:
    """All of the above; tests cannot import one another."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})


class Shared:
    """One link for many tests, in a loop of its own: a process takes seconds to start."""

    def __init__(self, model: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self.link = EngineLink(model, SETTINGS, waits=SOON)
        self.run(self.link.start())
        self.run(self.link.ready())

    def run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE))

    def close(self) -> None:
        self.run(self.link.close())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.close()


@pytest.fixture(scope="session")
def shared(model: Path) -> Iterator[Shared]:
    one = Shared(model)
    yield one
    one.close()


@pytest.fixture
def bare(model: Path) -> Any:
    """Makes bare processes, and leaves none behind."""
    made: list[Bare] = []

    def make(folder: Path | str = model, **settings: Any) -> Bare:
        made.append(Bare(folder, **settings))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
        one.own.close()
