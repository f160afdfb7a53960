"""The rows, from a plan so small that nothing is claimed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hhdelay.bench import report
from hhdelay.bench.ours import Map
from hhdelay.bench.plan import Grid, Plan
from hhdelay.bench.report import BUSY, NO_BRIAN2, beside, first_calls_s, run, text
from hhdelay.cli.main import main
from hhdelay.config.errors import HHDelayError

SMALL = Grid(delays_ms=(2.0, 9.0), strengths_mS_cm2=(1.0, 2.0), duration_ms=60.0, warmup_ms=20.0)
TINY = Plan(grid=SMALL, large=SMALL, turns=2, rate_s=0.005)


@pytest.fixture
def no_first_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """They compile everything, in processes of their own; one test does it."""
    monkeypatch.setattr(report, "first_calls_s", lambda environment: (2.0, 1.0))


@pytest.mark.usefixtures("no_first_calls")
def test_without_brian2_there_are_all_rows_of_ours() -> None:
    told: list[str] = []
    rows = json.loads(json.dumps(run(TINY, brian2=None, environment={}, tell=told.append), allow_nan=False))
    assert list(rows)[:3] == ["ratio_to_brian2_batched", "neuron_steps_per_s_per_core", "share_of_limit"]
    assert rows["ratio_to_brian2_batched"] is None and rows["note"] == NO_BRIAN2
    assert rows["first_call_s"] == 2.0
    rate, most = rows["neuron_steps_per_s_per_core"], rows["limit_neuron_steps_per_s_per_core"]
    assert rows["share_of_limit"] == pytest.approx(rate / most)
    assert rows["neuron_steps_per_s_by_engine"][rows["engine"]] == rate
    assert len(rows["ours_turns_s"]) == len(rows["triangular_turns_s"]) == len(rows["ours_cpu_s"]) == 2
    assert rows["map_neuron_steps"] == 4 * 2 * 8000
    assert rows["large_map_neuron_steps_per_s"] == pytest.approx(4 * 2 * 8000 / rows["large_map_s"])
    assert any("turn 2 of 2" in stage for stage in told)
    assert text(rows).count("\n") + 1 == len(rows)


def maps(seconds: tuple[float, ...], *, scale: float = 1.0) -> list[Map]:
    R = scale * np.array([1.0, 2.0, 4.0, 9.0])
    return [Map(R, np.full(4, 99.0), one, 2 * one) for one in seconds]


def test_ratios_are_of_medians() -> None:
    openmp, alone = maps((20.0, 24.0, 90.0), scale=1.1), maps((40.0, 50.0, 41.0))
    rows = beside(maps((1.0, 9.0, 2.0)), maps((1.0, 1.0, 5.0)), openmp=openmp, alone=alone)
    assert (rows["ratio_to_brian2_batched"], rows["ratio_triangular"]) == (12.0, 24.0)
    assert rows["ratio_to_brian2_openmp"] == 12.0 and rows["ratio_to_brian2_in_two_processes"] == 10.25
    assert rows["brian2_openmp_turns_s"] == [20.0, 24.0, 90.0]
    assert rows["brian2_openmp_cpu_s"] == [40.0, 48.0, 180.0]
    assert rows["log_R_correlation"] == pytest.approx(1.0) and rows["median_R_ratio"] == pytest.approx(1.1)
    assert rows["points_compared"] == 4 and "note" not in rows


def test_on_a_busy_machine_the_ratio_is_to_the_faster_brian2() -> None:
    rows = beside(maps((2.0,)), maps((1.0,)), openmp=maps((90.0,)), alone=maps((20.0,)))
    assert (rows["ratio_to_brian2_batched"], rows["ratio_triangular"]) == (10.0, 20.0)
    assert rows["ratio_to_brian2_openmp"] == 45.0 and rows["note"] == BUSY


@pytest.mark.usefixtures("no_first_calls")
def test_turns_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, Brian2 with two threads and with one, ours with the cheap noise; then again."""
    order: list[str] = []
    one = Map(np.ones(4), np.full(4, 99.0), 1.0, 1.0)

    class Peer:
        """Stands for the program."""

        build_s, version = 3.0, "2.9.0"

        def __init__(self, python: object, grid: Grid, threads: int, folder: object) -> None:
            self.name = f"brian2 on {threads}"

        def run(self) -> Map:
            order.append(self.name)
            return one

        def close(self) -> None:
            order.append("closed")

        def __enter__(self) -> Peer:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

    monkeypatch.setattr(report, "Brian2Map", Peer)
    monkeypatch.setattr(report, "make_map", lambda engine, grid, workers: order.append(grid.law) or one)
    plan = replace(TINY, large=None)
    rows = run(plan, brian2=Path("python"), environment={}, tell=order.append)
    done = [what for what in order if "turn" not in what and " the" not in what and "builds" not in what]
    turn = ["gaussian", "brian2 on 2", "brian2 on 1", "triangular"]
    assert done == [*turn, *turn, "closed", "closed"], order
    assert rows["brian2_build_s"] == 3.0 and rows["ratio_to_brian2_in_two_processes"] == 0.5
    assert rows["log_R_correlation"] is None and "note" not in rows, "R does not vary, so nothing correlates"


def test_the_first_call_has_an_empty_cache_and_the_next_one_its_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program that leaves a mark in the cache's folder, in place of one that compiles for long."""
    code = ("import os, pathlib, sys; mark = pathlib.Path(os.environ['NUMBA_CACHE_DIR'], 'mark');"
            "told = pathlib.Path(os.environ['TOLD']); seen = told.read_text() if told.exists() else '';"
            "told.write_text(seen + str(mark.exists()) + ' '); mark.touch()")  # fmt: skip
    monkeypatch.setattr(report, "FIRST", ("-c", code))
    first_s, next_s = first_calls_s({**os.environ, "TOLD": str(tmp_path / "told")})
    assert first_s > 0 and next_s > 0
    assert (tmp_path / "told").read_text() == "False True "


def test_the_first_call_is_a_command_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert report.FIRST[:2] == ("-m", "hhdelay") and main(report.FIRST[2:]) == 0
    assert json.loads(capsys.readouterr().out)["spikes"] > 0


def test_a_first_call_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FIRST", ("-m", "hhdelay", "simulate", "nothing"))
    with pytest.raises(HHDelayError, match="failed: .*no recipe nothing"):
        first_calls_s(dict(os.environ))
