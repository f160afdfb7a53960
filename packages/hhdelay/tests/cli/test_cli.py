"""The commands print what they promise, and what a person can mend is one line and status 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hhdelay import __version__
from hhdelay.cli.main import main
from hhdelay.config.load import RECIPES, load_recipe

SHORT = ("simulation.duration_ms=400", "simulation.warmup_ms=100", "simulation.replicas=2")


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hhdelay {__version__}\n"


def test_module_and_command_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "hhdelay", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hhdelay {__version__}\n", "")


def test_help_names_every_command_and_starts_without_the_heavy_packages() -> None:
    code = ("import sys; from hhdelay.cli.main import main; status = main(['--help']);"
            "heavy = {'numpy', 'numba', 'matplotlib', 'xarray', 'scipy'} & set(sys.modules);"
            "print(heavy, file=sys.stderr); sys.exit(status)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "set()\n")
    for command in ("simulate", "check", "recipes"):
        assert command in done.stdout


def test_unknown_options_and_settings_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--volume", "11"], ["simulate", "ei", "motif.kind=IE"], ["simulate", "nothing"],
                  ["simulate", "ei", "--engine", "cuda"], ["recipes", "nothing"],
                  ["simulate", "ei", "simulation.dt_ms=0.5", "motif.delay_ms=9"]):  # fmt: skip
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert words[0].startswith("--") or (error.startswith("hhdelay: ") and error.count("\n") == 1), error


def test_simulate_prints_rates_coherence_and_phase(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "ii", *SHORT]) == 0
    text = capsys.readouterr().out
    for word in ("rate ", "interval ", "R ", "95 %", "skipped ", "phase ", "|z|"):
        assert word in text


def test_simulate_as_json_and_on_disk(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "run.npz"
    assert main(["simulate", "ii", *SHORT, "--json", "--out", str(out), "--trace-ms", "5"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert {"R", "R_low", "R_high", "rate_Hz", "mean_ms", "skipped", "phase", "locking"} <= set(summary)
    with np.load(out) as held:
        assert len(held["spikes_ms"]) == summary["spikes"] == held["tally_spikes"].sum()
        assert set(held["spike_replica"]) == set(held["spike_neuron"]) == {0, 1}
        assert held["trace_V_mV"].shape == (501, 2)
        (tmp_path / "again.toml").write_text(str(held["recipe"]))
    assert load_recipe(str(tmp_path / "again.toml")) == load_recipe("ii", SHORT)


def test_silence_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ["simulate", "single", *SHORT, "noise.D_uA2_ms_cm4=0"]
    assert main([*quiet, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["R"] is None
    assert main(quiet) == 0
    assert "R          -" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["none/run.npz", "run.csv", "."])
def test_a_file_that_cannot_be_written_is_said_before_the_work(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = ["simulate", "ii", "simulation.duration_ms=1e7"]
    assert main([*long, "--out", str(tmp_path / out)]) == 2
    assert "Fix: " in capsys.readouterr().err


def test_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["recipes"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(RECIPES)
    assert main(["recipes", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == list(RECIPES)
    assert main(["recipes", "ei-slow", "motif.delay_ms=3"]) == 0
    (tmp_path / "own.toml").write_text(capsys.readouterr().out)
    assert load_recipe(str(tmp_path / "own.toml")) == load_recipe("ei-slow", ["motif.delay_ms=3"])
    assert main(["recipes", "ei", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["motif.delay_ms"]["value"] == 9.0


def test_check_prints_rows_and_fails_with_one_of_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hhdelay import check

    monkeypatch.setattr(check, "rows", check.rest_rows)
    assert main(["check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found[0]) == {"name", "expected", "found", "tolerance", "pass"} and len(found) == 16
    monkeypatch.setattr(check, "rows", lambda: iter([check.Row("wrong", 1.0, 2.0, 0.5)]))
    assert main(["check"]) == 1
    assert "FAIL  wrong" in capsys.readouterr().out
