"""`fathom plan pipeline` prints, compares and draws, and starts without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fathom.cli.main import main
from fathom.schedule import SCHEDULES, build, draw, place
from fathom.schedule.svg import draw_svg


def plan(*words: str) -> list[str]:
    return ["plan", "pipeline", *words]


def test_the_drawing_and_a_line_of_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(plan("--schedule", "dualpipe", "--ranks", "8", "--micro-batches", "20")) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    drawn = draw(place(build("dualpipe", 8, 20))).splitlines()
    assert lines == [f"rank {rank}  {line}" for rank, line in enumerate(drawn)]
    assert last == (
        "dualpipe: 5,760 long, 6.5% idle, bubble 420; at most 9 activations on a rank; weights 2 times"
    )


def test_a_terminal_cuts_the_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("fathom.cli.plan._is_terminal", lambda: True)
    assert main(plan()) == 0
    out = capsys.readouterr().out.splitlines()
    assert [len(line) for line in out[:8]] == [80] * 8 and "--svg FILE" in out[-1]


MAKESPANS = {"gpipe": 8100, "1f1b": 8100, "zb1p": 6700, "dualpipe": 5760, "dualpipev": 5800}


def test_all_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """The network is the same for all: DualPipeV's stages, twice as many, take half the time."""
    assert main(plan("--schedule", "all", "--json")) == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    assert text.count("\n") == 1
    assert {name: one["makespan"] for name, one in found.items()} == MAKESPANS
    assert {name: max(one["bubbles"]) for name, one in found.items()} == {
        name: one["bubble_by_formula"] for name, one in found.items()
    }
    assert main(plan("--schedule", "all")) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["dualpipe"] == ["dualpipe", "5,760", "6.5%", "420", "420", "9", "2"]
    assert rows["dualpipev"] == ["dualpipev", "5,800", "7.1%", "490", "490", "8.5", "1"]
    assert set(SCHEDULES) < set(rows)


def test_all_says_which_do_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(plan("--schedule", "all", "--ranks", "7")) == 0
    out = capsys.readouterr().out
    assert "1f1b             7,800" in out
    assert "dualpipe    dualpipe needs an even number of ranks, not 7. Fix: set ranks to 6 or 8\n" in out


@pytest.mark.parametrize("name", SCHEDULES)
def test_times_are_passed_on(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    times = ["--forward", "1", "--backward", "3", "--weight", "1", "--pair", "3.5", "--transfer", "0.5"]
    assert main(plan("--schedule", name, "--ranks", "2", "--micro-batches", "4", "--json", *times)) == 0
    longer = json.loads(capsys.readouterr().out)["makespan"]
    assert main(plan("--schedule", name, "--ranks", "2", "--micro-batches", "4", "--json", *times[:-2])) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["makespan"] < longer
    assert found["bubble_by_formula"] == {"zb1p": 2, "gpipe": 4, "1f1b": 4}.get(
        name, (found["stages"] / 2 - 1) * 3.5 * 2 / found["stages"]
    )


def test_pictures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    svg, png = tmp_path / "a.svg", tmp_path / "a.png"
    assert main(plan("--svg", str(svg), "--png", str(png))) == 0
    assert capsys.readouterr().out == f"{svg}\n{png}\n"
    assert svg.read_text(encoding="utf-8") == draw_svg(place(build("dualpipe", 8, 20)))
    assert png.read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "a.png"}


WRONG = {
    "--ranks 7": "dualpipe needs an even number of ranks, not 7. Fix: set ranks to 6 or 8",
    "--micro-batches 10": "needs at least 16 micro-batches, not 10. Fix: set micro-batches to 16",
    "--micro-batches 21": "an even number of micro-batches, not 21. Fix: set micro-batches to 22",
    "--schedule 1f1": "Fix: use 1f1b, the nearest",
    "--schedule all --ranks 0": "a pipeline of 0 ranks does nothing. Fix: set ranks to 1 or more",
    "--schedule all --svg a.svg": "there is no picture of all schedules. Fix: name one",
    "--forward 0": "forward=0 is no length of time. Fix: set forward above 0",
    "--pair nan": "pair=nan is no length of time. Fix: set pair above 0",
    "--weight 201": "weight=201 is longer than the backward=200 that it is part of. Fix: set weight to 200",
    "--svg nowhere/a.svg": "there is no folder nowhere. Fix: make it",
    "--png .": ". is a folder. Fix: name a file in it",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_one_line(
    line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(plan(*line.split())) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert WRONG[line] in err
    assert not list(tmp_path.iterdir())


LINES = ["plan --help", "plan pipeline --help", "plan pipeline", "plan pipeline --svg {}",
         "plan train v3 --cluster h800x2048 --tokens 1T"]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_nothing_heavy_is_loaded(line: str, tmp_path: Path) -> None:
    words = line.format(tmp_path / "a.svg").split()
    code = f"""
import sys
from fathom.cli.main import main
status = main({words!r})
print(status, *sorted({{"torch", "numpy", "rich", "PIL"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "0\n", f"status and what was loaded: {done.stderr}"
