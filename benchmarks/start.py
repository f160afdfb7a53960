"""CPU time of commands that need no torch; the budget of `fathom --help` is 0.3 s.

Prints one JSON line a command: least, median and most CPU seconds (user and system) of RUNS fresh processes.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys

RUNS = 9
COMMANDS = ("--help", "--version", "train --help", "params v3 --json")


def cpu_seconds(line: str) -> float:
    """Of one process that runs `fathom` with the words of `line`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "fathom", *line.split()], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Measure every command."""
    for line in COMMANDS:
        seconds = sorted(cpu_seconds(line) for _ in range(RUNS))
        figures = {"min": seconds[0], "median": statistics.median(seconds), "max": seconds[-1]}
        rounded = {name: round(value, 3) for name, value in figures.items()}
        print(json.dumps({"command": f"fathom {line}", "cpu_seconds": rounded, "runs": RUNS}))


if __name__ == "__main__":
    main()
