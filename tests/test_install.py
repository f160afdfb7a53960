"""What is installed is pinned, and the files that install it say what they do."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TARGETS = {"setup", "demo", "serve", "test", "check", "bench", "soak", "system", "clean", "help"}


@pytest.fixture(scope="module")
def pinned(root: Path) -> dict[str, str]:
    """Version of every constraint, by name."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([\w.-]+)==([\w.!]+)", line) for line in lines if not line.startswith("#")]
    assert all(found), "constraints.txt holds more than names, == and versions"
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def make(root: Path, *words: str) -> str:
    """What `make` prints, free of the options of a make that runs these tests."""
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        ["make", *words], cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


@pytest.mark.parametrize("package", ["fathom", "hhdelay"])
def test_everything_that_is_asked_for_is_pinned(package: str, root: Path, pinned: dict[str, str]) -> None:
    project = tomllib.loads((root / f"packages/{package}/pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"].get("optional-dependencies", {}).values()
    asked = [*project["build-system"]["requires"], *project["project"].get("dependencies", [])]
    for text in [*asked, *(one for extra in extras for one in extra)]:
        requirement = Requirement(text)
        if requirement.name == "fathom-lm":
            continue
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), f"{text} does not allow the pinned {version}"


def test_torch_is_pinned_without_a_build_and_never_built_with(root: Path, pinned: dict[str, str]) -> None:
    """A build such as +cpu would be found in one index only; an isolated build would fetch torch again."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", pinned["torch"])
    for file in root.glob("packages/*/pyproject.toml"):
        requires = tomllib.loads(file.read_text(encoding="utf-8"))["build-system"]["requires"]
        assert not any(Requirement(one).name == "torch" for one in requires), f"{file} builds with torch"


def test_make_lists_its_targets(root: Path) -> None:
    lines = make(root).splitlines()
    listed = dict(line.removeprefix("make ").split(maxsplit=1) for line in lines)
    assert set(listed) == TARGETS
    assert all(len(phrase) > 10 for phrase in listed.values())


@pytest.mark.parametrize(("target", "stamp"), [("demo", ".demo"), ("test", ".test"), ("check", ".test")])
def test_each_target_sets_up_what_it_needs_once(target: str, stamp: str, root: Path, tmp_path: Path) -> None:
    """Nothing is installed where the stamp is newer than its inputs."""
    assert "pip install" in make(root, "-n", target, f"VENV={tmp_path}")
    (tmp_path / ".made").touch()
    (tmp_path / stamp).touch()
    assert "pip install" not in make(root, "-n", target, f"VENV={tmp_path}")


def test_what_the_tests_need_serves_the_demo_too(root: Path, tmp_path: Path) -> None:
    planned = make(root, "-n", "setup", f"VENV={tmp_path}").splitlines()
    assert f"touch {tmp_path}/.demo {tmp_path}/.test" in planned


def test_ci_runs_every_promise(root: Path) -> None:
    script = root / ".ci/run"
    assert os.access(script, os.X_OK), ".ci/run has no run bit"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert re.findall(r"^make (\w+)", text, re.M) == ["system", "check", "test", "demo"]


def test_every_wheel_carries_the_licence(root: Path) -> None:
    licence = (root / "LICENSE").read_bytes()
    assert b"Apache License" in licence and b"END OF TERMS AND CONDITIONS" in licence
    for package in ("fathom", "hhdelay"):
        assert (root / f"packages/{package}/LICENSE").read_bytes() == licence


def test_one_version_everywhere(root: Path) -> None:
    from fathom import __version__

    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(__version__)}$", citation, re.M)
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## fathom {re.escape(__version__)}\b", changes, re.M)


def test_hooks_are_local(root: Path) -> None:
    hooks = (root / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}
