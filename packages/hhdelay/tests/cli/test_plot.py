"""`hhdelay plot` chooses what suits its source, and says what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hhdelay.cli.main import main

SHORT = ("simulation.duration_ms=300", "simulation.warmup_ms=100", "simulation.replicas=2",
         "simulation.dt_ms=0.02")  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two sweeps and two runs."""
    folder = tmp_path_factory.mktemp("plot")
    over = ["--over", "motif.delay_ms=1:21:11"]
    local = ["--workers", "1", "--engine", "numba"]
    assert main(["sweep", "ei", *SHORT, *over, *local, "--out", str(folder / "line")]) == 0
    over += ["--over", "motif.g_mS_cm2=1,2"]
    assert main(["sweep", "ii", *SHORT, *over, *local, "--out", str(folder / "map")]) == 0
    assert main(["simulate", "ii", *SHORT, "--out", str(folder / "run.npz")]) == 0
    assert main(["simulate", "ii", *SHORT, "--out", str(folder / "trace.npz"), "--trace-ms", "20"]) == 0
    return folder


@pytest.mark.parametrize(("source", "what"), [
    ("line", "lines"), ("map", "map"), ("run.npz", "spikes"), ("trace.npz", "voltage"),
    ("line map", "panels"),
])  # fmt: skip
def test_each_source_has_its_picture(
    source: str, what: str, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figure.svg"
    paths = [str(sources / name) for name in source.split()]
    assert main(["plot", *paths, "--out", str(out), "--width-in", "3.4"]) == 0
    assert capsys.readouterr().out.split()[0] == what
    assert out.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(("source", "what"), [
    ("line", "phase"), ("map", "lines"), ("run.npz", "raster"), ("run.npz", "histogram"),
    ("trace.npz", "gates"),
])  # fmt: skip
def test_what_chooses_another(
    source: str, what: str, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figure.png"
    assert main(["plot", str(sources / source), "--out", str(out), "--what", what, "--log", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["out"], found["what"]) == (str(out), what)
    assert ("maxima_ms" in found) == (what == "phase") and ("tips" in found) == (source == "map")


@pytest.mark.parametrize("words", [
    ["line", "--what", "map"], ["map", "--what", "phase"], ["line", "--what", "voltage"],
    ["run.npz", "--what", "map"], ["run.npz", "--what", "gates"], ["line", "--what", "maps"],
    ["run.npz", "line"], ["line", "map", "--what", "lines"], ["nowhere"], ["nowhere.npz"],
])  # fmt: skip
def test_what_does_not_fit_is_one_line(
    words: list[str], sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(sources / one) if one[0] != "-" and words[max(k - 1, 0)] != "--what" else one
             for k, one in enumerate(words)]  # fmt: skip
    assert main(["plot", *paths, "--out", str(tmp_path / "a.png")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hhdelay: ") and error.count("\n") == 1 and "Fix: " in error, error
    assert not list(tmp_path.iterdir())


def test_the_place_is_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in ("a.gif", "no/a.png"):
        assert main(["plot", "nowhere", "--out", str(tmp_path / out)]) == 2
        error = capsys.readouterr().err
        assert "nowhere" not in error and "Fix: " in error and error.count("\n") == 1
    assert main(["plot", "f-I", "--what", "map", "--out", str(tmp_path / "a.png")]) == 2
