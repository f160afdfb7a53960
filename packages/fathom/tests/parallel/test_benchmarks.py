"""The pipeline's benchmarks in short: what they run and count, not how long it takes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from fathom.parallel.group import Group
from fathom.parallel.threads import Threads
from fathom.schedule import SCHEDULES, Times, build, place

BENCHMARKS = Path(__file__).parents[4] / "benchmarks"
SHORT = Times().scaled(0.005)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("pipeline", "pipelines", "overlap")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_item_runs_in_the_order_of_the_table(name: str) -> None:
    run = import_module("pipelines.sleeping").run
    schedule = build(name, 4, 8)
    measured = run(schedule, SHORT)
    assert tuple(tuple(placed.item for placed in row) for row in measured.rows) == schedule.orders
    for row in measured.rows:
        assert all(before.end <= after.start for before, after in pairwise(row))
    assert min(row[0].start for row in measured.rows) == 0


def test_only_turns_make_a_pair_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that sleeps exactly: alone passes take the table's times, and turns save 60 of 300."""
    sleeping = import_module("pipelines.sleeping")
    wall = [0.0]
    monkeypatch.setattr(sleeping, "_real", lambda: wall[0])
    monkeypatch.setattr(sleeping.time, "sleep", lambda s: wall.__setitem__(0, wall[0] + 1000 * s))

    def took(*passes: str) -> float:
        rank, began = sleeping.Sleeper(Times()), wall[0]
        running = [
            {"B": lambda: rank.backward(False), "I": lambda: rank.backward(True), "F": rank.forward}[p]()
            for p in passes
        ]
        while running:
            running = [steps for steps in running if next(steps, "end") != "end"]
        return wall[0] - began

    assert [took(p) for p in ("F", "B", "I")] == pytest.approx([100, 200, 100])
    assert took("B", "F") == pytest.approx(240)


def test_a_late_sleep_shortens_the_next_one_unless_time_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping = import_module("pipelines.sleeping")
    wall, late = [0.0], 2.0
    monkeypatch.setattr(sleeping, "_real", lambda: wall[0])
    monkeypatch.setattr(sleeping.time, "sleep", lambda s: wall.__setitem__(0, wall[0] + 1000 * s + late))
    clock = sleeping.Clock()
    clock.until(clock.now() + 10)
    clock.until(clock.now() + 10)
    assert wall[0] == pytest.approx(22)
    wall[0] += 5
    clock.until(clock.now() + 10)
    assert wall[0] == pytest.approx(39)


def test_rows_of_the_pipeline() -> None:
    pipeline = import_module("pipeline")
    run = import_module("pipelines.sleeping").run
    table = place(build("dualpipe", 4, 8), SHORT)
    line = pipeline.figures(table, [run(table.schedule, SHORT)], 0.5)
    assert set(line) >= {"name", "table_ms", "measured_ms", "ratio", "idle_share", "idle_of_1f1b", "pair_ms"}
    assert line["table_ms"] == round(table.makespan, 1)
    assert line["idle_of_1f1b"] == pytest.approx(2 * line["idle_share"], abs=1e-3)
    full = {name: pipeline.planned(name, quick=False).makespan for name in SCHEDULES}
    assert full == {"gpipe": 8100, "1f1b": 8100, "zb1p": 6700, "dualpipe": 5760, "dualpipev": 5800}


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture_has_both_time_lines(tmp_path: Path, ending: str) -> None:
    write = import_module("pipelines.picture").write
    run = import_module("pipelines.sleeping").run
    schedule, path = build("dualpipe", 2, 4), tmp_path / f"both.{ending}"
    if ending == "png":
        pytest.importorskip("PIL")
    write(path, place(schedule, SHORT), run(schedule, SHORT))
    if ending == "svg":
        root = ElementTree.parse(path).getroot()
        inner = root.findall("{http://www.w3.org/2000/svg}svg")
        assert [one.get("aria-label", "").split(":")[0] for one in inner] == [
            "dualpipe, by the table", "dualpipe, measured, ms",
        ]  # fmt: skip
        assert len({one.get("y") for one in inner}) == 2
    else:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_link_sends_one_message_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    link = import_module("pipelines.link")
    now = [100.0]
    monkeypatch.setattr(link.time, "monotonic", lambda: now[0])
    one = link.Link(bytes_per_s=10)
    assert [one.send(20), one.send(5)] == [102, 102.5]
    now[0] = 110.0
    assert one.send(10) == 111
    assert one.bytes_sent == 35


def test_a_slow_group_brings_the_same_and_counts_what_leaves() -> None:
    module = import_module("pipelines.link")

    def work(group: Group) -> tuple[Any, int]:
        link = module.Link(math.inf)
        x_N2 = torch.arange(6.0).view(3, 2) + 10 * group.rank
        sent = ([1, 2], [2, 1])[group.rank]
        came = module.SlowGroup(group, link).all_to_all(x_N2, sent, ([1, 2], [2, 1])[group.rank]).wait()
        return came.tolist(), link.bytes_sent

    (first, left), (second, right) = Threads(2).run(work)
    assert first == [[0, 1], [10, 11], [12, 13]]
    assert second == [[2, 3], [4, 5], [14, 15]]
    assert (left, right) == (16, 16)


def test_paired_and_unpaired_orders_hold_the_same_work() -> None:
    paired = import_module("pipelines.paired")
    pairs, alone = (paired.table(paired=together).orders[0] for together in (True, False))
    assert sorted(op for item in pairs for op in item) == sorted(op for item in alone for op in item)
    assert [len(item) for item in pairs] == [1, *[2] * (paired.WARM_UP + paired.MEASURED), 1]
    assert {len(item) for item in alone} == {1}


def test_hidden_is_a_share_of_what_communication_adds() -> None:
    overlap = import_module("overlap")
    turn = {"compute": 300.0, "serial": 600.0, "unpaired": 540.0, "paired": 330.0, "link": 300.0}
    line = overlap.figures([turn | {"bytes": 1e6, "bytes_per_s": 1e7}], {"layers": 4, "tokens": 8})
    assert (line["hidden"], line["hidden_unpaired"], line["ratio"]) == (0.9, 0.2, 1.0)
    assert line["hidden_of_link"] == 0.9


def test_overlap_on_two_processes() -> None:
    command = [sys.executable, "overlap.py", "--quick", "--json", "--tokens", "32"]
    ran = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    line = json.loads(ran.stdout)
    assert set(line) >= {"name", "compute_ms", "serial_ms", "unpaired_ms", "paired_ms", "hidden", "ratio"}
    assert line["mb_per_pair"] > 0
