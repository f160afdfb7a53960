"""`fathom plan train`: how long a run takes, what it costs, and whether it fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any, NamedTuple

from fathom.config.counts import flops_per_token
from fathom.config.errors import need
from fathom.config.footprint import BF16, FP32
from fathom.config.model import ModelConfig
from fathom.config.parallel import micro_rows
from fathom.config.recipe import Recipe
from fathom.plan.cluster import Cluster
from fathom.plan.memory import Share, held, memory, stored
from fathom.plan.published import PUBLISHED
from fathom.plan.stages import Stage, cut
from fathom.plan.times import Seconds, computing, sending
from fathom.plan.traffic import Traffic, traffic
from fathom.plan.work import Recompute, Work, block, head, mtp
from fathom.schedule import Times, build, place
from fathom.schedule.figures import peak_held, weight_copies
from fathom.schedule.place import Timeline

HOUR, DAY, TRILLION, GIB = 3600.0, 86400.0, 1e12, 2.0**30
PAIRED = ("dualpipe", "dualpipev")


class Rung(NamedTuple):
    """A step of the ladder from a steady pipeline to a run: tokens a second of each device, and why."""

    name: str
    rate: float
    why: str


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What `plan_train` finds. Times in seconds."""

    recipe: Recipe
    cluster: Cluster
    tokens: float
    fp8: bool
    traffic: Traffic
    layer: Seconds          # a MoE layer
    slowest: Seconds        # the mean stage of the fullest rank
    timeline: Timeline
    update_s: float         # gradients and weights across replicas
    micro_batches: int
    memory: list[Share]     # of the fullest device
    ladder: list[Rung]

    @property
    def step_s(self) -> float:
        """One step."""
        return self.timeline.makespan + self.update_s

    @property
    def rate(self) -> float:
        """Tokens a second of one device."""
        train = self.recipe.train
        return train.batch_size * train.seq_len / self.step_s / self.cluster.devices

    def figures(self) -> dict[str, Any]:
        """For JSON; GPU-hours, dollars and energy are those of all devices together."""
        model, train, cluster = self.recipe.model, self.recipe.train, self.cluster
        trunk = flops_per_token(_without_mtp(model), train.seq_len)
        hours = self.tokens / self.rate / HOUR
        held_ = sum(one.bytes for one in self.memory)
        return {
            "model": model.name, "cluster": f"{cluster.name} x {cluster.devices}", "tokens": self.tokens,
            "precision": "fp8" if self.fp8 else "bf16",
            "gpu_hours": hours, "gpu_hours_per_trillion_tokens": hours * TRILLION / self.tokens,
            "usd": hours * cluster.usd_per_hour, "days": hours / cluster.devices * HOUR / DAY,
            "mwh": hours * cluster.watts / 1e6,
            "tokens_per_s_per_gpu": self.rate, "tokens_per_day": self.rate * cluster.devices * DAY,
            "step_s": self.step_s, "micro_batches": self.micro_batches,
            "gflop_per_token": trunk / 1e9,
            "mtp_gflop_per_token": (flops_per_token(model, train.seq_len) - trunk) / 1e9,
            "mfu": self.rate * trunk / cluster.bf16_flops,
            "bubble_share": max(self.timeline.bubbles) / self.timeline.makespan,
            "memory_gib_per_gpu": held_ / GIB, "fits": held_ <= cluster.memory_bytes,
            "ib_bytes_per_token": 2 * self.traffic.nodes * (self.traffic.dispatch + self.traffic.combine) * (
                model.num_layers - model.dense_layers),
        }  # fmt: skip


def _without_mtp(model: ModelConfig) -> ModelConfig:
    return replace(model, mtp=replace(model.mtp, depth=0))


