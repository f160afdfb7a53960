"""Cached machine code is of the sources that are there, those of called functions included."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import hhdelay
from hhdelay.compiled import NEVER_COMPILED

PACKAGE = Path(hhdelay.__file__).parent
PROGRAM = """
from hhdelay.config.neuron import Neuron
from hhdelay.integrate import _run, runge_kutta
from hhdelay.membrane import rest
start = rest(Neuron(), 0.0)
_, end = runge_kutta(Neuron(), start, (0.0, 0.0), 1.0)
print(sum(_run.stats.cache_hits.values()), sum(_run.stats.cache_misses.values()), float(end[0]) < -60.0)
"""


def test_a_change_in_a_called_function_is_compiled_again(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "hhdelay", ignore=shutil.ignore_patterns("__pycache__"))

    def run() -> str:
        done = subprocess.run([sys.executable, "-c", PROGRAM], env={"PYTHONPATH": str(tmp_path)},
                              cwd=tmp_path, capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run() == "0 1 True\n" and run() == "1 0 True\n"
    callee = tmp_path / "hhdelay/scalar/neuron.py"      # the cached function is in integrate.py, which stays
    text = callee.read_text(encoding="utf-8")
    assert "b_m = 4.0 * exp" in text
    callee.write_text(text.replace("b_m = 4.0 * exp", "b_m = 0.04 * exp"), encoding="utf-8")
    assert run() == "0 1 False\n"


def test_what_never_holds_compiled_functions_holds_none() -> None:
    for folder in NEVER_COMPILED:
        for path in (PACKAGE / folder).rglob("*.py"):
            assert "hhdelay.compiled" not in path.read_text(encoding="utf-8"), path
