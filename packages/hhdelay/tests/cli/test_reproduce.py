"""`hhdelay reproduce` on the command line: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hhdelay import reproduce as package
from hhdelay.cli.main import main
from hhdelay.reproduce import Gallery
from hhdelay.reproduce.finding import FOUND, OURS, Finding

ONE = Finding(name="one-neuron", origin=OURS, claim="It fires.", criterion="A spike.", verdict=FOUND,
              found="It fired 3 times.", numbers={"spikes": 3, "R": float("nan")})  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command asks for; nothing is computed."""
    calls: list[Any] = []

    def fake(out: Path, plan: Any, bar: Any, **given: Any) -> Gallery:
        with bar("1 of 1: nothing"):
            calls.append((out, plan.judged, given))
        return Gallery([ONE], 12.3, 0.0)

    monkeypatch.setattr(package, "reproduce", fake)
    return calls


def test_it_prints_verdicts(asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--out", str(tmp_path / "g")]) == 0
    said, page = capsys.readouterr(), tmp_path / "g/index.html"
    assert said.out.splitlines() == [
        f"{'found':26}one neuron", f"{'':26}It fired 3 times.", f"took 12.3 s; see {page}",
    ]  # fmt: skip
    assert said.err == "1 of 1: nothing\n"
    assert asked == [(tmp_path / "g", True, {"workers": None, "search": None})]


def test_quick_runs_in_one_process(asked: list[Any], tmp_path: Path) -> None:
    assert main(["reproduce", "--quick", "--out", str(tmp_path), "--search", str(tmp_path / "s")]) == 0
    assert main(["reproduce", "--quick", "--out", str(tmp_path), "--workers", "2"]) == 0
    assert [(judged, given["workers"]) for _, judged, given in asked] == [(False, 1), (False, 2)]
    assert asked[0][2]["search"] == tmp_path / "s"


def test_json(asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["numbers"] == {"spikes": 3, "R": None}


def test_stopped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "reproduce", stop)
    assert main(["reproduce", "--out", "the gallery"]) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on with 'the gallery'\n"


WRONG = ["--out file/g", "--out /proc/g", "--out g --search none", "--out g --workers 0", "--out file"]


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_input_is_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    assert main(["reproduce", "--quick", *words.split()]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hhdelay: ")]
    assert len(lines) == 1 and "Fix: " in lines[0]
    assert (tmp_path / "file").read_text() == "kept"
