"""Real processes: the mesh they form, errors that all see at once, and ranks that die or fall silent."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fathom.config.errors import ConfigError, DataError, FathomError
from fathom.config.parallel import ParallelConfig
from fathom.parallel.agree import agree, together
from fathom.parallel.group import RankFailedError
from fathom.parallel.mesh import make_mesh, parts
from fathom.parallel.processes import Processes, device_mesh, join

CONFIG = ParallelConfig(pp=2, ep=2, schedule="dualpipe", ranks_per_node=1)
DEAD = 3


def said_by(function: Any) -> list[str]:
    """The kind and the text of the error that a call raises."""
    try:
        function()
    except FathomError as error:
        return [type(error).__name__, str(error)]
    return []


def groups_of_the_mesh(world: Processes) -> dict[str, list[int]]:
    """Each group's ranks, as its members tell each other."""
    mesh = make_mesh(CONFIG, world)
    groups = {name: getattr(mesh, name) for name in parts(CONFIG)}
    return {name: group.gather_objects(world.rank) for name, group in groups.items() if group is not None}


def hasty(world: Processes) -> Processes:
    """The same ranks with little patience."""
    link = world.link._replace(patience=timedelta(seconds=2))
    group = Processes(link, "hasty", world.members, world._backend).subgroup(range(world.size))
    assert group is not None
    return group


def life_and_death(world: Processes) -> dict[str, Any]:
    told: dict[str, Any] = {"groups": groups_of_the_mesh(world)}
    torch_mesh = device_mesh(CONFIG, "cpu")
    told["place"] = [torch_mesh.get_local_rank(name) for name in ("pp", "dp", "ep")]
    told["same"] = said_by(lambda: agree(world, {"code": "a"}))
    told["differ"] = said_by(lambda: agree(world, {"code": "a" if world.rank != 2 else "b"}))

    def read() -> int:
        if world.rank == 1:
            raise DataError("no corpus in data. Fix: build it")
        return world.rank

    told["missing"] = said_by(lambda: together(world, read))
    patience = hasty(world)
    if world.rank == 0:
        told["silent"] = said_by(lambda: patience.receive(torch.zeros(1), 1, 0).wait())
    world.gather_objects("all are still there")
    if world.rank == DEAD:
        os._exit(17)
    told["dead"] = said_by(lambda: world.all_to_all(torch.ones(4), [1] * 4, [1] * 4).wait())
    return told


@pytest.fixture(scope="module")
def outcomes(spawn: Any) -> list[Any]:
    ended: list[Any] = spawn(life_and_death, 4)
    told = [f"rank {rank}, {o.status}: {o.errors}" for rank, o in enumerate(ended)]
    assert all(o.value is not None for o in ended[:DEAD]), "\n".join(told)
    return ended


def test_the_groups_of_the_mesh_are_its_parts(outcomes: list[Any]) -> None:
    for rank, outcome in enumerate(outcomes[:DEAD]):
        want = {name: [list(p) for p in some if rank in p] for name, some in parts(CONFIG).items()}
        assert outcome.value["groups"] == {name: some[0] for name, some in want.items() if some}


def test_torchs_own_mesh_has_every_rank_in_the_same_place(outcomes: list[Any]) -> None:
    assert [o.value["place"] for o in outcomes[:DEAD]] == [[0, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_all_see_the_same_error(outcomes: list[Any]) -> None:
    """One line that names the rank; nobody is left waiting."""
    told = [outcome.value for outcome in outcomes[:DEAD]]
    assert all(one["same"] == [] for one in told)
    kind, text = told[0]["differ"]
    assert kind == "ConfigError" and "rank 2 has 'b'" in text and "\n" not in text
    assert told[0]["missing"] == ["DataError", "on rank 1: no corpus in data. Fix: build it"]
    for name in ("differ", "missing"):
        assert all(one[name] == told[0][name] for one in told)


def test_a_silent_rank_is_not_waited_for_for_ever(outcomes: list[Any]) -> None:
    kind, text = outcomes[0].value["silent"]
    assert kind == "RankFailedError" and "imed out" in text
    assert text.startswith("rank 0 of 4 waited for a rank that is gone or silent")


def test_a_dead_rank_fails_the_others_at_once(outcomes: list[Any]) -> None:
    """Not when their patience ends; and each ends with an error itself."""
    assert [outcome.status for outcome in outcomes] == [1, 1, 1, 17]
    for outcome in outcomes[:DEAD]:
        kind, text = outcome.value["dead"]
        assert kind == "RankFailedError" and "Fix: look for the rank" in text and "\n" not in text
        assert "imed out" not in text


def fails(world: Processes) -> None:
    if world.rank == 1:
        raise ValueError("a fault of rank 1")
    world.all_reduce(torch.ones(1)).wait()


def test_the_harness_tells_which_rank_failed(spawn: Any) -> None:
    """A fault in the program of one rank ends the other one too."""
    ended = spawn(fails, 2)
    assert [outcome.status for outcome in ended] == [1, 1]
    assert "a fault of rank 1" in ended[1].errors and "RankFailedError" in ended[0].errors


CPU = torch.device("cpu")


def test_who_cannot_join_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = f"file://{tmp_path / 'store'}"
    with pytest.raises(ConfigError, match=r"backend=nccl .* cpu\. Fix: set parallel\.backend to auto$"):
        join(0, 2, CPU, meeting=meeting, backend="nccl")
    with pytest.raises(ConfigError, match=r"rank 2 is none of 2 ranks\. Fix: "):
        join(2, 2, CPU, meeting=meeting)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"cannot meet at env:// .*MASTER_ADDR.* Fix: .* torchrun$"):
        join(0, 2, CPU)
    assert not dist.is_initialized()


def test_a_rank_that_never_comes_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match=r"rank 0 of 2 waited for a rank that is gone or silent"):
        join(0, 2, CPU, meeting=f"file://{tmp_path / 'store'}", patience_s=1.0)
    assert not dist.is_initialized()
