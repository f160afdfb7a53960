"""The mesh: every rank has one place, groups are partitions, and neighbours are who should be."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing._internal.distributed.fake_pg import FakeStore

from fathom.config.errors import ConfigError
from fathom.config.load import load_recipe
from fathom.config.parallel import ParallelConfig
from fathom.parallel.group import Alone, Group
from fathom.parallel.mesh import Mesh, Place, make_mesh, parts, place_of, rank_at
from fathom.parallel.processes import device_mesh
from fathom.parallel.threads import Threads

REPORT = load_recipe("v3-2048xh800").recipe.parallel
QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def configs() -> st.SearchStrategy[ParallelConfig]:
    def config(pp: int, dp: int, nodes: int, per_node: int, schedule: str) -> ParallelConfig:
        pp = 2 * pp if schedule == "dualpipe" else pp
        return ParallelConfig(
            pp=pp, dp=dp, ep=nodes * per_node, ranks_per_node=per_node, schedule=schedule
        )

    sizes = st.integers(1, 4)
    return st.builds(config, sizes, sizes, sizes, sizes, st.sampled_from(["1f1b", "dualpipe", "dualpipev"]))


def test_every_one_of_2048_ranks_has_its_own_place() -> None:
    places = [place_of(rank, REPORT) for rank in range(2048)]
    assert len(set(places)) == 2048
    assert [rank_at(place, REPORT) for place in places] == list(range(2048))
    assert places[0] == Place(0, 0, 0) and places[-1] == Place(15, 1, 63)
    assert {place.pp for place in places[:128]} == {0}, "a stage is 128 neighbours"
    assert {(place.pp, place.dp) for place in places[64:128]} == {(0, 1)}, "its second set of experts is 64"


def test_the_groups_of_2048_ranks() -> None:
    """Report section 3.1: 16 stages, EP64 over 8 nodes of 8, two replicas."""
    some = parts(REPORT)
    shapes = {name: (len(of), len(of[0])) for name, of in some.items()}
    assert shapes == {
        "pipeline": (128, 16), "replicas": (1024, 2), "experts": (32, 64), "tokens": (16, 128),
        "within": (256, 8), "across": (256, 8), "mirror": (1024, 2), "ends": (128, 2),
    }  # fmt: skip
    assert all(rank // 8 == ranks[0] // 8 for ranks in some["within"] for rank in ranks), "one machine"
    assert all(len({rank // 8 for rank in ranks}) == 8 for ranks in some["across"]), "eight machines"
    assert all(len({rank % 8 for rank in ranks}) == 1 for ranks in some["across"]), "the same local number"


@QUICK
@given(config=configs())
def test_groups_are_partitions_along_the_mesh(config: ParallelConfig) -> None:
    some, everyone = parts(config), list(range(config.world))
    for name, groups in some.items():
        members = list(chain(*groups))
        assert len(members) == len(set(members)), f"{name}: a rank is in one group only"
        assert all(list(ranks) == sorted(ranks) for ranks in groups)
        if name not in ("mirror", "ends"):
            assert sorted(members) == everyone, f"{name} leaves nobody out"

    def vary(name: str, group: str) -> None:
        for ranks in some[group]:
            places = [place_of(rank, config) for rank in ranks]
            assert [getattr(place, name) for place in places] == list(range(len(ranks))), "rank = index"
            assert len({place._replace(**{name: 0}) for place in places}) == 1, "and nothing else differs"

    vary("pp", "pipeline")
    vary("dp", "replicas")
    vary("ep", "experts")
    assert sorted(chain(*some["mirror"])) == (everyone if config.schedule == "dualpipe" else [])
    for one, other in some["mirror"]:
        a, b = place_of(one, config), place_of(other, config)
        assert a.pp + b.pp == config.pp - 1 and a._replace(pp=b.pp) == b
    for ranks in some["ends"]:
        assert {place_of(rank, config).pp for rank in ranks} == {0, config.pp - 1}


@QUICK
@given(config=configs())
def test_every_pair_of_a_set_of_experts_is_two_hops_apart(config: ParallelConfig) -> None:
    """Across the nodes first, then within one: the only way, and it always exists (report section 3.2.2)."""
    some = parts(config)
    across = {rank: ranks for ranks in some["across"] for rank in ranks}
    within = {rank: ranks for ranks in some["within"] for rank in ranks}
    for experts in some["experts"]:
        for source in experts:
            reached = [to for hop in across[source] for to in within[hop]]
            assert sorted(reached) == list(experts)


def test_ranks_as_threads_form_the_same_groups() -> None:
    config = ParallelConfig(pp=2, dp=1, ep=4, ranks_per_node=2, schedule="dualpipe")

    def work(world: Group) -> dict[str, list[int]]:
        mesh = make_mesh(config, world)
        assert mesh.place == place_of(world.rank, config)
        groups = {name: getattr(mesh, name) for name in parts(config)}
        return {name: group.gather_objects(world.rank) for name, group in groups.items() if group}

    for rank, told in enumerate(Threads(8).run(work)):
        assert told == {name: list(*(p for p in some if rank in p)) for name, some in parts(config).items()}


def test_ranks_in_the_middle_are_at_no_end() -> None:
    def work(world: Group) -> tuple[bool, bool]:
        mesh = make_mesh(ParallelConfig(pp=3), world)
        return mesh.ends is None, mesh.mirror is None

    assert Threads(3).run(work) == [(False, True), (True, True), (False, True)]


def test_one_rank_alone_is_a_mesh() -> None:
    mesh: Mesh = make_mesh(ParallelConfig(), Alone())
    assert mesh.pipeline is mesh.experts is mesh.world and mesh.mirror is None


@pytest.mark.parametrize(
    ("config", "size", "fix"),
    [
        (ParallelConfig(pp=2, dp=3, ep=2), 8, r"set parallel\.dp to 2, or start 12 ranks$"),
        (ParallelConfig(pp=2, dp=1, ep=4), 4, r"set parallel\.ep to 2, or start 8 ranks$"),
        (ParallelConfig(pp=4, dp=1, ep=3), 6, r"set parallel\.pp to 2, or start 12 ranks$"),
        (ParallelConfig(pp=4, dp=2), 7, r"start 8 ranks$"),
        (REPORT, 1024, r"set parallel\.dp to 1, or start 2048 ranks$"),
    ],
)
def test_a_mesh_of_another_size_names_the_number_to_change(
    config: ParallelConfig, size: int, fix: str
) -> None:
    world = Alone()
    world.size = size
    with pytest.raises(ConfigError, match=rf"is {config.world} ranks, but {size} started\. Fix: {fix}"):
        make_mesh(config, world)


@pytest.mark.parametrize("rank", [0, 777, 2047])
def test_torchs_mesh_of_the_recipe_agrees(rank: int) -> None:
    """All 2048 ranks, by torch's backend that sends nothing."""
    dist.init_process_group("fake", rank=rank, world_size=2048, store=FakeStore())
    try:
        mesh = device_mesh(REPORT, "cpu")
        assert tuple(mesh.get_coordinate() or ()) == place_of(rank, REPORT)
        where = {tuple(place): r for r, place in enumerate(torch.nonzero(mesh.mesh >= 0).tolist())}
        assert all(int(mesh.mesh[place]) == rank_at(Place(*place), REPORT) for place in where)
        for name, group in (("pp", "pipeline"), ("dp", "replicas"), ("ep", "experts")):
            own = [ranks for ranks in parts(REPORT)[group] if rank in ranks]
            assert [tuple(dist.get_process_group_ranks(mesh.get_group(name)))] == own
    finally:
        dist.destroy_process_group()
