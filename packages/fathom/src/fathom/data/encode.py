"""Tokenise many texts, in this process or in several, in the order in which they come."""

from __future__ import annotations

import os
import random
import signal
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fathom.config.errors import FathomError
from fathom.data.fim import encode_document
from fathom.data.survey import Part
from fathom.data.tokenizer import Tokenizer

WORTH_A_WORKER = 2 << 20  # bytes; a process needs about as long to start as to tokenise this much
WAITING = 3  # tasks per worker that are under way: enough to keep it busy, few enough to hold in memory


@dataclass(frozen=True, slots=True)
class Task:
    """Texts of one source, a seed for each, and the share of training texts to show as fill-in-the-middle."""

    source: int
    parts: list[Part]
    seeds: list[int]
    fim_rate: float


class Encoded(NamedTuple):
    """The documents of a task, one after the other; the tokens of each, and the bytes of its text."""

    token_N: np.ndarray
    lengths: list[int]
    bytes: list[int]


def encode_all(
    tasks: Iterable[Task], tokenizer: Tokenizer, saved: Path, workers: int, size: int
) -> Generator[tuple[Task, Encoded], None, None]:
    """Each task with its result, in order: the same for any number of workers.

    saved     where the tokenizer's files lie, for the workers to read
    workers   processes; 0 = one per core, as far as `size` bytes of text are worth it; 1 = this process alone
    """
    workers = workers or max(1, min(_cores(), size // WORTH_A_WORKER))
    if workers == 1:
        yield from ((task, encode_task(tokenizer, task)) for task in tasks)
        return
    context = get_context("spawn")  # a fork would copy the threads' locks of the tokenizer
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(str(saved),))
    waiting: deque[tuple[Task, Future[Encoded]]] = deque()
    try:
        for task in tasks:
            waiting.append((task, pool.submit(_work, task)))
            if len(waiting) >= WAITING * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    except BrokenProcessPool:
        raise FathomError(
            "a process that tokenises has died, perhaps for want of memory. Fix: set data.workers=1"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def encode_task(tokenizer: Tokenizer, task: Task) -> Encoded:
    """The ids of one task; text that is held out is never rearranged."""
    documents = [
        encode_document(
            tokenizer,
            part.text,
            rate=task.fim_rate if part.split == "train" else 0.0,
            rng=random.Random(seed) if task.fim_rate else None,
        )
        for part, seed in zip(task.parts, task.seeds, strict=True)
    ]
    token_N = np.array([token for document in documents for token in document], dtype=np.uint32)
    return Encoded(token_N, [len(d) for d in documents], [len(part.text.encode()) for part in task.parts])


_of_this_worker: list[Tokenizer] = []  # a worker process loads it once


def _start_worker(saved: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops its workers
    _of_this_worker.append(Tokenizer.load(saved))


def _work(task: Task) -> Encoded:
    return encode_task(_of_this_worker[0], task)


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
