"""Training runs side by side: each in a process and a folder of its own, gone on with where it was.

Two processes of one thread train two runs faster than one process of two threads trains one after the other.

Ctrl-C reaches this process, and perhaps (from a terminal) the others too. They ignore it but while they
train, where it means "end the step and save"; so it can be sent again until they are gone, and none is
missed. A process whose parent has died sends it to itself.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from pathlib import Path

from fathom.config.errors import FathomError
from fathom.config.load import Loaded
from fathom.train.stop import DIVERGED, INTERRUPTED, TRY_AGAIN, Stopped

POLL_S = 0.5  # between looks at what the runs have reached
GOES_ON = "the same command goes on"
SAVED = f"stopped, and every run is saved; {GOES_ON}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run to make; `loaded` names a corpus that is there."""

    name: str
    loaded: Loaded
    folder: Path


class RunFailed(FathomError):
    """One of the runs ended with an error; its message, and its exit status."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Worker:
    """A process that trains one run."""

    def __init__(self, job: Job, threads: int) -> None:
        context = get_context("spawn")  # a fork would copy the locks of torch's threads
        self.job = job
        self._answer, end = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(
            target=_work, args=(job, threads, end), name=job.name, daemon=True
        )
        self.process.start()
        end.close()  # so that only the process holds it

    def failure(self) -> FathomError | None:
        """What went wrong, once the process has ended; a run that diverged is a result and no failure."""
        code = self.process.exitcode
        assert code is not None, f"{self.job.name} is still going"
        said: tuple[str, int] | None = None
        with suppress(EOFError):  # it ended without a word
            said = self._answer.recv() if self._answer.poll() else None
        if said is not None and said[1] in (INTERRUPTED, TRY_AGAIN):
            return Stopped(SAVED, said[1])  # the signal was for all, and it was there first
        if said is not None:
            return None if said[1] == DIVERGED else RunFailed(f"{self.job.name}: {said[0]}", said[1])
        if code == 0:
            return None
        why = "was killed, perhaps for want of memory" if code < 0 else "failed, as printed above"
        return RunFailed(f"{self.job.name}: its process {why}. Fix: mend that; {GOES_ON}", 1)

    def interrupt(self) -> None:
        """Ask it to save and end."""
        if self.process.pid is not None and self.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGINT)


def train_side_by_side(
    jobs: Sequence[Job], *, workers: int, threads: int, told: Callable[[], None] = lambda: None
) -> None:
    """Train every job to its end, `workers` at a time in the order given, each on `threads` threads.

    told     called every now and then, to show how far the runs are
    errors   Stopped after Ctrl-C (130) or SIGTERM (75), with every run saved; RunFailed with the words of the
             first run that fails, once the others have been saved
    """
    waiting, running = deque(jobs), list[Worker]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                with held_back(signal.SIGINT):
                    running.append(Worker(waiting.popleft(), threads))
            connection.wait([worker.process.sentinel for worker in running], timeout=POLL_S)
            for worker in [w for w in running if not w.process.is_alive()]:
                running.remove(worker)
                failure = worker.failure()
                if failure is not None:
                    raise failure
            told()
    except BaseException as reason:
        _stop(running)
        if not isinstance(reason, KeyboardInterrupt | SystemExit):  # SIGTERM becomes one in fathom.cli.main
            raise
        code = INTERRUPTED if isinstance(reason, KeyboardInterrupt) else TRY_AGAIN
        raise Stopped(SAVED, code) from None


@contextmanager
def held_back(number: signal.Signals) -> Iterator[None]:
    """A signal comes when the block has ended; a process that is started in it holds the signal back, too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(running: Sequence[Worker]) -> None:
    """Have every run saved; a second Ctrl-C does not wait for that."""
    try:
        while any(worker.process.is_alive() for worker in running):
            for worker in running:
                worker.interrupt()
            for worker in running:
                worker.process.join(POLL_S)
    except BaseException:
        for worker in running:
            worker.process.kill()
        raise


def _work(job: Job, threads: int, answer: connection.Connection) -> None:
    """The whole life of a process: train, and say what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # but while the trainer listens
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from fathom.ops.allocator import keep_memory

    keep_memory()
    import torch

    from fathom.train.start import start

    torch.set_num_threads(threads)
    recipe, origin = job.loaded.recipe, job.loaded.origin
    try:
        start(recipe, job.folder, resume=True, quiet=True, title=job.name, origin=origin).train()
    except FathomError as error:
        with suppress(OSError):  # nobody listens any more
            answer.send((str(error), error.exit_code))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is None:
        return
    parent.join()
    while True:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(POLL_S)
