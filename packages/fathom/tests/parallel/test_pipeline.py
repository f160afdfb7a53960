"""A step on many ranks is the step of one: losses, loads, gradients and their norm, by any schedule and mesh.

The network has dense and MoE layers, two MTP modules and balance; rows have padding and two documents. Ranks
are threads for most meshes, and processes for some of 2, 4 and 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
import torch
from torch import Tensor

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.config.parallel import ParallelConfig
from fathom.data.batch import Batch
from fathom.model.router import Router
from fathom.model.transformer import Transformer
from fathom.ops.kernels import FastKernels, Kernels, PlainKernels
from fathom.parallel.group import Group
from fathom.parallel.mesh import make_mesh
from fathom.parallel.stage import fill, mine
from fathom.parallel.threads import Threads
from fathom.train.gradients import collect_gradients
from fathom.train.pipeline import Pipeline
from fathom.train.step import Weights, backward

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, num_layers=5, dense_layers=1, dense_size=48, init_std=0.2,
    attention=AttentionConfig(num_heads=2, q_rank=12, kv_rank=8, nope_head=8, rope_head=4, value_head=8),
    moe=MoEConfig(num_experts=8, num_groups=4, groups_per_token=2, experts_per_token=3, expert_size=16),
    mtp=MTPConfig(depth=2),
)  # fmt: skip
WEIGHTS = Weights(mtp=0.3, sequence=1e-2)
MESHES: dict[str, dict[str, Any]] = {
    "experts": {"ep": 2},
    "experts, two nodes": {"ep": 4, "ranks_per_node": 2},
    "replicas": {"dp": 2},
    "gpipe": {"pp": 2, "schedule": "gpipe"},
    "1f1b": {"pp": 4},
    "zb1p": {"pp": 4, "schedule": "zb1p"},
    "dualpipe": {"pp": 2, "schedule": "dualpipe"},
    "dualpipe of 4": {"pp": 4, "schedule": "dualpipe"},
    "dualpipev": {"pp": 2, "schedule": "dualpipev"},
    "dualpipe, experts": {"pp": 2, "ep": 2, "schedule": "dualpipe"},
}
EVERYTHING = {"pp": 2, "dp": 2, "ep": 2, "schedule": "dualpipe"}
KERNELS: dict[str, Callable[[], Kernels]] = {"fast": FastKernels, "plain": PlainKernels}


def batch_of(rows: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    token_BT1 = torch.randint(64, (rows, 13), generator=generator)
    segment_BT1 = torch.zeros_like(token_BT1)
    segment_BT1[3, 9:] = -1  # padding
    segment_BT1[5, 6:] = 1  # a second document
    return Batch(token_BT1, segment_BT1)


def skew(model: torch.nn.Module) -> None:
    """Biases that starve one expert altogether and crowd another: uneven loads, an expert with nothing."""
    for module in model.modules():
        if isinstance(module, Router):
            module.bias[2], module.bias[5] = -10.0, 2.0


Found = dict[str, Any]


def compare(world: Group, mesh: dict[str, Any], kernels: str, dtype: torch.dtype, **more: Any) -> Found:
    """How far this rank is from one process that does everything, as shares of the largest values."""
    skewed, rows = more.pop("skewed", False), more.pop("rows", 16)
    micro, masked = more.pop("micro_rows", 1), more.get("mask_documents", False)
    config = more.pop("config", CONFIG)
    parallel = ParallelConfig(**mesh)
    whole = Transformer(config, kernels=KERNELS[kernels](), seed=3).to(dtype)
    pipeline = Pipeline(config, parallel, make_mesh(parallel, world), KERNELS[kernels]())
    fill(pipeline.model, pipeline.experts, seed=3)
    pipeline.model.to(dtype)
    if skewed:
        skew(whole)
        skew(pipeline.model)
    for _ in range(2):  # the second step adds nothing of the first
        whole.zero_grad()
        pipeline.model.zero_grad()
        truth = backward(whole, batch_of(rows), WEIGHTS, dtype=dtype, mask_documents=masked)
        losses = pipeline.backward(batch_of(rows), WEIGHTS, micro_rows=micro, dtype=dtype, **more)
    grads = collect_gradients(pipeline.model)
    wanted = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
    largest = max(float(g.abs().max()) for g in wanted.values())
    norm = torch.sqrt(sum((g.double().square().sum() for g in wanted.values()), torch.zeros(())))
    apart = [(mine(name, wanted[name], pipeline.experts) - g).abs().max() for name, g in grads.items()]
    return {
        "gradients": float(torch.stack(apart).max()) / largest,
        "losses": max(abs(a - b) for a, b in zip(losses[:3], truth[:3], strict=True)),
        "norm": float((pipeline.sharing.norm(grads) - norm).abs() / norm),
        "loads": torch.equal(losses.count_LE, truth.count_LE) and losses.tokens == truth.tokens,
        "starved": int((losses.count_LE == 0).sum()),
        "bits": {name: _bits(g) for name, g in grads.items()},
        "place": list(pipeline.mesh.place),
    }


def _bits(x: Tensor) -> str:
    return sha256(x.contiguous().numpy().tobytes()).hexdigest()[:16]


def agrees(results: list[Found], within: float) -> None:
    for rank, found in enumerate(results):
        assert found["loads"], f"rank {rank} counts other loads"
        for what in ("gradients", "losses", "norm"):
            assert found[what] < within, f"rank {rank}: {what} are {found[what]} apart"


def copies_have_the_same_bits(results: list[Found]) -> int:
    """Every parameter that two ranks hold has one gradient; how many there are that two hold."""
    seen: dict[tuple[str, int], set[str]] = {}
    held: dict[tuple[str, int], int] = {}
    for found in results:
        for name, bits in found["bits"].items():
            key = name, found["place"][2] if ".experts." in name else 0
            seen.setdefault(key, set()).add(bits)
            held[key] = held.get(key, 0) + 1
    assert all(len(bits) == 1 for bits in seen.values()), [k for k, bits in seen.items() if len(bits) > 1]
    return sum(count > 1 for count in held.values())


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", MESHES)
def test_in_float64_every_mesh_agrees_with_one_rank(name, kernels):
    mesh = MESHES[name]
    world = ParallelConfig(**mesh).world
    results = Threads(world).run(lambda group: compare(group, mesh, kernels, torch.float64))
    agrees(results, 1e-10)
    shared = copies_have_the_same_bits(results)
    assert shared > 10 or name in ("gpipe", "1f1b", "zb1p", "dualpipev"), "these meshes hold things twice"


@pytest.mark.parametrize("kernels", KERNELS)
def test_everything_together_agrees_with_an_expert_that_gets_nothing(kernels):
    def rank(group: Group) -> Found:
        return compare(group, EVERYTHING, kernels, torch.float64, skewed=True)

    results = Threads(8).run(rank)
    agrees(results, 1e-10)
    assert copies_have_the_same_bits(results) > 10
    assert min(found["starved"] for found in results) >= 6, "an expert of every layer has no token"


SETTINGS = ({"recompute": True}, {"mask_documents": True}, {"micro_rows": 2, "rows": 32}, {"rows": 24})


@pytest.mark.parametrize("more", SETTINGS, ids=str)
def test_settings_of_a_step_change_nothing(more):
    mesh = MESHES["dualpipe, experts"]
    agrees(Threads(4).run(lambda group: compare(group, mesh, "fast", torch.float64, **more)), 1e-10)


OTHERS: dict[str, ModelConfig] = {
    "softmax": replace(CONFIG, moe=replace(CONFIG.moe, score="softmax")),
    "no MTP": replace(CONFIG, mtp=MTPConfig(depth=0)),
    "plain queries": replace(CONFIG, attention=replace(CONFIG.attention, q_rank=0)),
    "nothing shared": replace(CONFIG, moe=replace(CONFIG.moe, num_shared=0)),
    "a stage without experts": replace(CONFIG, dense_layers=3),
    "no experts": replace(CONFIG, dense_layers=5, mtp=MTPConfig(depth=0)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_agree_too(name):
    mesh = {"pp": 2, "dp": 2, "schedule": "zb1p"} if name == "no experts" else MESHES["dualpipe, experts"]
    results = Threads(4).run(lambda g: compare(g, mesh, "fast", torch.float64, config=OTHERS[name]))
    agrees(results, 1e-10)


def test_in_fp32_grouped_products_agree_to_the_fifth_digit():
    mesh = MESHES["dualpipe, experts"]
    agrees(Threads(4).run(lambda group: compare(group, mesh, "plain", torch.float32)), 1e-5)


def two(world: Any) -> list[Found]:
    names = ("experts", "gpipe", "dualpipe", "dualpipev")
    return [compare(world, MESHES[name], "fast", torch.float64) for name in names]


def two_in_fp32(world: Any) -> list[Found]:
    return [compare(world, MESHES[name], "plain", torch.float32) for name in ("experts", "dualpipe")]


def four(world: Any) -> list[Found]:
    names = ("experts, two nodes", "1f1b", "zb1p", "dualpipe, experts")
    return [compare(world, MESHES[name], "fast", torch.float64) for name in names]


def eight(world: Any) -> list[Found]:
    return [compare(world, EVERYTHING, "fast", torch.float64, skewed=True)]


WORLDS = ((two, 2, 1e-10), (two_in_fp32, 2, 1e-5), (four, 4, 1e-10), (eight, 8, 1e-10))


@pytest.mark.parametrize(("function", "size", "within"), WORLDS)
def test_processes_agree_with_one_rank(function, size, within, on_processes):
    for case in zip(*on_processes(function, size), strict=True):
        agrees(list(case), within)
        copies_have_the_same_bits(list(case))


def test_the_comparison_can_fail():
    """Another network is found out."""

    def rank(group: Group) -> Found:
        parallel = ParallelConfig(ep=2)
        pipeline = Pipeline(CONFIG, parallel, make_mesh(parallel, group), FastKernels())
        fill(pipeline.model, pipeline.experts, seed=4)  # another network
        pipeline.model.double()
        truth = Transformer(CONFIG, seed=3).double()
        wanted = backward(truth, batch_of(16), WEIGHTS)
        found = pipeline.backward(batch_of(16), WEIGHTS, dtype=torch.float64)
        return {"apart": abs(found.main - wanted.main)}

    assert all(found["apart"] > 1e-3 for found in Threads(2).run(rank))
