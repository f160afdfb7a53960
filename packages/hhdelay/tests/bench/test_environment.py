"""Brian2's environment: how it is made, and what is said where it is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hhdelay.bench import environment
from hhdelay.bench.environment import FOLDER, VERSIONS, commands, find, interpreter, make, version
from hhdelay.config.errors import ConfigError, HHDelayError


def test_the_commands_make_an_environment_with_exact_versions(tmp_path: Path) -> None:
    create, install = commands(tmp_path / "env")
    assert create == (sys.executable, "-m", "venv", str(tmp_path / "env"))
    assert install[:4] == (str(interpreter(tmp_path / "env")), "-m", "pip", "install")
    assert set(VERSIONS) <= set(install) and all("==" in one for one in VERSIONS)


def test_make_runs_them_only_where_brian2_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []

    def note(command: tuple[str, ...], **_: object) -> SimpleNamespace:
        ran.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(environment, "version", lambda python: "2.9.0")
    monkeypatch.setattr(environment.subprocess, "run", note)
    assert make(tmp_path) == interpreter(tmp_path) and not ran
    monkeypatch.setattr(environment, "version", lambda python: None)
    make(tmp_path)
    assert ran == list(commands(tmp_path))


def test_a_command_that_fails_ends_the_making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1)
    monkeypatch.setattr(environment, "version", lambda python: None)
    monkeypatch.setattr(environment.subprocess, "run", lambda command, **_: failed)
    with pytest.raises(HHDelayError, match="-m venv .* failed. Fix: "):
        make(tmp_path)


def test_none_given_and_none_near_is_none(tmp_path: Path) -> None:
    assert find(None, tmp_path) is None


def test_the_near_one_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(environment, "version", lambda python: asked.append(python) or "2.9.0")
    assert find(None, tmp_path) == interpreter(tmp_path / FOLDER) == asked[0]


@pytest.mark.parametrize("wrong", ["nothing/python", ".", "", "a\0b"])
def test_a_wrong_interpreter_is_one_line_with_the_fix(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--brian2 .* import brian2. Fix: [^\n]*$"):
        find(wrong, tmp_path)


def test_a_python_without_brian2_has_no_version() -> None:
    if subprocess.run((sys.executable, "-I", "-c", "import brian2"), capture_output=True).returncode == 0:
        pytest.skip("the tests' own environment has Brian2")
    assert version(Path(sys.executable)) is None
