"""Async streams over an engine: one thread runs it, and any number of event loops listen.

Every call of the core is made by that thread. What consumers want, a request taken up or given up, waits in
an inbox that the thread empties before each step. What they get waits in a mailbox each, merged if they are
slow, so nothing waits for a reader.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self, TypeVar

from fathom.config.errors import FathomError
from fathom.engine.errand import Errand
from fathom.engine.mailbox import Mailbox
from fathom.engine.request import Delta, Request

T = TypeVar("T")
LONGEST_REASON = 200  # characters of a strange error's text that the one line repeats


class EngineError(FathomError):
    """The engine broke down or was closed, and takes no more requests; exit status 1."""


class Core(Protocol):
    """What those who run an engine need of it; nothing in it has to be thread-safe."""

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""

    def submit(self, request: Request) -> int:
        """Take up a request; its id."""

    def cancel(self, request_id: int) -> None:
        """Give it up; nothing happens if it is over."""

    def step(self) -> list[Delta]:
        """Compute once; the news."""


class Streams:
    """Runs `core` in a thread of its own from the first use until `close`."""

    def __init__(self, core: Core, *, name: str = "engine") -> None:
        self._core, self._name = core, name
        self._changed = threading.Condition()  # guards the inbox, the thread's start and why it is over
        self._inbox: deque[Mailbox | Errand] = deque()
        self._thread: threading.Thread | None = None
        self._over = ""  # why no request is taken any more
        self._cause: BaseException | None = None  # of that
        self._running: dict[int, Mailbox] = {}  # by request id; the thread's own

    @property
    def over(self) -> bool:
        """Whether it was closed or broke down."""
        return bool(self._over)

    def start(self) -> None:
        """Start the thread now rather than at first use. EngineError if the engine is over."""
        with self._changed:
            self._start()

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The deltas of one request until each of its n answers has finished.

        It is submitted at the first iteration, which raises what `core.submit` raises. When the consumer
        leaves early, by `aclose` or a cancelled task, it is cancelled before the next step begins. When the
        engine is closed, the last delta of each answer says "cancelled". EngineError: the engine broke down,
        or had been closed before the request was taken up.
        """
        box = Mailbox(request, asyncio.get_running_loop())
        with self._changed:
            self._start()
            self._post(box)
        try:
            while deltas := await box.next():
                for delta in deltas:
                    yield delta
        finally:
            if box.leave():
                with self._changed:
                    self._post(box)

    async def between(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises; the thread calls it before its next step. EngineError as above.

        It should be short: every stream waits for it. Who is cancelled takes it back if it has not begun.
        """
        errand = Errand(call, asyncio.get_running_loop())
        with self._changed:
            self._start()
            self._post(errand)
        try:
            return await errand.done
        finally:
            errand.gone = True

    def close(self) -> None:
        """Cancel everything and wait for the thread, which finishes its step; again = nothing."""
        with self._changed:
            self._over = self._over or "the engine is closed. Fix: make a new one"
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        if self._over:
            raise self._error()
        if self._thread is None:
            # A daemon, so that a program that forgets `close` still ends; `atexit` lets its step end first.
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread
            atexit.register(self.close)

    def _post(self, box: Mailbox | Errand) -> None:
        self._inbox.append(box)
        self._changed.notify_all()

    def _run(self) -> None:
        try:
            while self._wait():
                for _ in range(len(self._inbox)):
                    box = self._inbox.popleft()
                    if isinstance(box, Errand):
                        box.run()
                    else:
                        self._attend(box)
                if self._core.busy:
                    self._deliver(self._core.step())
            for request_id in self._running:
                self._core.cancel(request_id)
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def _wait(self) -> bool:
        """Until there is something to do; False when it is to stop."""
        busy = self._core.busy
        with self._changed:
            while not self._over and not busy and not self._inbox:
                self._changed.wait()
            return not self._over

    def _attend(self, box: Mailbox) -> None:
        """A mailbox comes by twice at most: when it opens, and when its reader leaves early."""
        if box.gone:
            if box.request_id is not None and self._running.pop(box.request_id, None) is not None:
                self._core.cancel(box.request_id)
            return
        try:
            box.request_id = self._core.submit(box.request)
        except FathomError as error:
            box.fail(error)
        except BaseException as error:  # one strange request is no reason to stop serving the others
            what = f"the engine failed to take up the request ({_reason(error)})"
            fault = EngineError(f"{what}. Fix: report it as a fault of the engine")
            fault.__cause__ = error
            box.fail(fault)
            if not isinstance(error, Exception):
                raise
        else:
            self._running[box.request_id] = box

    def _deliver(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            box = self._running.get(delta.request_id)
            if box is None:
                continue  # given up before this step
            box.put(delta)
            if box.finished or box.gone:
                del self._running[delta.request_id]
            if box.gone and not box.finished:
                self._core.cancel(delta.request_id)

    def _end(self, cause: BaseException | None) -> None:
        """Tell everybody who listens; nobody is left waiting."""
        with self._changed:
            if cause is not None:
                self._over = f"the engine broke down ({_reason(cause)}). Fix: start it again"
                self._cause = cause
            waiting, self._inbox = self._inbox, deque()
        for box in waiting:
            if isinstance(box, Errand) or box.request_id is None:
                box.fail(self._error())
        for box in self._running.values():
            if cause is None:
                box.cancelled()
            else:
                box.fail(self._error())
        running, self._running = self._running, {}
        if cause is not None:
            for request_id in running:  # or who steps the core later computes for nobody
                with suppress(BaseException):  # it broke down before, and why has been told
                    self._core.cancel(request_id)

    def _error(self) -> EngineError:
        """A new one for every reader: raised twice, one exception would gather both tracebacks."""
        error = EngineError(self._over)
        error.__cause__ = self._cause
        return error


def _reason(error: BaseException) -> str:
    """`error` on one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 3]}..."
