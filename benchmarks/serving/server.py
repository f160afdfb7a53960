"""`fathom serve` as a process, and what its processes have computed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self


class Server:
    """On a free port, until it is closed."""

    def __init__(self, model: Path, queue: int, settings: dict[str, Any]) -> None:
        words = [f"engine.{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", "fathom", "serve", "--model", str(model), "--port", "0"]
        self._process = subprocess.Popen(
            [*command, "--queue", str(queue), *words], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        said = ""
        while (found := re.search(r"API +http://127.0.0.1:(\d+)/v1", said)) is None:
            line = self._process.stdout.readline()
            assert line, f"the server ended with {self._process.wait()}"
            said += line
        self.port = int(found[1])

    def seconds(self) -> dict[str, float]:
        """Processor time so far, of the HTTP process and of the engine's."""
        own = self._process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return {"http": _seconds(own), "engine": sum(_seconds(int(pid)) for pid in children)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
