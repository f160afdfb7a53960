"""Tiles on processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from traceback import format_exc

from hhdelay.config.errors import HHDelayError
from hhdelay.sweep.tile import Result, Tile, run_tile

ATTEMPTS = 3    # at one tile, when the process that runs it dies

Make = Callable[[int], Tile]
Finished = tuple[int, Result]


def processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_local(numbers: Sequence[int], make: Make, workers: int) -> Generator[Finished, None, None]:
    """Tiles with their results, in the order in which they finish; one worker is this process itself.

    Worker processes are started afresh (spawn), so a script that calls this needs `if __name__ ==
    "__main__"`. They end with this process, however it ends. Where one dies, all are replaced and their
    tiles run again. Closing the iterator stops them at once.

    raises      what a tile raises, after the tiles that had finished; HHDelayError for a tile whose process
                died ATTEMPTS times
    """
    if workers == 1:
        for number in numbers:
            yield number, run_tile(make(number))
        return
    waiting, lost = deque(numbers), Counter[int]()
    while waiting:
        died = yield from _until_broken(waiting, make, workers)
        lost.update(died)
        waiting.extendleft(reversed(died))
        for number in died:
            if lost[number] >= ATTEMPTS:
                what = f"a worker process died {ATTEMPTS} times with tile {number}"
                fix = "lower --workers if memory is short, then hhdelay resume; what is done is kept"
                raise HHDelayError(f"{what}. Fix: {fix}")


def _until_broken(waiting: deque[int], make: Make, workers: int) -> Generator[Finished, None, list[int]]:
    """Work off `waiting` with one pool. Returns the tiles that were lost where a process died, else none."""
    alive, stop = get_context("spawn").Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(alive,))
    running: dict[Future[Result], int] = {}
    died: list[int] = []
    try:
        while (waiting or running) and not died:
            while waiting and len(running) <= workers:      # one more, so that none waits for this process
                try:
                    with _interrupts_held():
                        future = pool.submit(_run, make(waiting[0]))
                except BrokenProcessPool:
                    died.append(waiting.popleft())
                    break
                running[future] = waiting.popleft()
            yield from _collect(running, died)
        while running:
            yield from _collect(running, died)
    except BaseException:
        stop.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        stop.close()
        alive.close()
    return sorted(died)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits; a process that is started here is born with it held, and so dies without a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _collect(running: dict[Future[Result], int], died: list[int]) -> Generator[Finished, None, None]:
    """Wait for some tiles; results first, then the first error."""
    ended = sorted(wait(running, return_when=FIRST_COMPLETED).done, key=lambda future: running[future])
    errors = []
    for future in ended:
        number, error = running.pop(future), future.exception()
        if error is None:
            yield number, future.result()
        elif isinstance(error, BrokenProcessPool):
            died.append(number)
        else:
            errors.append(error)
    if errors:
        raise errors[0]


def _run(tile: Tile) -> Result:
    """A tile in a worker. Some exceptions cannot be sent back, so a fault of the program is sent as text."""
    try:
        return run_tile(tile)
    except HHDelayError:
        raise
    except Exception:
        raise RuntimeError(f"in a worker process:\n{format_exc()}") from None


def _begin(alive: Connection) -> None:
    """First thing in a worker: leave Ctrl-C to the parent, and end when its end of `alive` closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()


def _end_with(alive: Connection) -> None:
    try:
        alive.poll(None)    # nothing is ever sent: it returns at the end of the pipe
    finally:
        os._exit(1)
