"""kill -9 at any moment: only tiles that were running are lost, and resume ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hhdelay.cli.main import main
from hhdelay.store.schema import VARIABLES
from hhdelay.store.tiles import open_store

WORKERS, TILES = 2, 12
COMMAND = [
    "sweep", "ei", "simulation.dt_ms=0.05", "simulation.duration_ms=9000", "simulation.warmup_ms=20",
    "simulation.replicas=2", "--over", "motif.delay_ms=1:12:12", "--tile", "1", "--engine", "numba",
]  # fmt: skip

Files = Callable[[Path], dict[str, bytes]]


def marks(store: Path) -> int:
    """Tiles done, as the files say while another process writes."""
    return sum(1 for path in (store / "done").rglob("*") if path.name.isdigit())


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def ended(pid: int, seconds: float = 20.0) -> bool:
    """Whether the process is gone, or will be soon."""
    for _ in range(int(seconds / 0.05)):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":    # dead, and nobody has asked for its status yet
            return True
        time.sleep(0.05)
    return False


def start_until(words: list[str], store: Path, enough: int) -> subprocess.Popen[bytes]:
    """A real command, at the moment at which `enough` tiles are done."""
    process = subprocess.Popen([sys.executable, "-m", "hhdelay", *words], stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    while process.poll() is None and marks(store) < enough:
        time.sleep(0.002)
    return process


def test_killed_again_and_again_it_ends_with_the_same_bytes(files: Files, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert main([*COMMAND, "--out", str(whole), "--workers", "1"]) == 0
    assert marks(whole) == TILES
    chance, words = random.Random(7), [*COMMAND, "--out", str(part)]
    for enough in (1, 6):
        process = start_until([*words, "--workers", str(WORKERS)], part, enough)
        time.sleep(chance.uniform(0.0, 0.1))
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was killed while it ran"
        assert all(ended(pid) for pid in workers), "workers outlive their parent"
        missing = open_store(part).missing()
        assert enough <= TILES - len(missing) == marks(part)
        begun = {path.name for name in VARIABLES for path in (part / name / "c").iterdir()
                 if path.name.isdigit() and int(path.name) in missing}  # fmt: skip
        assert len(begun) <= 1, "one tile at most is cut short while it is written"
        words = ["resume", str(part)]
    assert main([*words, "--workers", "1"]) == 0
    assert files(part) == files(whole)


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    store = tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-m", "hhdelay", *COMMAND, "--out", str(store), "--workers", "2"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and marks(store) < 2:
        time.sleep(0.005)
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)   # as a terminal does: the workers get it too
    error = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in error
    assert f"go on with: hhdelay resume {store}" in error and "tiles are kept" in error
    assert all(ended(pid) for pid in workers)
    assert 2 <= marks(store) < TILES
