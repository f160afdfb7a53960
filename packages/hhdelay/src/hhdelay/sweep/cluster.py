"""Tiles on the workers of a dask cluster, the same ones as on local processes."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from importlib.metadata import version
from typing import Any

from hhdelay.config.errors import ConfigError, HHDelayError, need, plain, quoted
from hhdelay.sweep.local import Finished, Make
from hhdelay.sweep.tile import run_tile

CONNECT_S = 10
WORKERS_S = 30


def run_cluster(numbers: Sequence[int], make: Make, address: str) -> Generator[Finished, None, None]:
    """Tiles with their results, in the order in which they finish.

    address     of the scheduler, as tcp://10.0.0.1:8786
    raises      ConfigError where distributed is not installed, the scheduler or its workers cannot be
                reached, or run another hhdelay; HHDelayError where the cluster is lost or a tile kills worker
                after worker; what a tile raises

    A worker that is lost gives its tiles back to the scheduler, which hands them to another.
    """
    try:
        from distributed import CancelledError, KilledWorker, as_completed
    except ImportError:
        fix = "pip install 'hhdelay[cluster]'"
        raise ConfigError(f"--scheduler needs the package distributed. Fix: {fix}") from None
    client = _connect(address)
    talk = logging.getLogger("distributed.client")
    silent, talk.disabled = talk.disabled, True     # a lost scheduler is told below, without a traceback
    try:
        _check_workers(client, address)
        number_of = {}
        futures = []
        for number in numbers:
            futures.append(client.submit(run_tile, make(number), pure=False))
            number_of[futures[-1].key] = number
        arriving: Any = as_completed(futures, loop=client.loop)  # type: ignore[no-untyped-call]
        futures.clear()     # a result leaves the cluster when it has been written
        try:
            for future in arriving:
                yield number_of[future.key], future.result()
        except KilledWorker:
            what = f"tile {number_of[future.key]} ended worker after worker"
            fix = "give the workers more memory, then hhdelay resume the store; what is done is kept"
            raise HHDelayError(f"{what}. Fix: {fix}") from None
        except (CancelledError, OSError) as error:
            fix = "start it again, then hhdelay resume the store; what is done is kept"
            what = f"the scheduler {plain(address)} is lost ({error.__class__.__name__})"
            raise HHDelayError(f"{what}. Fix: {fix}") from None
    finally:
        client.close(timeout=CONNECT_S)
        talk.disabled = silent


def _connect(address: str) -> Any:
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:
        fix = "start one with dask scheduler, and give the address that it prints, as tcp://10.0.0.1:8786"
        what = f"no dask scheduler answers at {quoted(address)[1:-1]} ({error.__class__.__name__})"
        raise ConfigError(f"{what}. Fix: {fix}") from None


def _check_workers(client: Any, address: str) -> None:
    """There is a worker, and each has this version: another could give other numbers."""
    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except TimeoutError:
        raise ConfigError(f"the scheduler {plain(address)} has no worker. "
                          f"Fix: start some with dask worker {plain(address)}") from None  # fmt: skip
    mine = version("hhdelay")
    for worker, its in client.run(version, "hhdelay", on_error="return").items():
        found = "no hhdelay" if isinstance(its, BaseException) else f"hhdelay {its}"
        need(its == mine, f"worker {plain(str(worker))} has {found}, and this is {mine}",
             fix=f"pip install hhdelay=={mine} there, and start the worker again")  # fmt: skip
