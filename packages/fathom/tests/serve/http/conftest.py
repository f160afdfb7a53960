"""A server on a free port, over an engine that is played: a letter is a token."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from fathom.serve.limits import Settings
from fathom.serve.run import Running, listen
from fathom.serve.wire import Ask, Info, News, Refused, ToolCall

INFO = Info(
    model="played", line="played, on nothing", context=512, vocabulary=1000, token_bytes=4, pages=8,
    page_positions=64, cache_bytes_per_token=10, plain_cache_bytes_per_token=280, drafts=True, layers=3,
    experts=(0, 4, 4), experts_per_token=2,
)  # fmt: skip
BOS, TAIL, PART = 0, 998, 999   # begin of text; the second byte of é, and the first
RAW = {BOS: "<bos>", TAIL: "\udca9", PART: "\udcc3"}
ANSWER = "hello world"


class PlayedLink:
    """`wire.Link`. Writes ANSWER, a letter at a time; with `forever` it goes on until it is closed."""

    def __init__(self) -> None:
        self.info: Info | None = INFO
        self.asks: list[Ask] = []
        self.opened = self.closed = self.encoded = 0
        self.pause, self.forever = 0.0, False
        self.refuse: Refused | None = None
        self.script: list[News | Refused] = []
        self.silent = False     # no word ever
        self.trouble = self.gave_up = ""
        self.ended = threading.Event()

    async def generate(self, ask: Ask) -> AsyncGenerator[News, None]:
        self.asks.append(ask)
        if self.refuse is not None:
            raise self.refuse
        self.opened += 1
        try:
            if self.silent:
                await asyncio.Event().wait()
            for one in self.script or self._told(ask):
                if isinstance(one, Refused):
                    raise one
                yield one
                await asyncio.sleep(self.pause)
            while self.forever:
                yield News(text="a", tokens=(97,), prompt_tokens=3)
                await asyncio.sleep(0.005)
        finally:
            self.closed += 1
            self.ended.set()

    def _told(self, ask: Ask) -> Iterator[News]:
        n, most = ask.sampling.get("n", 1), ask.sampling.get("max_tokens", 64)
        prompt = len(ask.tokens) if ask.tokens is not None else 3
        text = ANSWER[:most]
        for place, letter in enumerate(text):
            last = place == len(text) - 1 and not self.forever
            finish = None if not last else "length" if len(text) == most else "stop"
            for index in range(n):
                yield News(
                    index=index, text=letter, tokens=(ord(letter),), finish_reason=finish,
                    prompt_tokens=prompt,
                    cached_tokens=1, logprobs=self._logprobs(ask, ord(letter)),
                )  # fmt: skip

    def _logprobs(self, ask: Ask, token: int) -> Any:
        top = ask.sampling.get("logprobs")
        return () if top is None else ((token, -0.5, tuple((token + k, -0.5 - k) for k in range(top))),)

    async def encode(self, *, text: str | None = None, messages: Any = None) -> list[int]:
        self.encoded += 1
        if text is not None:
            return [min(ord(c), PART) for c in text]
        return [BOS, *(min(ord(c), PART) for m in messages for c in m["content"])]

    async def decode(self, tokens: list[int]) -> list[str]:
        return [RAW.get(t, chr(t)) for t in tokens]

    async def experts(self, tokens: list[int]) -> list[list[list[int]]]:
        return [[[1, 2], [3, 0]] for _ in tokens]

    async def score(self, tokens: list[int], top: int) -> Any:
        first = (tokens[0], None, ())
        rest = [(t, -float(t) / 100,
            tuple((t + k, -float(t) / 100 - k) for k in range(top))) for t in tokens[1:]]
        return [first, *rest]

    async def stats(self) -> Mapping[str, float]:
        return {
            "pages_total": 8, "pages_used": 2, "pages_cached": 1, "running": 1, "waiting": 0,
            "prompt_tokens": 30,
            "prefix_hit_tokens": 20, "drafted": 10, "accepted": 8, "tokens": 50, "trunk_passes": 40,
            "steps": 40,
        }  # fmt: skip

    async def start(self) -> None:
        pass

    async def ready(self) -> Info:
        if self.info is None:
            raise Refused("engine", "no model. Fix: give one")
        return self.info

    async def lost(self) -> str:
        while not self.gave_up:
            await asyncio.sleep(0.01)
        return self.gave_up

    async def drain(self, timeout: float) -> bool:
        return True

    async def close(self) -> None:
        pass


class Served:
    """A server in a thread."""

    def __init__(self, link: PlayedLink, settings: Settings) -> None:
        self.link, self.settings = link, settings
        self._up, self._status = threading.Event(), list[int]()
        place = listen("127.0.0.1", 0, settings)
        self.port = place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._running = Running(link, settings, place)
        self.service = self._running.app.state.service
        self.app = self._running.app
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._up.wait(10), "the server does not start"

    def _run(self) -> None:
        async def run() -> int:
            self.loop = asyncio.get_running_loop()
            return await self._running.run(lambda info: self._up.set())

        self._status.append(asyncio.run(run()))

    @property
    def connections(self) -> int:
        """That are open."""
        return len(self._running._server.server_state.connections)

    def signal(self, number: Any) -> None:
        """As if it had come to the process."""
        self.loop.call_soon_threadsafe(self._running.tell, number)

    def end(self) -> int:
        """SIGTERM, if nobody sent one; the exit status."""
        import signal

        if self._thread.is_alive():
            self.signal(signal.SIGTERM)
        self._thread.join(15)
        assert not self._thread.is_alive(), "the server does not end"
        return self._status[0]


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Starts a server with these settings."""
    started: list[Served] = []

    def start(link: PlayedLink | None = None, **settings: Any) -> Served:
        started.append(Served(link or PlayedLink(), Settings(**settings)))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """One for all tests of a file."""
    one = Served(PlayedLink(), Settings())
    yield one
    one.end()


@pytest.fixture
def link(served: Served) -> Iterator[PlayedLink]:
    """The engine of `served`, as it was."""
    served.link.__init__()      # type: ignore[misc]
    yield served.link
    served.link.__init__()      # type: ignore[misc]


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=10) as client:
        yield client


@pytest.fixture
def played() -> type[PlayedLink]:
    return PlayedLink


@pytest.fixture
def tool_call() -> type[ToolCall]:
    return ToolCall
