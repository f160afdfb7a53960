"""The same map of R by hhdelay and by Brian2, in turn, on two cores, with every other figure of speed.

    python benchmarks/hhdelay_map.py [--quick] [--turns 3]

Brian2 needs an older NumPy, so it gets an environment of its own in .venv-brian2, made here if it is missing.
The rest is `hhdelay bench --json`, whose options these are; `hhdelay.bench` says what is measured, and how.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hhdelay.bench import make
from hhdelay.bench.environment import FOLDER
from hhdelay.cli.main import main
from hhdelay.config.errors import HHDelayError

ROOT = Path(__file__).resolve().parents[1]


def bench() -> int:
    """The exit status of `hhdelay bench`."""
    try:
        python = make(ROOT / FOLDER)
    except HHDelayError as error:
        print(f"hhdelay: {error}", file=sys.stderr)
        return error.exit_code
    return main(["bench", "--json", "--brian2", str(python), *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(bench())
