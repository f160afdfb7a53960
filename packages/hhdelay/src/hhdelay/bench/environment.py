"""Brian2's own environment: it needs an older NumPy than ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hhdelay.config.errors import HHDelayError, need, plain

FOLDER = ".venv-brian2"     # in the folder where the bench is started
VERSIONS = ("brian2==2.9.0", "numpy==2.2.6")    # Brian2 2.9.0 cannot be imported beside NumPy 2.4
QUESTION = "import brian2; print(brian2.__version__)"
LONGEST_ANSWER_S = 120      # the first import compiles its modules

Command = tuple[str, ...]


def interpreter(folder: Path) -> Path:
    """The environment's Python, there or not."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def commands(folder: Path) -> tuple[Command, ...]:
    """What makes the environment in `folder`."""
    return (
        (sys.executable, "-m", "venv", str(folder)),
        (str(interpreter(folder)), "-m", "pip", "install", "-q", "--disable-pip-version-check", *VERSIONS),
    )


def make(folder: Path) -> Path:
    """The environment's Python; made first where Brian2 does not answer from there."""
    if version(interpreter(folder)) is None:
        for command in commands(folder):
            done = subprocess.run(command, stdout=sys.stderr)
            what = f"Brian2's environment could not be made: `{' '.join(command)}` failed"
            fix = f"mend what it says above and run again, or remove {folder}"
            need(done.returncode == 0, what, fix=fix, error=HHDelayError)
    return interpreter(folder)


def find(given: str | None, near: Path) -> Path | None:
    """The Python that has Brian2: the one `given`, which must, else that of FOLDER in `near`, if any."""
    if given is None:
        python = interpreter(near / FOLDER)
        return python if version(python) else None
    need(version(Path(given)) is not None, f"--brian2 {plain(given)} is no Python that can import brian2",
         fix=f"give {FOLDER}/bin/python, which `make bench` makes, or leave it out")  # fmt: skip
    return Path(given)


def version(python: Path) -> str | None:
    """Of its Brian2; None where there is no such Python, or no Brian2 in it."""
    question: Sequence[str] = (str(python), "-I", "-c", QUESTION)
    try:
        done = subprocess.run(question, capture_output=True, text=True, timeout=LONGEST_ANSWER_S)
    except (OSError, ValueError, subprocess.TimeoutExpired):    # ValueError: a zero byte in the name
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
