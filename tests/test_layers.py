"""The layer contract of pyproject.toml holds, and would not hold for code that breaks it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VIOLATIONS = {
    "a lower layer imports a higher one": ("fathom/ops/spy.py", "import fathom.train", "One way"),
    "even inside a function": ("fathom/ops/spy.py", "def f():\n    import fathom.train", "One way"),
    "a sibling imports its sibling": ("fathom/data/spy.py", "import fathom.model", "One way"),
    "a folder has no place": ("fathom/misc/__init__.py", '"""Nothing."""', "One way"),
    "planning reaches torch": ("fathom/config/spy.py", "import torch", "need no torch"),
    "a report reaches torch": ("fathom/report/spy.py", "import torch", "need no torch"),
    "siblings in a layer form a cycle": ("fathom/ops/{a,b}.py", "import fathom.ops.{b,a}", "No cycles"),
    "one package knows the other": ("hhdelay/cli.py", "import fathom", "know nothing of each other"),
    "hhdelay grows a module without a place": ("hhdelay/neuron.py", '"""Nothing."""', "hhdelay: one way"),
}


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run the linter on the sources below `tree` and not on what is installed."""
    command = Path(sys.executable).with_name("lint-imports")
    paths = f"{tree}/packages/fathom/src:{tree}/packages/hhdelay/src"
    environment = {"PYTHONPATH": paths, "NO_COLOR": "1"}
    return subprocess.run([command, "--no-cache"], cwd=tree, env=environment, capture_output=True, text=True)


def test_the_layers_are_kept(root: Path) -> None:
    done = lint_imports(root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_the_contract_breaks(violation: str, root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "pyproject.toml", tmp_path)
    for package in ("fathom", "hhdelay"):
        shutil.copytree(root / f"packages/{package}/src", tmp_path / f"packages/{package}/src")
    path, code, contract = VIOLATIONS[violation]
    for path_, code_ in zip(expand(path), expand(code), strict=True):
        spy = tmp_path / f"packages/{path_.split('/')[0]}/src/{path_}"
        spy.parent.mkdir(exist_ok=True)
        spy.write_text(code_ + "\n", encoding="utf-8")
    done = lint_imports(tmp_path)
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(contract in line for line in broken), f"{contract!r} is not among the broken: {broken}"


def expand(text: str) -> list[str]:
    """`x{a,b}y` as [xay, xby]; a text without braces as itself."""
    head, brace, rest = text.partition("{")
    if not brace:
        return [text]
    names, _, tail = rest.partition("}")
    return [head + name + tail for name in names.split(",")]
