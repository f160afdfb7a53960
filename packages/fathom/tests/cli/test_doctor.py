"""The doctor answers on one screen, also on a machine that has nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fathom.cli import doctor
from fathom.cli.main import main

KEYS = {
    "fathom", "python", "torch", "cpu", "cuda", "bf16", "fp8", "compiler", "sandbox", "browser", "packages",
}  # fmt: skip


def test_the_table_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    named = [line.split()[0] for line in lines]
    assert named[:6] == ["fathom", "python", "torch", "cpu", "cuda", "bf16"]
    assert {"compiler", "sandbox", "browser", "memory", *doctor.OPTIONAL} <= set(named)


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= KEYS
    assert found["torch"]["version"]
    assert found["cpu"]["cores"] >= 1


def refuse(*_: object) -> None:
    raise OSError("not today")


def test_nothing_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No torch, no program on the path, no /proc, no package: an answer in every line."""
    monkeypatch.setitem(sys.modules, "torch", None)     # what makes `import torch` fail
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(doctor, "MEMINFO", tmp_path / "absent")
    monkeypatch.setattr(doctor, "OPTIONAL", {"no-such-package": "nothing"})
    monkeypatch.setattr(doctor.shutil, "disk_usage", refuse)
    found = doctor.examine()
    assert found["torch"]["version"] is None and found["torch"]["problem"]
    assert found["cuda"] == []
    for missing in ("memory_gib", "disk_free_gib", "compiler", "browser"):
        assert found[missing] is None
    assert found["sandbox"]["name"] is None and found["packages"] == {"no-such-package": None}
    assert all(line.split(maxsplit=1)[1] for line in doctor.table(found).splitlines())


@pytest.mark.parametrize(("script", "answer"), [("echo tool 3", "tool 3"), ("exit 1", None), ("true", None)])
def test_a_program_states_its_version(script: str, answer: str | None, tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    program.chmod(0o755)
    assert doctor.first_version((str(tmp_path / "absent"), str(program))) == answer


def test_a_program_that_hangs_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    assert doctor.run(("true",)) is None


@pytest.mark.parametrize(
    ("text", "fast"),
    [("flags\t\t: sse2 avx512_bf16\n", True), ("Features\t: fp bf16\n", True), ("flags\t\t: sse2\n", False)],
    ids=["x86", "arm", "neither"],
)
def test_bf16_is_fast_where_the_processor_says_so(
    text: str, fast: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    listing = tmp_path / "cpuinfo"
    listing.write_text(text, encoding="ascii")
    monkeypatch.setattr(doctor, "CPUINFO", listing)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = doctor.bf16(torch)
    assert found["works"] and found["fast"] is fast


def test_a_sandbox_counts_only_if_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run", lambda command: "" if command[0] == "unshare" else None)
    assert doctor.sandbox()["name"] == "unshare"
    monkeypatch.setattr(doctor, "run", lambda command: None)
    assert doctor.sandbox()["name"] is None
