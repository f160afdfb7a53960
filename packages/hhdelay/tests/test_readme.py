"""The package's page names its modules and commands as they are."""

from __future__ import annotations

import re
from pathlib import Path

from hhdelay.cli.main import app

PACKAGE = Path(__file__).resolve().parents[1]
PAGE = (PACKAGE / "README.md").read_text(encoding="utf-8")


def test_every_module_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, re.M)
    there = {path.stem for path in (PACKAGE / "src/hhdelay").iterdir() if not path.name.startswith("_")}
    assert sorted(listed) == sorted(there - {"py"}), "README's table of modules"


def test_every_command_exists() -> None:
    named = set(re.findall(r"^(?:\$ )?hhdelay (\w+)", PAGE, re.M))
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert named == known


def test_the_python_on_the_page_runs() -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)
    assert code
    short = code[1].replace("50_000", "500").replace("2_000_000", "6_000").replace("20_000.0", "60.0")
    found: dict[str, object] = {}
    exec(short, found)
    assert getattr(found["R"], "shape", None) == (3,)