def plan_train(
    recipe: Recipe, cluster: Cluster, tokens: float, recompute: Recompute = "report"
) -> TrainPlan:
    """Price a run.

    raises    ConfigError where the layout is not that of the cluster or the batch does not divide
    """
    model, train, mesh = recipe.model, recipe.train, recipe.parallel
    need(mesh.world == cluster.devices,
         f"parallel.pp x dp x ep = {mesh.pp} x {mesh.dp} x {mesh.ep} are not {cluster.devices} devices",
         fix=_fitting(cluster.devices, mesh.pp * mesh.ep))  # fmt: skip
    need(1 <= tokens < inf, f"{tokens:g} tokens are no run", fix="give --tokens, as 14.8T")
    inside = mesh.ep <= cluster.per_node or mesh.ep % cluster.per_node == 0
    need(inside, f"parallel.ep={mesh.ep} does not fill nodes of {cluster.per_node} devices",
         fix=f"set parallel.ep to a multiple of {cluster.per_node}")  # fmt: skip
    train = replace(train, micro_batch=micro_rows(mesh, train, train.batch_size))
    recipe = replace(recipe, train=train)
    each = train.micro_batch * mesh.token_ranks
    need(train.batch_size % each == 0, f"train.batch_size={train.batch_size} is no multiple of {each} rows",
         fix=f"set train.batch_size to {-(-train.batch_size // each) * each}")  # fmt: skip
    micros, own, fp8 = train.batch_size // each, train.micro_batch * train.seq_len, train.precision == "fp8"
    costs = _Costs(recipe, cluster, recompute)
    extra = costs.extra.computing / costs.moe.computing
    stages = cut(model, mesh, extra)
    schedule = build(mesh.schedule, mesh.pp, micros)
    ranks = [[stages[k] for k in schedule.stages_of(rank)] for rank in range(mesh.pp)]
    steady = _steady(mesh.schedule, cluster)
    slowest = max((costs.of(stages) for stages in ranks), key=steady)
    transfer = own * model.hidden_size * BF16 / cluster.ib_bytes_per_s
    timeline = place(schedule, _times(slowest, cluster, transfer))
    peaks = peak_held(schedule, [own * stored(model, one, recompute, fp8=fp8) for one in stages])
    shares = max((memory(recipe, here, peak) for here, peak in zip(ranks, peaks, strict=True)),
                 key=lambda found: sum(one.bytes for one in found))  # fmt: skip
    copies = weight_copies(schedule)
    update_s = max(_update(model, here, recipe, cluster, copies) for here in ranks)
    found = TrainPlan(
        recipe=recipe, cluster=cluster, tokens=tokens, fp8=fp8, traffic=costs.traffic, layer=costs.moe,
        slowest=slowest, timeline=timeline, update_s=update_s, micro_batches=micros, memory=shares, ladder=[],
    )  # fmt: skip
    found.ladder.extend(_ladder(found, costs, own, steady))
    return found


def _fitting(devices: int, of_replica: int) -> str:
    if devices % of_replica == 0:
        return f"set parallel.dp to {devices // of_replica}, or another layout"
    return f"give a multiple of {of_replica} devices, or set parallel.pp, parallel.dp, parallel.ep"


class _Costs:
    """Seconds of one micro-batch in each kind of layer."""

    def __init__(self, recipe: Recipe, cluster: Cluster, recompute: Recompute) -> None:
        model, train, mesh = recipe.model, recipe.train, recipe.parallel
        T, fp8 = train.seq_len, train.precision == "fp8"
        tokens = train.micro_batch * T

        def of(works: list[Work], *, block: bool = True) -> Seconds:
            return computing(works, tokens, cluster, fp8=fp8, block=block)

        self.model = model
        self.traffic = traffic(model, mesh.ep, cluster.per_node, fp8=fp8)
        there = sending(self.traffic, tokens, cluster) if mesh.ep > 1 else Seconds()
        self.dense = of(block(model, T, recompute, dense=True))
        self.moe = of(block(model, T, recompute, dense=False)).plus(there)
        module = of(mtp(model), block=False).plus(self.moe)
        self.extra = of(head(model), block=False).plus(module.times(model.mtp.depth))   # of the last stage

    def of(self, stages: list[Stage]) -> Seconds:
        """The mean of a rank's stages."""
        found = Seconds()
        for one in stages:
            found = found.plus(self.dense.times(one.dense)).plus(self.moe.times(one.moe))
            found = found.plus(self.extra.times(one.last))
        return found.times(1 / len(stages))

    @property
    def whole(self) -> Seconds:
        """The network."""
        n = self.model.dense_layers
        layers = self.dense.times(n).plus(self.moe.times(self.model.num_layers - n))
        return layers.plus(self.extra)


