"""No file of the repository speaks of the machine it was written on, or promises what is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# A path below a home folder or a workplace. One inside an address (example.org/home/...) is none.
MACHINE = re.compile(r"(?<![\w.~-])/(?:home|root|Users|work|opt)/\w|\bC:\\Users\\")
PROMISES = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b|\bNotImplemented" r"Error\b")
TEXT = {".py", ".md", ".toml", ".txt", ".cff", ".yaml", ".json", ".jsonl", ".c", ".h", ".html", ".jinja", ""}


@pytest.fixture(scope="module")
def texts(root: Path, files: list[Path]) -> dict[str, str]:
    """Every text file by its path."""
    return {str(p.relative_to(root)): p.read_text(encoding="utf-8") for p in files if p.suffix in TEXT}


def hits(pattern: re.Pattern[str], texts: dict[str, str]) -> list[str]:
    lines = [(path, n, line) for path in texts for n, line in enumerate(texts[path].splitlines(), 1)]
    return [f"{path}:{n}: {line.strip()}" for path, n, line in lines if pattern.search(line)]


def test_no_path_of_a_machine(texts: dict[str, str]) -> None:
    assert not hits(MACHINE, texts), "\n".join(hits(MACHINE, texts))


@pytest.mark.parametrize("folder", ["/home/", "cd /" + "root/", "see /" + "work/", "(/opt/"])
def test_the_pattern_sees_a_machine(folder: str) -> None:
    assert MACHINE.search(folder + "ada")


LEFT_ALONE = ["https://a.org/home" + "/x", "packages/root" + "/x", "~/" + "work/x", "/homely"]


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_the_pattern_leaves_the_rest_alone(text: str) -> None:
    assert not MACHINE.search(text)


def test_no_promises_in_code(texts: dict[str, str]) -> None:
    found = hits(PROMISES, {path: text for path, text in texts.items() if path.endswith((".py", ".c", ".h"))})
    assert not found, "\n".join(found)
