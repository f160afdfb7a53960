"""FLOPs, ways of tokens and parameters of a plan against other counts of the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fathom.config.counts import count, flops_per_token, mtp_parts, trunk_parts
from fathom.config.parallel import ParallelConfig
from fathom.config.presets import PRESETS, load_preset
from fathom.plan.memory import held
from fathom.plan.stages import cut
from fathom.plan.traffic import traffic
from fathom.plan.work import Recompute, block, head, mtp
from fathom.schedule import build

V3 = load_preset("v3")


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("seq_len", [128, 4096])
def test_kernels_sum_to_the_models_arithmetic(name: str, seq_len: int) -> None:
    model = load_preset(name)
    moe = model.num_layers - model.dense_layers
    works = model.dense_layers * block(model, seq_len, "report", dense=True)
    works += (moe + model.mtp.depth) * block(model, seq_len, "report", dense=False) + head(model)
    works += model.mtp.depth * mtp(model)
    assert sum(one.counted for one in works) == pytest.approx(flops_per_token(model, seq_len), rel=1e-12)


def test_v3_needs_250_gflop_a_token_and_mtp_10_more() -> None:
    """250 GFLOP: arXiv 2505.09343, table 2, with causal attention at 4,096."""
    alone = replace(V3, mtp=replace(V3.mtp, depth=0))
    assert flops_per_token(alone, 4096) == pytest.approx(250e9, rel=0.02)
    assert flops_per_token(V3, 4096) - flops_per_token(alone, 4096) == pytest.approx(10.2e9, rel=0.005)


def test_what_is_done_again() -> None:
    def again(what: Recompute) -> float:
        works = block(V3, 4096, what, dense=False)
        core = sum(one.inputs - 2.5 * one.forward for one in works if one.attention)
        return core + sum(one.again for one in works)

    forward = sum(one.forward for one in block(V3, 4096, "none", dense=False))
    router = 2.0 * V3.hidden_size * V3.moe.num_experts      # done again it would choose the same
    assert again("none") == 0.0
    assert again("report") == 2.0 * (1536 * 24576 + 512 * 32768)
    assert again("blocks") == pytest.approx(forward - router)


LAYOUTS = [(64, 8), (32, 8), (16, 8), (8, 8), (4, 8), (128, 8), (256, 8), (64, 4)]


@pytest.mark.parametrize(("ep", "per_node"), LAYOUTS)
def test_the_way_of_a_token_is_that_of_drawn_tokens(ep: int, per_node: int) -> None:
    found = traffic(V3, ep, per_node, fp8=True)
    draw, m = np.random.default_rng(0), V3.moe
    size, nodes = m.num_experts // m.num_groups, max(ep // per_node, 1)
    foreign = handed = 0
    for _ in range(4000):
        groups = draw.permutation(m.num_groups)[: m.groups_per_token]
        candidates = (groups[:, None] * size + np.arange(size)).reshape(-1)
        ranks = np.unique(draw.permutation(candidates)[: m.experts_per_token] * ep // m.num_experts)
        home = draw.integers(ep)
        foreign += np.sum(np.unique(ranks // per_node) != home // per_node)
        handed += np.sum(ranks % per_node != home % per_node)
    assert found.nodes == pytest.approx(foreign / 4000, abs=0.05)
    assert found.devices == pytest.approx(handed / 4000, abs=0.12)
    if nodes <= m.num_groups:
        assert found.nodes <= m.groups_per_token * (nodes - 1) / nodes + 1e-12
    assert (found.dispatch, found.combine) == (7168 + 4 * 56, 2 * 7168)


@pytest.mark.parametrize("schedule", ["1f1b", "zb1p", "dualpipe", "dualpipev"])
@pytest.mark.parametrize("pp", [1, 2, 4, 16])
def test_stages_hold_the_whole_network(schedule: str, pp: int) -> None:
    """Every parameter is on as many ranks as the schedule has copies, experts in `ep` parts."""
    if schedule == "dualpipe" and pp == 1:
        return
    mesh = ParallelConfig(pp=pp, ep=64, dp=1, schedule=schedule)
    schedule_ = build(schedule, pp, 2 * pp)
    stages = cut(V3, mesh, 3.5)
    ranks = [[stages[k] for k in schedule_.stages_of(rank)] for rank in range(pp)]
    copies = 2 if schedule == "dualpipe" else 1
    assert sum(one.dense for stages in ranks for one in stages) == copies * V3.dense_layers
    assert sum(one.moe for stages in ranks for one in stages) == copies * (V3.num_layers - V3.dense_layers)
    found = [held(V3, here, mesh.ep) for here in ranks]
    parts = trunk_parts(V3) + mtp_parts(V3)
    routed = sum(p.total for p in parts if p.name == "routed experts")
    small = sum(p.total for p in parts if "norm" in p.name or "bias" in p.name)
    small += V3.moe.num_experts * V3.hidden_size    # MTP's router
    assert sum(one.routed for one in found) * mesh.ep == pytest.approx(copies * routed, rel=1e-12)
    apart = [any(one.last for one in s) and not any(one.first for one in s) for s in ranks]
    tables = sum(apart) * V3.vocab_size * V3.hidden_size    # MTP embeds tokens where the trunk does not
    rest = sum(one.narrow + one.wide for one in found) - tables
    expected = copies * (count(V3).total + count(V3).mtp - routed)
    assert rest == pytest.approx(expected, abs=copies * small)


def test_the_cut_is_the_best_of_whole_layers() -> None:
    """Against all cuts of 10 layers into 4 stages, the last of which has 1.6 layers more to do."""
    model = replace(V3, num_layers=10, dense_layers=1)
    found = cut(model, ParallelConfig(pp=4, schedule="1f1b"), 1.6)

    def fullest(sizes: list[int]) -> float:
        return max(n + 1.6 * (k == 3) for k, n in enumerate(sizes))

    all_ = [[a, b, c, 10 - a - b - c] for a in range(1, 8) for b in range(1, 8) for c in range(1, 8)
            if 10 - a - b - c >= 1]  # fmt: skip
    assert fullest([one.dense + one.moe for one in found]) == min(map(fullest, all_))
    assert [one.first for one in found] == [True, False, False, False] and found[3].last

