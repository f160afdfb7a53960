"""`fathom report` as a person meets it: a page, its path, and one line for everything that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fathom.cli.report import report
from fathom.config.errors import ConfigError, FathomError

ALLOWED = 0o644


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two short runs, which is where we stand."""
    for name in ("pretrain", "sft"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        lines = [{"step": step, "train/loss": 3.0 - step / 10} for step in range(1, 11)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "runs" / name / "metrics.jsonl").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def run(*words: str) -> str:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(report)
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_one_run_gets_its_page_in_its_folder(runs: Path) -> None:
    assert run("runs/pretrain") == "runs/pretrain/report.html\n"
    page = runs / "pretrain" / "report.html"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert page.stat().st_mode & 0o777 == ALLOWED
    assert sorted(p.name for p in page.parent.iterdir()) == ["metrics.jsonl", "report.html"]


def test_a_page_is_replaced_by_a_newer_one(runs: Path) -> None:
    run("runs/pretrain")
    with (runs / "pretrain" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 11, "train/loss": 1.8125}\n')
    run("runs/pretrain")
    assert "1.812" in (runs / "pretrain" / "report.html").read_text(encoding="utf-8")


def test_several_runs_need_a_place(runs: Path) -> None:
    assert run("runs/pretrain", "runs/sft", "--out", "both.html") == "both.html\n"
    with pytest.raises(ConfigError, match=r"several runs .*\. Fix: add --out FILE$"):
        run("runs/pretrain", "runs/sft")


@pytest.mark.parametrize(
    "words, said",
    [
        (["runs/pertrain"], "runs/pertrain does not exist. Fix: use runs/pretrain or runs/sft"),
        (["runs"], "runs is no run: it has no metrics.jsonl. Fix: use runs/pretrain or runs/sft"),
        (["runs/sft/metrics.jsonl"],
         "runs/sft/metrics.jsonl is a file. Fix: give the folder of the run, such as runs/sft"),
        (["runs/sft", "runs/sft", "--out", "x.html"], "runs/sft is named twice. Fix: give each run once"),
        (["runs/sft", "runs/../runs/sft", "--out", "x.html"],
         "runs/../runs/sft is named twice, also as runs/sft. Fix: give each run once"),
        (["runs/sft", "--out", "no/where/x.html"],
         "--out no/where/x.html: no folder no/where. Fix: make it first, or name another"),
        (["runs/sft", "--out", "runs"], "--out runs is a folder. Fix: give a file, such as runs/report.html"),
        (["runs/sft", "--out", "runs/sft/metrics.jsonl"],
         "--out runs/sft/metrics.jsonl is a file that is no report. Fix: give another name, or move it away"),
        (["x" * 300], f"cannot read '{'x' * 56}... (File name too long). Fix: give the folder of a run"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(runs: Path, words: list[str], said: str) -> None:
    before = sorted(p for p in runs.parent.rglob("*"))
    with pytest.raises(FathomError) as error:
        run(*words)
    assert str(error.value) == said
    assert error.value.exit_code == 2
    assert sorted(p for p in runs.parent.rglob("*")) == before


def test_a_place_that_refuses_is_said_in_one_line(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    run("runs/sft")
    old = (runs / "sft" / "report.html").read_bytes()
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ConfigError, match=r"^cannot write runs/sft/report\.html \(Perm.*\)\. Fix: "):
        run("runs/sft")
    assert (runs / "sft" / "report.html").read_bytes() == old
    assert sorted(p.name for p in (runs / "sft").iterdir()) == ["metrics.jsonl", "report.html"]


def test_a_report_loads_nothing_heavy(runs: Path) -> None:
    code = """
import sys
from pathlib import Path
from fathom.report import write_report
write_report([Path("runs/sft")])
print(*sorted({"torch", "numpy", "jinja2", "rich"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=runs.parent)
    assert (done.stdout, done.stderr) == ("\n", "")
