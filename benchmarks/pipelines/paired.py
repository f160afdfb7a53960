"""One rank of `overlap.py`: a stage of DeepSeek-V3 whose experts are shared out over two ranks.

    cd benchmarks; python -m pipelines.paired RANK FOLDER OPTIONS

The ranks meet in FOLDER; OPTIONS is JSON: {"layers", "turns", "tokens"}. Rank 0 prints a line of JSON for
every turn. Micro-batches go through the stage forward and back, with random inputs and gradients instead of
neighbours in the pipeline; all passes run in fathom.parallel.executor.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import torch
from pipelines.link import Link, SlowGroup
from torch import Tensor

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.ops.kernels import FastKernels
from fathom.parallel.dispatch import AllToAll
from fathom.parallel.exchange import held
from fathom.parallel.executor import Executor, Steps
from fathom.parallel.group import Alone, Group, barrier
from fathom.parallel.stage import Micro, Stage, Stages, Step, fill
from fathom.schedule.op import Item, Op, Schedule

WARM_UP, MEASURED = 1, 3  # forward passes before the clock starts and after, each with a backward pass
MODES = ("serial", "unpaired", "paired")


def model(layers: int) -> ModelConfig:
    """Three stages, each of so many MoE layers; proportions of attention and experts like V3's."""
    return ModelConfig(
        name="overlap", vocab_size=64, hidden_size=256, num_layers=3 * layers, dense_layers=0,
        max_positions=4096, init_std=0.02, mtp=MTPConfig(depth=0),
        attention=AttentionConfig(
            num_heads=8, q_rank=96, kv_rank=64, nope_head=32, rope_head=16, value_head=32,
        ),
        moe=MoEConfig(
            num_experts=16, experts_per_token=4, num_groups=4, groups_per_token=2, expert_size=192,
        ),
    )  # fmt: skip


class Middle:
    """The stage without its neighbours, as the executor's `Work`: the only stage of its schedule."""

    def __init__(self, stage: Stage, x_BTD: Tensor, dy_BTD: Tensor) -> None:
        self._stage, self._x_BTD, self._dy_BTD = stage, x_BTD, dy_BTD
        self.began: dict[Op, float] = {}

    def forward(self, micro: int, x: Tensor | None) -> Steps:
        """As `Work`; the input is random."""
        self.began[Op("F", 0, micro)] = time.perf_counter()
        return (yield from self._stage.forward(micro, self._x_BTD))

    def backward(self, micro: int, dy: Tensor | None, *, keep: bool) -> Steps:
        """As `Work`; the gradient is random."""
        self.began[Op("B", 0, micro)] = time.perf_counter()
        return (yield from self._stage.backward(micro, self._dy_BTD, keep=keep))

    def weights(self, micro: int) -> None:
        """As `Work`."""
        self._stage.weights(micro)

    def times(self) -> list[float]:
        """Seconds of each forward pass and the backward pass with it, after the warm-up."""
        last = WARM_UP + MEASURED
        starts = [min(self.began[Op("F", 0, n + 1)], self.began[Op("B", 0, n)]) for n in range(WARM_UP, last)]
        return [end - start for start, end in pairwise([*starts, self.began[Op("B", 0, last)]])]


def table(*, paired: bool) -> Schedule:
    """F0, then one forward and one backward pass again and again, then the last backward pass."""
    last = WARM_UP + MEASURED
    order: list[Item] = [(Op("F", 0, 0),)]
    for micro in range(last):
        both = Op("F", 0, micro + 1), Op("B", 0, micro)
        order += [both] if paired else [(op,) for op in both]
    order.append((Op("B", 0, last),))
    return Schedule("pairs", 1, last + 1, ((0,),), (0,) * (last + 1), (tuple(order),))


class Rank:
    """Its part of the stage, and its link."""

    def __init__(self, world: Group, layers: int, tokens: int) -> None:
        self.world, self.link = world, Link()
        config, slow = model(layers), SlowGroup(world, self.link)
        self.stages = Stages(config, 3, [1], FastKernels(), AllToAll(slow))
        fill(self.stages, held(world, config.moe.num_experts), 0)
        generator = torch.Generator().manual_seed(world.rank)
        size = 1, tokens, config.hidden_size
        self.x_BTD, self.dy_BTD = (torch.randn(size, generator=generator) for _ in range(2))
        for parameter in self.stages.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def measure(self, mode: str, bytes_per_s: float) -> dict[str, float]:
        """Milliseconds of a forward and a backward pass, the shortest of those measured on the slower rank.

        And the bytes of both, the mean of ranks.
        """
        self.link.bytes_per_s = bytes_per_s
        self.link.waits_at_once = mode == "serial"
        schedule, work = table(paired=mode == "paired"), self._work()
        barrier(self.world)
        before = self.link.bytes_sent
        Executor(schedule, Alone(), {0: work}, lambda: self.x_BTD).run()
        sent = (self.link.bytes_sent - before) / schedule.micros
        times, sizes = zip(*self.world.gather_objects([work.times(), sent]), strict=True)
        return {"ms": min(map(max, zip(*times, strict=True))) * 1000, "bytes": statistics.mean(sizes)}

    def _work(self) -> Middle:
        B, T, _ = self.x_BTD.shape
        token_BT = torch.zeros(B, T, dtype=torch.int64)
        micro = Micro(token_BT, token_BT, [token_BT], 1.0)
        count = WARM_UP + MEASURED + 1
        step = Step(micros=[micro] * count, targets=1, mtp=0.0, sequence=1e-4, dtype=torch.float32)
        return Middle(Stage(self.stages, 1, 3, step), self.x_BTD, self.dy_BTD)


def turns(world: Group, options: dict[str, Any]) -> None:
    """Every mode once a turn, in another order each time; before and after them computation alone."""
    rank = Rank(world, options["layers"], options["tokens"])
    compute = [rank.measure("compute", inf)["ms"] for _ in range(3)]
    for turn in range(options["turns"]):
        before = rank.measure("compute", inf)
        compute.append(before["ms"])
        bytes_per_s = before["bytes"] / min(compute) * 1000  # as long as computation
        order = MODES[turn % len(MODES) :] + MODES[: turn % len(MODES)]
        found = {mode: rank.measure(mode, bytes_per_s) for mode in order}
        compute.append(rank.measure("compute", inf)["ms"])
        line = {mode: found[mode]["ms"] for mode in MODES}
        line |= {"compute": min(compute[-2:]), "link": before["bytes"] / bytes_per_s * 1000}
        if world.rank == 0:
            print(json.dumps(line | {"bytes": before["bytes"], "bytes_per_s": bytes_per_s}), flush=True)


def main() -> None:
    """Meet, measure, part."""
    from fathom.parallel.processes import join, leave

    rank, folder, options = int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    world = join(rank, 2, torch.device("cpu"), meeting=f"file://{folder / 'store'}", patience_s=120)
    turns(world, options)
    leave(world)
    sys.stdout.flush()
    os._exit(0)  # at once: a thread of the group that lets go of a tensor later would abort


if __name__ == "__main__":
    main()
