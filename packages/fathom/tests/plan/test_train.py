"""A plan of V3's run against what was published, and plans against each other."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from fathom.config.errors import ConfigError
from fathom.config.load import load_recipe
from fathom.config.parallel import micro_rows
from fathom.plan import Cluster, TrainPlan, load_cluster, plan_train
from fathom.plan.memory import stored
from fathom.plan.published import PUBLISHED
from fathom.plan.stages import cut
from fathom.plan.times import sending
from fathom.plan.traffic import Traffic
from fathom.schedule.figures import peak_activations, peak_held

TOKENS = 14.8e12


@cache
def plan(*given: str, devices: int = 2048, recompute: str = "report") -> TrainPlan:
    recipe = load_recipe("v3-2048xh800", given).recipe
    return plan_train(recipe, load_cluster(f"h800x{devices}"), TOKENS, recompute)  # type: ignore[arg-type]


def on(cluster: Cluster) -> TrainPlan:
    return plan_train(plan().recipe, cluster, TOKENS)


def test_v3s_run_took_2664_thousand_hours() -> None:
    """DeepSeek-V3 report, table 1; 38.9 % causal MFU: arXiv 2505.09343, table 4."""
    figures = plan().figures()
    assert figures["gpu_hours"] == pytest.approx(2.664e6, rel=0.08)
    assert figures["gpu_hours_per_trillion_tokens"] == pytest.approx(180e3, rel=0.08)
    assert figures["usd"] == 2.0 * figures["gpu_hours"]
    assert figures["days"] == pytest.approx(figures["gpu_hours"] / 2048 / 24)
    assert figures["mfu"] == pytest.approx(0.389, rel=0.08)
    assert figures["gflop_per_token"] == pytest.approx(250, rel=0.02)
    assert figures["fits"] and figures["memory_gib_per_gpu"] * 2**30 <= 80e9    # a card of 80 GB has 85.5


def test_the_ladder_begins_at_the_trace_and_goes_down_to_the_prediction() -> None:
    found = plan()
    known = PUBLISHED["v3", "H800", 2048]
    rates = [one.rate for one in found.ladder]
    assert rates[0] == pytest.approx(known.steady, rel=0.02) == pytest.approx(1984, rel=0.02)
    assert rates == sorted(rates, reverse=True) and rates[-1] == pytest.approx(found.rate)
    assert known.run == pytest.approx(1543, rel=1e-3)


def test_the_published_run_is_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fathom.plan.train.PUBLISHED", {})
    again = plan_train(plan().recipe, load_cluster("h800x2048"), TOKENS)
    assert again.figures() == plan().figures()


def test_the_network_between_nodes_sets_the_pace_once_it_is_slower() -> None:
    cluster = load_cluster("h800x2048")

    def at(share: float) -> float:
        ib, there, back = cluster.ib_bytes_per_s, cluster.dispatch_bytes_per_s, cluster.combine_bytes_per_s
        return on(replace(cluster, ib_bytes_per_s=share * ib, dispatch_bytes_per_s=share * there,
                          combine_bytes_per_s=share * back)).rate  # fmt: skip

    assert at(0.25) < 0.7 * at(0.5) and at(0.5) < 0.9 * at(1.0)
    assert at(1.0) < at(4.0) < 1.25 * at(1.0), "computation is then what is left"


def test_layouts_against_each_other() -> None:
    base = plan()
    assert plan("parallel.schedule=1f1b").rate < 0.9 * base.rate, "nothing hides what is sent"
    zero = plan("parallel.schedule=zb1p")
    assert plan("parallel.schedule=1f1b").rate < zero.rate < base.rate
    half = plan("parallel.pp=8", "parallel.dp=4")
    assert half.timeline.idle_share < base.timeline.idle_share and half.micro_batches == 60
    held_ = {name: sum(s.bytes for s in p.memory) for name, p in (("half", half), ("base", base))}
    assert held_["half"] > held_["base"], "more layers on a device"
    small = plan("train.batch_size=4096", "train.schedule.batch_start=1")
    assert small.rate < base.rate and small.micro_batches == 32


def test_half_the_cluster_takes_as_many_hours() -> None:
    """With dp=1 each rank sees twice the micro-batches: less waiting, a little less to exchange."""
    half = plan("parallel.dp=1", devices=1024).figures()
    full = plan().figures()
    assert 0.9 < half["gpu_hours"] / full["gpu_hours"] < 1.0
    assert half["days"] > 1.8 * full["days"]


def test_what_is_kept_and_what_is_done_again() -> None:
    kept, report, blocks = (plan(recompute=what) for what in ("none", "report", "blocks"))
    held_ = [sum(s.bytes for s in p.memory) for p in (kept, report, blocks)]
    assert held_[0] > held_[1] > held_[2] and not kept.figures()["fits"]
    assert kept.rate > report.rate > blocks.rate
    assert plan("train.precision=bf16").rate < 0.8 * report.rate


def test_what_is_sent_takes_the_slower_network() -> None:
    """1,000 tokens to 2 nodes and 6 devices, 100 bytes there and 200 back."""
    one = Traffic(nodes=2.0, devices=6.0, dispatch=100, combine=200)
    cluster = replace(load_cluster("h800x8"), dispatch_bytes_per_s=1e6, combine_bytes_per_s=2e6,
                      ib_bytes_per_s=1e7, nvlink_bytes_per_s=4e6)  # fmt: skip
    found = sending(one, 1000, cluster)
    assert found.sent == pytest.approx(2 * (0.2 + 0.3))     # 6 x 200 kB over 4 MB/s are slower than 2 over 2
    assert found.sent_alone == pytest.approx(0.15 + 0.3)


def test_each_stage_holds_its_own_micro_batches() -> None:
    """DualPipe's rank 1 holds many of its early stage and few of its late one: not the mean of both."""
    found, schedule = plan(), plan().timeline.schedule
    stages = cut(found.recipe.model, found.recipe.parallel, 4.0)
    sizes = [4096 * stored(found.recipe.model, one, "report", fp8=True) for one in stages]
    kept, most = dict.fromkeys(range(16), 0), 0.0
    for item in schedule.orders[1]:
        for op in item:
            kept[op.stage] += op.kind == "F"
        most = max(most, sum(n * sizes[k] for k, n in kept.items()))
        for op in item:
            kept[op.stage] -= op.kind in ("B", "W")
    assert peak_held(schedule, sizes)[1] == pytest.approx(most)
    assert peak_held(schedule, [1.0] * 16) == peak_activations(schedule)


