"""Ranks as real processes, for tests: `python spawn.py FILE FUNCTION RANK SIZE FOLDER PATIENCE`.

Runs one function of a test file on one rank of a gloo world that meets in FOLDER, and writes what it returned
there as JSON. `run` starts all ranks and collects; conftest.py hands it to tests as the fixture `spawn`.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

LIMIT_S = 300.0  # a world that takes longer hangs; a busy machine has needed more than 60
THREADS = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


class Outcome(NamedTuple):
    """How one rank ended."""

    value: Any  # what the function returned; None where it did not
    status: int  # exit status; -9 where it was killed, for it hung
    errors: str  # what it wrote to stderr


def run(function: Callable[[Any], Any], size: int, folder: Path, patience_s: float = 30.0) -> list[Outcome]:
    """`function(world)` on every rank, in a new process each."""
    folder.mkdir()
    command = [sys.executable, __file__, inspect.getfile(function), function.__name__]
    running = []
    for rank in range(size):
        with (folder / f"errors-{rank}").open("wb") as errors:
            arguments = [*command, str(rank), str(size), str(folder), str(patience_s)]
            running.append(subprocess.Popen(arguments, stderr=errors, env=os.environ | THREADS))
    until = time.monotonic() + LIMIT_S
    for process in running:
        try:
            process.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return [_outcome(folder, rank, process.returncode) for rank, process in enumerate(running)]


def _outcome(folder: Path, rank: int, status: int) -> Outcome:
    written = folder / f"value-{rank}"
    value = json.loads(written.read_text("utf-8")) if written.exists() else None
    return Outcome(value, status, (folder / f"errors-{rank}").read_text("utf-8", "replace"))


def values(outcomes: list[Outcome]) -> list[Any]:
    """What every rank returned; AssertionError with the words of those that failed."""
    failed = [f"rank {rank}, {o.status}: {o.errors}" for rank, o in enumerate(outcomes) if o.status]
    assert not failed, "\n".join(failed)
    return [outcome.value for outcome in outcomes]


def main(file: str, name: str, place: list[str], patience_s: float) -> None:
    import torch

    from fathom.parallel.processes import join, leave

    torch.set_num_threads(1)
    spec = spec_from_file_location("spawned", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["spawned"] = module
    spec.loader.exec_module(module)
    rank, size, folder = int(place[0]), int(place[1]), Path(place[2])
    meeting = f"file://{folder / 'store'}"
    world = join(rank, size, torch.device("cpu"), meeting=meeting, patience_s=patience_s)
    value = getattr(module, name)(world)
    (folder / f"value-{rank}").write_text(json.dumps(value), "utf-8")
    leave(world)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3:6], float(sys.argv[6]))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # at once: a failed rank does not wait for the threads of its groups
