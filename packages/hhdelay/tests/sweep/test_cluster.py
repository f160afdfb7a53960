"""A real dask cluster runs the same tiles, also when a worker is killed; what is wrong with one is a line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from hhdelay.config.errors import ConfigError, StepError
from hhdelay.store.tiles import open_store
from hhdelay.sweep import cluster as under_test
from hhdelay.sweep.plan import Sweep
from hhdelay.sweep.run import Told, resume, run_sweep

Make = Callable[..., Sweep]
Files = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes; a dead one is given up after 2 s, not 30."""
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as made,
    ):
        yield made


def pids(cluster: Any) -> dict[str, int]:
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        return dict(client.run(os.getpid))


def test_the_files_are_those_of_one_process_though_a_worker_is_killed(
    cluster: Any, quick: Make, files: Files, tmp_path: Path
) -> None:
    sweep = quick("ei", "motif.delay_ms=1:12:12", settings=("simulation.duration_ms=3000",))
    run_sweep(sweep, tmp_path / "one", workers=1, tile=1)
    before = pids(cluster)
    victim = next(iter(before.values()))
    killed = []

    def kill(told: Told) -> None:
        if told.done == 2:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    address = cluster.scheduler_address
    told = run_sweep(sweep, tmp_path / "two", scheduler=address, tile=1, progress=kill)
    assert len(before) == 2 and killed and told.done == 12
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert victim not in pids(cluster).values()


def test_an_error_of_a_tile_and_a_resume(cluster: Any, quick: Make, files: Files, tmp_path: Path) -> None:
    bad = quick("ei", "neuron.g_Na_mS_cm2=120,12000")
    with pytest.raises(StepError, match="too large. Fix: set simulation.dt_ms to 0.02"):
        run_sweep(bad, tmp_path / "bad", scheduler=cluster.scheduler_address, tile=1)

    def stop(told: Told) -> None:
        if told.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(quick(), tmp_path / "s", scheduler=cluster.scheduler_address, tile=2, progress=stop)
    assert len(open_store(tmp_path / "s").missing()) == 4
    resume(tmp_path / "s", scheduler=cluster.scheduler_address)
    run_sweep(quick(), tmp_path / "one", workers=1, tile=2)
    assert files(tmp_path / "s") == files(tmp_path / "one")


def test_no_scheduler_is_one_line(
    quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "CONNECT_S", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://x", "no address"):
        with pytest.raises(ConfigError, match="no dask scheduler answers at .*Fix: start one") as caught:
            run_sweep(quick(), tmp_path / "s", scheduler=address)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_no_worker_is_one_line(quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "WORKERS_S", 0.2)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty,
        pytest.raises(ConfigError, match="has no worker. Fix: start some with dask worker"),
    ):
        run_sweep(quick(), tmp_path / "s", scheduler=empty.scheduler_address)


def test_no_distributed_is_one_line(
    quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"Fix: pip install 'hhdelay\[cluster\]'"):
        run_sweep(quick(), tmp_path / "s", scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("found", "said"), [("9.9", "has hhdelay 9.9"), (PackageNotFoundError(), "has no hhdelay")]
)
def test_another_version_on_a_worker_is_refused(found: Any, said: str) -> None:
    class Remote:
        def wait_for_workers(self, *_: Any, **__: Any) -> None:
            """They are there."""

        def run(self, *_: Any, **__: Any) -> dict[str, Any]:
            return {"tcp://w:1": found}

    with pytest.raises(ConfigError, match=rf"worker tcp://w:1 {said}, and this is .*Fix: pip install hh"):
        under_test._check_workers(Remote(), "tcp://s:1")
