"""The command line as a whole: it starts without torch, and an error has its one line and its status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from fathom import __version__
from fathom.cli.main import SECTIONS, Sections, app, main
from fathom.config.errors import ConfigError, DataError, DiskError, FathomError

HEAVY = ("torch", "numpy", "rich", "tokenizers", "safetensors", "jinja2")
STATUS: dict[type[FathomError], int] = {FathomError: 1, ConfigError: 2, DataError: 2, DiskError: 1}


@pytest.fixture
def failing() -> Iterator[typer.Typer]:
    """A program made as fathom's is, whose only command raises what it is told to."""
    program = typer.Typer(cls=Sections, rich_markup_mode=None, pretty_exceptions_enable=False)
    errors = {error.__name__: error for error in (*STATUS, KeyboardInterrupt, ZeroDivisionError)}

    @program.callback()
    def root() -> None:
        """A callback makes the one command a subcommand."""

    @program.command()
    def fail(name: str) -> None:
        raise errors[name]("lr=-1 is below 0. Fix: set it to 0 or more")

    yield program


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fathom", *words], capture_output=True, text=True)


@pytest.mark.parametrize(
    "line",
    ["--help", "--version", "doctor --help", "train --help", "demo --help", "generate --help", "chat --help"],
)
def test_help_loads_nothing_heavy(line: str) -> None:
    code = f"""
import sys
from fathom.cli.main import main
status = main({line.split()!r})
print(status, *sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "0\n", f"status and what was loaded: {done.stderr}"


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fathom {__version__}\n", "")


def test_help_begins_with_two_commands_to_copy() -> None:
    purpose, *rest = [line.strip() for line in run("--help").stdout.splitlines()[1:] if line.strip()]
    assert purpose.endswith(".")
    assert all(line.startswith("fathom ") for line in rest[:2])


def test_every_command_has_a_section_and_a_sentence() -> None:
    command = typer.main.get_command(app)
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(command.commands)
    shown = run("--help").stdout
    for title, names in SECTIONS.items():
        assert f"{title}:" in shown
        assert all(f"\n  {name} " in shown for name in names)


def test_without_a_command_the_help_is_shown() -> None:
    done = run()
    assert done.returncode == 2
    assert "Usage: fathom" in done.stdout + done.stderr


@pytest.mark.parametrize("line", ["--volume 11", "nope", "doctor --volume 11", "params"])
def test_a_wrong_line_is_a_usage_error(line: str) -> None:
    done = run(*line.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: fathom" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("error", STATUS)
def test_our_errors_are_one_line_and_a_status(error: type[FathomError], failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["fail", error.__name__])
    assert result.exit_code == STATUS[error]
    assert result.stdout == ""
    assert result.stderr == "fathom: lr=-1 is below 0. Fix: set it to 0 or more\n"


def test_interruption_has_the_status_of_a_shell(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["fail", "KeyboardInterrupt"])
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_a_mistake_of_ours_is_not_hidden(failing: typer.Typer) -> None:
    result = CliRunner().invoke(failing, ["fail", "ZeroDivisionError"])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("line", [["--version"], ["params", "tiny", "--json"]])
def test_a_reader_that_goes_away_is_met_with_silence(line: list[str]) -> None:
    """The pipe is closed before anything is written, as `| true` does."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fathom", *line]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_main_returns_what_a_command_exits_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["nope"]) == 2
    assert main(["params", "nope", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == f"fathom {__version__}\n"
    assert err.splitlines()[-1].startswith("fathom: ")
