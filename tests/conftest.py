"""The tree that the repository's own laws read."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEFT_BY_TOOLS = {".git", ".venv", "__pycache__", "build", "dist", "runs"}


def _files() -> list[Path]:
    """Files as git sees them; of an unpacked archive, all but what tools leave behind."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
        found = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        found = [p for p in ROOT.rglob("*") if not LEFT_BY_TOOLS & set(p.relative_to(ROOT).parts)]
    return sorted(path for path in found if path.is_file())


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file of the repository."""
    return _files()


@pytest.fixture(scope="session")
def modules() -> dict[str, ast.Module]:
    """Every Python file, by its path from the top, as a syntax tree."""
    found = [path for path in _files() if path.suffix == ".py"]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in found}