def _steady(schedule: str, cluster: Cluster) -> Callable[[Seconds], float]:
    """Seconds of a micro-batch in a stage while no rank waits."""
    if schedule in PAIRED:
        return lambda one: _pair(one, cluster)
    return lambda one: one.computing + 2 * one.sent_alone


def _pair(one: Seconds, cluster: Cluster) -> float:
    """A forward beside a backward: as long as the busier stream, and a little more."""
    return max(one.computing, one.sent) * cluster.pair_over_streams


def _times(one: Seconds, cluster: Cluster, transfer: float) -> Times:
    """Of a stage: alone nothing hides what is sent."""
    forward = one.forward + one.sent_alone
    backward = one.inputs + one.weights + one.sent_alone
    return Times(forward, backward, one.weights, min(_pair(one, cluster), forward + backward), transfer)


def _update(
    model: ModelConfig, stages: list[Stage], recipe: Recipe, cluster: Cluster, copies: int
) -> float:
    """Gradients summed over all that hold a weight, DualPipe's mirrored ranks too, and new weights handed out
    (ZeRO-1), over IB and beside nothing.
    """
    mesh = recipe.parallel
    here = held(model, stages, mesh.ep)
    routed, others = copies * mesh.dp, copies * mesh.token_ranks
    sent = here.routed * (1 - 1 / routed) + (here.narrow + here.wide) * (1 - 1 / others)
    return sent * (FP32 + BF16) / cluster.ib_bytes_per_s


def _ladder(found: TrainPlan, costs: _Costs, own: int, steady: Callable[[Seconds], float]) -> list[Rung]:
    """From a pipeline that never waits to the run."""
    cluster, mesh, timeline = found.cluster, found.recipe.parallel, found.timeline
    P = mesh.stages

    def rate(seconds: float) -> float:
        return own / seconds / P

    even = costs.whole.times(1 / P)
    names = {
        "chunk": f"{costs.model.num_layers / P:.3g} layers a stage, all with experts, nothing else",
        "even": "with the head" + (", MTP and the dense layers" if costs.model.mtp.depth else "")
        + ", cut evenly",
        "whole": "whole layers: the fullest rank sets the pace",
        "bubble": f"{mesh.schedule}, {found.micro_batches} micro-batches: filling and emptying the pipeline",
        "update": "gradients and weights across replicas, beside nothing",
    }  # fmt: skip
    of_layers = costs.moe.times(costs.model.num_layers / P)
    known = PUBLISHED.get((costs.model.name, cluster.name, cluster.devices))
    chunk = costs.moe.times(known.layers_a_stage) if known else of_layers
    if known:
        names["chunk"] = f"{known.layers_a_stage} layers a stage, as in the published trace"
    busy = own * found.micro_batches * mesh.token_ranks / cluster.devices
    return [
        Rung("steady state of the layers", rate(steady(chunk)), names["chunk"]),
        Rung("the whole network", rate(steady(even)), names["even"]),
        Rung("stage imbalance", rate(steady(found.slowest)), names["whole"]),
        Rung("bubble", busy / timeline.makespan, names["bubble"]),
        Rung("update", busy / found.step_s, names["update"]),
    ]
