"""The command states its version, however it is started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hhdelay import __version__
from hhdelay.cli import main


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"hhdelay {__version__}\n"


def test_module_and_command_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "hhdelay", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hhdelay {__version__}\n", "")


def test_no_argument_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "--version" in capsys.readouterr().out


def test_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--volume", "11"])
    assert end.value.code == 2
    assert "--volume" in capsys.readouterr().err
