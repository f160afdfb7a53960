"""The report's run on 2,048 ranks, as far as it can be built without them: mesh, tables, networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from fathom.config.load import load_recipe
from fathom.config.parallel import count_micros, whole_batch
from fathom.ops.kernels import FastKernels
from fathom.parallel.dispatch import AllToAll
from fathom.parallel.mesh import parts, place_of
from fathom.parallel.stage import Stages
from fathom.schedule import check
from fathom.schedule.build import build
from fathom.schedule.dualpipe import dualpipe_steps
from fathom.train.schedule import batch_rows

RECIPE = load_recipe("v3-2048xh800").recipe
TOTAL, MTP = 671_026_419_200, 11_610_068_224  # elements, as `fathom params v3` counts them
BIASES = 59 * 256  # of them, which are no parameters


class Numbered:
    """A group that has nobody to talk to yet."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def subgroup(self, ranks: Sequence[int]) -> Numbered | None:
        """The place in it."""
        return Numbered(list(ranks).index(self.rank), len(ranks)) if self.rank in ranks else None


def test_the_mesh_has_every_rank_once_in_each_kind_of_group():
    parallel = RECIPE.parallel
    assert parallel.world == 2048 and parallel.nodes == 8
    sizes = {"pipeline": 16, "experts": 64, "replicas": 2, "tokens": 128}
    sizes |= {"within": 8, "across": 8, "mirror": 2}
    for name, size in sizes.items():
        ranks = [rank for part in parts(parallel)[name] for rank in part]
        assert sorted(ranks) == list(range(2048)), name
        assert {len(part) for part in parts(parallel)[name]} == {size}, name


def test_the_table_is_sound_from_the_first_batch_to_the_last():
    parallel, train = RECIPE.parallel, RECIPE.train
    seen = set()
    for progress in (0.0, 0.01, 0.5, 1.0):
        rows = whole_batch(parallel, train, batch_rows(train, progress))
        seen.add(count_micros(parallel, train, rows))
    assert min(seen) == 32 and max(seen) == 120
    for micros in (32, 120):
        check.check(build("dualpipe", 16, micros))
    assert list(dualpipe_steps(16, 120, 0)) == [14, 1, 7, 45, 7, 1, 7, 1]


@pytest.fixture(scope="module")
def networks() -> dict[int, Stages]:
    """What the ranks of the first experts' block hold, by pipeline rank."""
    parallel, table = RECIPE.parallel, build("dualpipe", 16, 32)
    made = {}
    for pp in range(16):
        dispatch = AllToAll(Numbered(0, 64), ranks_per_node=8)
        with torch.device("meta"):
            made[pp] = Stages(RECIPE.model, parallel.stages, table.stages_of(pp), FastKernels(), dispatch)
    return made


def test_the_ranks_hold_the_whole_network_and_dualpipe_twice(networks):
    """Every dense parameter on two pipeline ranks; of experts a 64th on each."""
    held: Counter[str] = Counter()
    size: dict[str, int] = {}
    for network in networks.values():
        for name, parameter in network.named_parameters():
            held[name] += 1
            size[name] = parameter.numel() * (64 if ".ffn.experts." in name else 1)
    assert set(held.values()) == {2}
    assert sum(size.values()) == TOTAL + MTP - BIASES
    assert {place_of(rank, RECIPE.parallel).ep for rank in range(64)} == set(range(64))


def test_embedding_head_and_mtp_are_on_one_rank(networks):
    for pp, network in networks.items():
        names = {name.split(".")[0] for name, _ in network.named_parameters()}
        assert ({"embed", "head", "mtp", "norm"} <= names) == (pp in (0, 15))
        assert not network.tied, "nobody sums the embedding's gradient with another pipeline rank's"


def test_a_rank_holds_four_layers_and_four_experts_of_each_a_stage(networks):
    layers = [len(part) for network in networks.values() for part in network.layers_of.values()]
    assert set(layers) == {3, 4} and sum(layers) == 2 * 61
    stacks = [p for name, p in networks[3].named_parameters() if name.endswith("experts.gate")]
    assert stacks and {len(stack) for stack in stacks} == {4}
