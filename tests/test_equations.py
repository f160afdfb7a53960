"""docs/equations.md is an index that cannot rot: every equation built so far has its code and its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

BUILT = range(1, 26)    # attention 1-11, experts and balance 12-20, MTP 21-25; 26-28 are GRPO


class Row(NamedTuple):
    """One line of the table."""

    equations: set[int]
    code: list[str]     # "model/router.py:route"
    tests: list[str]    # "test_router.py::test_x"


@pytest.fixture(scope="module")
def rows(root: Path) -> list[Row]:
    """The table `| eq | what | code | test |`."""
    page = (root / "docs/equations.md").read_text(encoding="utf-8")
    found = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and re.match(r"\d", cells[0]):
            spans = [re.split(r"[-–]", part) for part in re.findall(r"\d+(?:[-–]\d+)?", cells[0])]
            numbers = {n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)}
            found.append(Row(numbers, re.findall(r"`([^`]+)`", cells[2]), re.findall(r"`([^`]+)`", cells[3])))
    return found


def names(module: ast.Module) -> set[str]:
    """Functions and classes of a module, methods as Class.method."""
    found: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


def test_every_equation_is_there(rows: list[Row]) -> None:
    covered = set().union(*(row.equations for row in rows))
    assert covered == set(BUILT), f"missing {set(BUILT) - covered}, unknown {covered - set(BUILT)}"


def test_every_row_names_code_that_exists(rows: list[Row], modules: dict[str, ast.Module]) -> None:
    for row in rows:
        assert row.code, f"equations {sorted(row.equations)} name no code"
        for entry in row.code:
            file, _, name = entry.partition(":")
            module = modules.get(f"packages/fathom/src/fathom/{file.removeprefix('fathom/')}")
            assert module, f"equations {sorted(row.equations)}: there is no {file}"
            assert name in names(module), f"equations {sorted(row.equations)}: {file} has no {name!r}"


def test_every_row_names_tests_that_exist(rows: list[Row], modules: dict[str, ast.Module]) -> None:
    for row in rows:
        assert row.tests, f"equations {sorted(row.equations)} name no test"
        for entry in row.tests:
            file, _, name = entry.partition("::")
            homes = [tree for path, tree in modules.items() if "tests/" in path and path.endswith(f"/{file}")]
            assert any(name in names(home) for home in homes), f"equations {row.equations}: no {entry}"
