"""`hhdelay bench` prints JSON or lines, and says in one line what is wrong with --brian2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hhdelay.bench import plan, report
from hhdelay.cli.main import main


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A quick plan that is quicker still, in a folder without Brian2."""
    grid = plan.Grid(delays_ms=(2.0,), strengths_mS_cm2=(1.0, 2.0), duration_ms=30.0, warmup_ms=10.0)

    def small(turns: int = 1) -> plan.Plan:
        return plan.Plan(grid=grid, large=None, turns=turns, rate_s=0.005)

    monkeypatch.setattr("hhdelay.bench.quick", small)
    monkeypatch.setattr(report, "first_calls_s", lambda environment: (2.0, 1.0))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("tiny")
def test_json_goes_to_stdout_and_the_rest_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick", "--turns", "2", "--json"]) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert rows["ratio_to_brian2_batched"] is None and len(rows["ours_turns_s"]) == 2
    assert rows["neuron_steps_per_s_per_core"] > 0 and rows["share_of_limit"] > 0
    assert "`make bench` makes it" in said.err


@pytest.mark.usefixtures("tiny")
def test_text_has_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ratio_to_brian2_batched", "-"]
    assert sum("make bench" in line for line in lines) == 1


@pytest.mark.parametrize("python", ["nowhere/python", sys.executable])
def test_a_python_without_brian2_is_refused(python: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick", "--brian2", python]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hhdelay: --brian2 ") and error.count("\n") == 1 and "Fix: " in error


def test_no_turns_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--turns", "0"]) == 2
    assert "--turns" in capsys.readouterr().err
