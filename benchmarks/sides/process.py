"""One contender of a benchmark in a process of its own: it reads a wish a line and answers each with JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


class Side:
    """`python -m MODULE ARGUMENTS...` in the folder of the benchmarks."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, wish: str) -> dict[str, Any]:
        """Send one line, wait for the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(wish, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, f"the process of {self._process.args} ended with {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
