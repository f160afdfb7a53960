"""Whole sweeps on this machine: the same files whoever runs them, and nothing lost when something dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest

from hhdelay.config.errors import ConfigError, HHDelayError, StepError
from hhdelay.store.read import open_sweep
from hhdelay.store.schema import VARIABLES
from hhdelay.store.tiles import open_store
from hhdelay.sweep.axes import Axis
from hhdelay.sweep.local import run_local
from hhdelay.sweep.plan import Sweep
from hhdelay.sweep.run import Told, resume, run_sweep

Make = Callable[..., Sweep]
Files = Callable[[Path], dict[str, bytes]]


def bits(path: Path) -> dict[str, bytes]:
    data = open_sweep(path)
    return {name: data[name].values.tobytes() for name in VARIABLES}


def test_workers_and_tilings_leave_the_bits_alone(quick: Make, files: Files, tmp_path: Path) -> None:
    sweep, told = quick(), list[Told]()
    run_sweep(sweep, tmp_path / "one", workers=1, tile=2, progress=told.append)
    run_sweep(sweep, tmp_path / "two", workers=2, tile=2)
    run_sweep(sweep, tmp_path / "whole", workers=1, tile=12)
    run_sweep(sweep, tmp_path / "fives", workers=1, tile=5)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert bits(tmp_path / "one") == bits(tmp_path / "whole") == bits(tmp_path / "fives")
    assert [one.done for one in told] == list(range(7)) and told[-1].total == 6
    assert not list(tmp_path.glob("*/**/*.partial")) and not list(tmp_path.glob(".*"))


def test_a_dataset_says_what_it_holds(quick: Make, tmp_path: Path) -> None:
    run_sweep(quick(), tmp_path / "s", workers=1)
    data = open_sweep(tmp_path / "s")
    assert data["R"].dims == ("delay_ms", "g_mS_cm2") and list(data.data_vars) == list(VARIABLES)
    assert data["replica_R"].dims[-1] == "replica" and data["histogram"].dims[-1] == "bin"
    assert data["delay_ms"].values.tolist() == [0.0, 4.0, 8.0]
    assert data["delay_ms"].attrs["setting"] == "motif.delay_ms" and data["delay_ms"].attrs["units"] == "ms"
    assert data["mean_ms"].attrs["units"] == "ms" and data["R"].attrs["long_name"]
    assert data.attrs["engine"] == "numba" and "[motif]" in data.attrs["recipe"]
    assert list(open_sweep(tmp_path / "s", only=("R",)).data_vars) == ["R"]


def test_one_axis_and_an_axis_of_neurons_and_one_of_several_settings(quick: Make, tmp_path: Path) -> None:
    run_sweep(quick("ei", "motif.neurons=2,4,10"), tmp_path / "n", workers=1)
    data = open_sweep(tmp_path / "n")
    assert data["R"].dims == ("neurons",) and data["neurons"].values.tolist() == [2, 4, 10]
    assert (data["spikes"].values > 0).all()
    several = Axis(name="setting", settings=("motif.delay_ms", "noise.law"),
                   values=((2, "gaussian"), (2, "triangular"), (3, "gaussian")))  # fmt: skip
    run_sweep(replace(quick(), axes=(several,)), tmp_path / "s", workers=1)
    data = open_sweep(tmp_path / "s")
    assert data["setting"].values.tolist() == [0, 1, 2] and len(set(data["mean_ms"].values.tolist())) == 3
    assert "motif.delay_ms=2.0 noise.law=triangular" in data["setting"].attrs["points"]


def test_what_is_there_is_kept_and_the_rest_is_run(quick: Make, files: Files, tmp_path: Path) -> None:
    sweep = quick()
    run_sweep(sweep, tmp_path / "whole", workers=1, tile=2)

    def stop(told: Told) -> None:
        if told.done == 2:
            raise KeyboardInterrupt

    for workers in (1, 2):
        part = tmp_path / f"part{workers}"
        with pytest.raises(KeyboardInterrupt):
            run_sweep(sweep, part, workers=workers, tile=2, progress=stop)
        assert len(open_store(part).missing()) == 4
        data = open_sweep(part)
        assert int(data["R_low"].notnull().sum()) <= 4 and int((data["spikes"] > 0).sum()) == 4
        told = resume(part, workers=1)
        assert told.done == 6 and files(part) == files(tmp_path / "whole")
        again = resume(part)
        assert (again.done, again.neuron_steps) == (6, 0.0)
        assert run_sweep(sweep, part, tile=5).neuron_steps == 0.0, "the tiles are those of the store"
    assert not active_children()


def test_another_sweep_is_refused_and_nothing_is_touched(quick: Make, files: Files, tmp_path: Path) -> None:
    run_sweep(quick(), tmp_path / "s", workers=1)
    before = files(tmp_path / "s")
    for other, what in {
        "seed is 1 there, 2 here": quick(settings=("simulation.seed=2",)),
        "the axes differ": quick("ei", "motif.delay_ms=0:8:4"),
        "persistence is true there, false here": quick(persistence=False),
        "engine is numba there, reference here": replace(quick(), engine="reference"),
    }.items():
        with pytest.raises(ConfigError, match=f"s holds another sweep: .*{other}.*Fix: give another --out"):
            run_sweep(what, tmp_path / "s")
    assert files(tmp_path / "s") == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_too_large_ends_the_sweep(workers: int, quick: Make, tmp_path: Path) -> None:
    sweep = quick("ei", "neuron.g_Na_mS_cm2=120,121,122,12000")
    with pytest.raises(StepError, match=r"dt_ms=0.05 is too large. Fix: set simulation.dt_ms to 0.02"):
        run_sweep(sweep, tmp_path / "s", workers=workers, tile=1)
    assert 3 in open_store(tmp_path / "s").missing()
    assert workers > 1 or open_store(tmp_path / "s").missing() == [3]
    bad = quick("ei", "neuron.g_Na_mS_cm2=12000")
    with pytest.raises(StepError):
        run_sweep(bad, tmp_path / "bad", workers=1)
    assert not (tmp_path / "bad").exists(), "the corrected sweep may have the name"
    assert not active_children()


def test_a_worker_that_dies_is_replaced(quick: Make, files: Files, tmp_path: Path) -> None:
    sweep = quick(settings=("simulation.duration_ms=1000",))
    run_sweep(sweep, tmp_path / "whole", workers=1, tile=2)
    killed = []

    def kill_one(told: Told) -> None:
        if told.done == 1:
            victim = active_children()[0]
            victim.kill()
            killed.append(victim.pid)

    run_sweep(sweep, tmp_path / "s", workers=2, tile=2, progress=kill_one)
    assert killed and files(tmp_path / "s") == files(tmp_path / "whole")


def test_workers_that_always_die_are_one_line(quick: Make, tmp_path: Path) -> None:
    over = threading.Event()

    def kill_all() -> None:
        while not over.is_set():
            for child in active_children():
                child.kill()
            time.sleep(0.02)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(HHDelayError, match="process died 3 times with tile 0. Fix: lower --workers"):
            run_sweep(quick(), tmp_path / "s", workers=2, tile=2)
    finally:
        over.set()
        killer.join()


def test_a_fault_of_the_program_comes_back_from_a_worker(quick: Make) -> None:
    tile = quick().tile((slice(0, 1), slice(0, 1)))
    with pytest.raises(RuntimeError, match="in a worker process:\n(.*\n)*.*ValueError: cannot reshape"):
        list(run_local([0, 1], lambda _: replace(tile, shape=(1, 0)), 2))
    assert not active_children()


def test_workers_are_at_least_one_and_not_of_a_cluster(quick: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--workers 0 is below 1. Fix: "):
        run_sweep(quick(), tmp_path / "s", workers=0)
    with pytest.raises(ConfigError, match="--workers and --scheduler are given. Fix: "):
        run_sweep(quick(), tmp_path / "s", workers=2, scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "s").exists()
