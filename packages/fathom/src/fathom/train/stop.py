"""Stopping in good order: a signal lets the step end and the run be saved; one process trains in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from fathom.config.errors import ConfigError, FathomError
from fathom.config.folder import disk_errors

INTERRUPTED = 130  # 128 + SIGINT
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: what schedulers take as "put me back in the queue"
DIVERGED = 3
EXIT_CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TRY_AGAIN}


class Stopped(FathomError):
    """The run ended early and is saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Diverged(FathomError):
    """Too many steps went wrong, and nothing is left to try; exit status 3."""

    exit_code = DIVERGED


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process, however it ends; ConfigError if another one trains in it."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = f"another process trains in {folder}"
            raise ConfigError(f"{what}. Fix: wait for it, or give another --out") from None
        yield


class StopSignals:
    """Inside `with`, SIGINT or SIGTERM sets `exit_code`; a second signal acts as if there were no handler."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.exit_code = EXIT_CODES[signal.Signals(number)]
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        self._before = {}
