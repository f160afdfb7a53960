"""The package's page, and the section on the front page, name modules and commands as they are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hhdelay.cli.main import app
from hhdelay.config.errors import ConfigError
from hhdelay.config.load import RECIPES, load_recipe
from hhdelay.sweep.axes import parse_axis

PACKAGE = Path(__file__).resolve().parents[1]
PAGE = (PACKAGE / "README.md").read_text(encoding="utf-8")
FRONT = (PACKAGE.parents[1] / "README.md").read_text(encoding="utf-8")


def commands(page: str) -> list[list[str]]:
    """The words of every `hhdelay` command in fences and in backticks, after the program's name."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", page, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(hhdelay \S[^`]*)`", page)
    found = []
    for line in lines:
        match = re.match(r"\s*(?:\$ )?(?:\.venv/bin/)?hhdelay\b(.*)", line)
        if match:   # two spaces or more: what follows says what it does
            found.append(shlex.split(re.split(r"\s{2,}", match[1].strip())[0], comments=True))
    return found


def problem(words: list[str]) -> str | None:
    """What the program would refuse in this command: a command, an option, a setting or an axis it lacks."""
    group: Any = typer.main.get_command(app)
    if not words:
        return None
    name, words = words[0], words[1:]
    if name not in group.commands:
        return f"no command {name!r}"
    known = {option for p in group.commands[name].params for option in (*p.opts, *p.secondary_opts)}
    wrong = sorted({word for word in words if word.startswith("--")} - known - {"--help"})
    if wrong:
        return f"{name} has no option {', '.join(wrong)}"
    axes = [words[k + 1] for k, word in enumerate(words) if word == "--over"]
    settings = [word for word in words if re.match(r"[a-z_]+\.\w+=", word) and word not in axes]
    try:
        load_recipe(next((word for word in words if word in RECIPES), "ei"), settings)
        for axis in axes:
            parse_axis(axis)
    except ConfigError as error:
        return str(error)
    return None


def test_every_module_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, re.M)
    there = {path.stem for path in (PACKAGE / "src/hhdelay").iterdir() if not path.name.startswith("_")}
    assert sorted(listed) == sorted(there - {"py"}), "README's table of modules"


def test_every_command_is_shown() -> None:
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert known <= {words[0] for words in commands(PAGE) if words}


@pytest.mark.parametrize("page", [PAGE, FRONT], ids=["package", "front"])
def test_every_command_on_the_pages_would_run(page: str) -> None:
    found = commands(page)
    assert len(found) >= 3
    wrong = [f"{shlex.join(words)}: {problem(words)}" for words in found if problem(words)]
    assert not wrong, wrong


def test_the_python_on_the_page_runs() -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)
    assert code
    short = code[1].replace("50_000", "500").replace("2_000_000", "6_000").replace("20_000.0", "60.0")
    found: dict[str, object] = {}
    exec(short, found)
    assert getattr(found["R"], "shape", None) == (3,)