def test_automatic_micro_batches_are_the_trainers() -> None:
    given = ("train.micro_batch=0", "train.batch_size=16384", "train.schedule.batch_start=1")
    found = plan(*given)
    train = load_recipe("v3-2048xh800", given).recipe.train
    assert found.recipe.train.micro_batch == micro_rows(found.recipe.parallel, train, 16384) == 4
    assert found.micro_batches == 32


def test_the_update_goes_over_both_copies_of_dualpipe() -> None:
    """With dp=1 routed experts still have a mirrored copy, whose gradients are summed."""
    two = plan("parallel.dp=1", devices=1024)
    one = plan("parallel.dp=1", "parallel.schedule=1f1b", devices=1024)
    assert two.update_s > 1.4 * one.update_s


def test_what_does_not_work_out_is_one_line() -> None:
    with pytest.raises(ConfigError, match="16 x 2 x 64 are not 1024 devices. Fix: set parallel.dp to 1"):
        plan(devices=1024)
    for tokens in (0.0, 0.1, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="tokens are no run"):
            plan_train(plan().recipe, load_cluster("h800x2048"), tokens)
    with pytest.raises(ConfigError, match="ep=64 does not fill nodes of 3 devices"):
        on(replace(load_cluster("h800x2048"), per_node=3))


CLUSTER = (Path(__file__).parents[2] / "src/fathom/plan/clusters/h800.toml").read_text("utf-8")


def test_a_cluster_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(CLUSTER.replace('name = "H800"', 'name = "own"').replace("value = 50e9", "value = 100e9"))
    found = load_cluster(f"{path}x16")
    assert (found.name, found.devices, found.per_node, found.ib_bytes_per_s) == ("own", 16, 8, 100e9)
    assert found.sources and all(found.sources.values())


@pytest.mark.parametrize(("old", "new", "message"), [
    ("units = { value = 132", "unitz = { value = 132", "device.units is missing"),
    ("9984, source = ", "9984, sauce = ", "device.memory_bytes is missing, .* or has no source"),
    ("value = 50e9", "value = -1", "network.ib_bytes_per_s is missing, no sensible number"),
    ("value = 989.5e12", 'value = "much"', "device.bf16_flops is missing, no sensible number"),
    ("value = 989.5e12", "value = inf", "device.bf16_flops is missing, no sensible number"),
    ("value = 20,", "value = 132,", "no unit is left to compute"),
    ("value = 8,", "value = 0.5,", "devices_per_node=0.5 is no whole number"),
    ("value = 989.5e12", "value = 1e-300", "device.bf16_flops is missing, no sensible number"),
    ("value = 132", "value = 1" + 400 * "0", "device.units is missing, no sensible number"),
    ("[network]", "[network", "is no TOML"),
])  # fmt: skip
def test_a_broken_cluster_file(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in CLUSTER
    path = tmp_path / "own.toml"
    path.write_text(CLUSTER.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        load_cluster(f"{path}x16")
    assert "Fix: " in str(caught.value) and "\n" not in str(caught.value)


UNKNOWN = ["h800", "h900x8", "x8", "h800x", "h800x0", "nowhere.tomlx8", "", "h800x" + 5000 * "9", "h800x-1"]


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_cluster(name: str) -> None:
    with pytest.raises(ConfigError, match="Fix: "):
        load_cluster(name)
