"""What the pages say is read back: folders, commands, links and figures."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from fathom.cli.main import app
from fathom.config.errors import ConfigError
from fathom.config.load import RECIPES, load_recipe

PAGES = ("README.md", "CONTRIBUTING.md", "packages/*/README.md", "docs/**/*.md")
COMMANDS = ("fathom", ".venv/bin/fathom", "python -m fathom", ".venv/bin/python -m fathom")


@pytest.fixture(scope="module")
def pages(root: Path, files: list[Path]) -> dict[str, str]:
    """Every page by its path, as text."""
    found = {path for pattern in PAGES for path in root.glob(pattern)} & set(files)
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in sorted(found)}


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    """The front page."""
    return (root / "README.md").read_text(encoding="utf-8")


def fenced(page: str) -> list[str]:
    """Lines inside ``` fences, continued lines joined."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", page, re.M | re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def command_lines(page: str) -> list[list[str]]:
    """The words of every `fathom` command in the fenced blocks, after the program's name."""
    found = []
    for line in fenced(page):
        line = re.sub(r"^\s*\$ ", "", line).strip()
        for name in COMMANDS:
            if line == name or line.startswith(f"{name} "):
                words = shlex.split(line.removeprefix(name), comments=True)
                ends = (i for i, word in enumerate(words) if word in {"|", ">", ">>", "&&"})
                found.append(words[: next(ends, None)])
    return found


def problem(words: list[str]) -> str | None:
    """What the program would refuse in this command: a command, an option or a setting it lacks."""
    command: Any = typer.main.get_command(app)
    named = ["fathom"]
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"{' '.join(named)} has no command {words[0]!r}"
        named.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    given = {word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
    wrong = sorted(given - known - {"--help"})
    if wrong:
        return f"{' '.join(named)} has no option {', '.join(wrong)}"
    settings = [word for word in words if re.match(r"[a-z0-9_.]+=", word)]
    try:
        load_recipe(words[0] if words and words[0] in RECIPES else RECIPES[0], settings)
    except ConfigError as error:
        return str(error)
    return None


def test_readme_lists_the_layers_as_they_are(root: Path, readme: str) -> None:
    tools = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = [c for c in tools["importlinter"]["contracts"] if c.get("containers") == ["fathom"]]
    contract = [set(layer.split(" | ")) for layer in reversed(contracts[0]["layers"])]
    named = re.findall(r"^\| \[?`(\w+)/`", readme, re.M)
    assert sorted(named) == sorted(set().union(*contract)), f"README lists {named}, not {contract}"
    heights = [next(i for i, layer in enumerate(contract) if name in layer) for name in named]
    assert heights == sorted(heights), f"README lists {named}; bottom layer first it would be {contract}"


def test_every_make_target_exists(root: Path, pages: dict[str, str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.M))
    for page, text in pages.items():
        quoted = re.findall(r"`make ([a-z]+)", text)
        typed = [m[1] for line in fenced(text) if (m := re.match(r"\s*(?:\$ )?make ([a-z]+)", line))]
        unknown = sorted({*quoted, *typed} - targets)
        assert not unknown, f"{page} names make {unknown}; the Makefile has {sorted(targets)}"


def test_every_command_line_would_be_accepted(pages: dict[str, str]) -> None:
    shown = {page: command_lines(text) for page, text in pages.items()}
    assert shown.get("README.md"), "README shows no fathom command"
    said = [(page, problem(words)) for page, lines in shown.items() for words in lines]
    assert not [refusal for refusal in said if refusal[1]]


@pytest.mark.parametrize("line", ["nope", "doctor --jsom", "--verson", "train small train.rate=1"])
def test_a_wrong_command_line_is_noticed(line: str) -> None:
    assert problem(shlex.split(line))


def test_relative_links_exist_inside_the_repository(root: Path, pages: dict[str, str]) -> None:
    broken = []
    for page, text in pages.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:|#", target):
                continue
            there = ((root / page).parent / target.split("#")[0]).resolve()
            if not there.exists() or not there.is_relative_to(root):
                broken.append(f"{page} -> {target}")
    assert not broken, broken


def test_every_figure_names_its_measurement(root: Path, readme: str) -> None:
    section = re.search(r"^## Results\n(.*?)(?=^## |\Z)", readme, re.M | re.S)
    assert section, "README has no section Results"
    rows = [line for line in section[1].splitlines() if line.startswith("|")][2:]   # [:2]: heads and rule
    assert rows, "README's Results hold no table"
    for row in rows:
        named = re.findall(r"docs/results/[\w.-]+\.md", row)
        assert named and all((root / name).is_file() for name in named), f"no file of docs/results for: {row}"
