"""`sweep`, `resume` and `status`: what they print, and each wrong input as one line and status 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hhdelay.cli.main import main
from hhdelay.store.read import open_sweep

QUICK = ["sweep", "ei", "simulation.dt_ms=0.05", "simulation.duration_ms=150", "simulation.warmup_ms=20",
         "simulation.replicas=2", "noise.D_uA2_ms_cm4=8", "--engine", "numba", "--workers", "1"]  # fmt: skip
GRID = ["--over", "motif.delay_ms=0:8:3", "--over", "motif.g_mS_cm2=0.5,2"]
STATUS = {"store", "axes", "engine", "replicas", "tiles", "tiles_done", "points", "points_done", "highest_R",
          "at", "persisting"}  # fmt: skip


def test_a_sweep_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "map.zarr")
    assert main([*QUICK, *GRID, "--out", store, "--tile", "2"]) == 0
    text = capsys.readouterr().out
    for words in ("grid       motif.delay_ms 3 from 0 to 8 by motif.g_mS_cm2 2 from 0.5 to 2, 2 replicas",
                  "done       3 of 3 tiles, 6 of 6 points", "highest R  ", "persists   at ", "neuron-steps/s",
                  f"hhdelay plot {store} --out map.png"):  # fmt: skip
        assert words in text
    assert main([*QUICK, *GRID, "--out", store, "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == "3 of 3 tiles are there already\n" and set(json.loads(said.out)) > STATUS


def test_status_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "map.zarr"
    assert main([*QUICK, *GRID, "--out", str(store), "--tile", "2", "--no-persistence", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    (store / "done/c/0/0").unlink()
    assert main(["status", str(store), "--json"]) == 0
    part = json.loads(capsys.readouterr().out)
    assert set(part) == STATUS and (part["tiles_done"], part["points_done"]) == (2, 4)
    assert part["persisting"] is None and set(part["at"]) == {"delay_ms", "g_mS_cm2"}
    assert main(["status", str(store)]) == 0
    assert "2 of 3 tiles, 4 of 6 points" in capsys.readouterr().out
    assert main(["resume", str(store), "--workers", "1", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {key: again[key] for key in STATUS} == {key: whole[key] for key in STATUS}
    data = open_sweep(store)
    place = {name: [value] for name, value in again["at"].items()}
    assert data["R"].sel(place).item() == again["highest_R"] == float(data["R"].max())


def test_silence_has_no_highest_R(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--over", "noise.D_uA2_ms_cm4=0,0.001", "--out", str(tmp_path / "s")]) == 0
    assert "highest R  -" in capsys.readouterr().out


BAD = {
    "negative delay": ["--over", "motif.delay_ms=-1:2:4"],
    "delay below the step": ["--over", "motif.delay_ms=0.01,2"],
    "unknown motif": ["motif.kind=IE"],
    "unknown setting": ["--over", "motif.dellay_ms=1,2"],
    "odd neurons": ["--over", "motif.neurons=2,3"],
    "no range": ["--over", "motif.delay_ms=1:2"],
    "three axes": [*GRID, "--over", "simulation.seed=1,2"],
    "the same axis twice": [*GRID[:2], *GRID[:2]],
    "unknown engine": ["--engine", "abacus"],
    "no points a tile": ["--tile", "0"],
    "no workers": ["--workers", "0"],
    "workers and scheduler": ["--scheduler", "tcp://127.0.0.1:9"],
    "step too large": ["neuron.g_Na_mS_cm2=12000", "--over", "motif.delay_ms=1,2"],
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_input_is_one_line_and_makes_nothing(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK, *BAD[case], "--out", str(tmp_path / "s")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("hhdelay: ") and said.err.count("\n") == 1, said.err
    assert "Fix: " in said.err and not list(tmp_path.iterdir())


def test_a_wrong_place_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("kept")
    for words in ([*QUICK, *GRID, "--out", str(tmp_path / "file")],
                  [*QUICK, *GRID, "--out", str(tmp_path / "file/s")],
                  [*QUICK, *GRID, "--out", str(tmp_path / "none/s")],
                  [*QUICK, *GRID, "--out", "/proc/s"],
                  ["resume", str(tmp_path / "none")], ["status", str(tmp_path / "file")]):  # fmt: skip
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("hhdelay: ") and error.count("\n") == 1 and "Fix: " in error, error
    assert (tmp_path / "file").read_text() == "kept"


def test_a_store_of_other_parameters_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "s"
    assert main([*QUICK, *GRID, "--out", str(store)]) == 0
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*QUICK, "simulation.seed=2", *GRID, "--out", str(store)]) == 2
    assert "holds another sweep: simulation.seed is 1 there, 2 here. Fix: " in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
