"""The mesh against the network and the batch: each message proposes numbers, and those numbers work."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.dump import from_dict, to_dict, to_flat
from fathom.config.errors import ConfigError
from fathom.config.load import load_recipe
from fathom.config.model import ModelConfig, MoEConfig, MTPConfig
from fathom.config.parallel import (
    SCHEDULES,
    ParallelConfig,
    batch_unit,
    count_micros,
    micro_rows,
    whole_batch,
)
from fathom.config.recipe import Recipe
from fathom.config.schema import Schema
from fathom.config.train import ScheduleConfig, TrainConfig
from fathom.train.schedule import batch_rows

QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=200)
SCHEMA = Schema(root=Recipe)
MOE = MoEConfig(num_experts=24, num_groups=4, groups_per_token=2, experts_per_token=2)
SMALL = {"parallel.pp": 2, "parallel.dp": 1, "parallel.ep": 2, "train.batch_size": 16, "train.micro_batch": 1}
SMALL |= {"model.num_layers": 4, "model.moe.num_experts": 24, "model.moe.num_groups": 4}
SMALL |= {"model.moe.groups_per_token": 2, "model.moe.experts_per_token": 2}


def follow_fixes(flat: dict[str, Any], most: int = 8) -> Recipe:
    """Build a recipe, each time doing what the message says, at most `most` times."""
    for _ in range(most):
        try:
            recipe: Recipe = SCHEMA.build(flat)
        except ConfigError as error:
            fix = str(error).rpartition("Fix: ")[2]
            changes = re.findall(r"(\w[\w.]*) to ([\w.]+)", fix)
            assert changes, f"nothing to set in: {fix}"
            for name, value in changes:
                name = name if "." in name else f"parallel.{name}"
                flat[name] = value if name == "parallel.schedule" else type(flat.get(name, 1.0))(value)
        else:
            return recipe
    raise AssertionError(f"still wrong: {flat}")


@QUICK
@given(
    mesh=st.fixed_dictionaries({f"parallel.{name}": st.integers(1, 9) for name in ("pp", "dp", "ep")}),
    schedule=st.sampled_from(SCHEDULES),
    per_node=st.integers(1, 5),
    batch=st.integers(9, 200),
    micro=st.integers(0, 9),
    start=st.floats(0.01, 1.0),
    layers=st.integers(1, 12),
)
def test_following_the_fixes_gives_a_mesh_that_works(
    mesh: dict[str, int],
    schedule: str,
    per_node: int,
    batch: int,
    micro: int,
    start: float,
    layers: int,
) -> None:
    flat: dict[str, Any] = {"parallel.schedule": schedule, "parallel.ranks_per_node": per_node}
    flat |= {"train.schedule.batch_start": start, "model.num_layers": layers}
    flat |= {"model.dense_layers": 0} | mesh
    flat |= {"train.batch_size": batch, "train.micro_batch": micro}
    recipe = follow_fixes(SMALL | flat)
    parallel, train, moe = recipe.parallel, recipe.train, recipe.model.moe
    assert parallel.stages <= recipe.model.num_layers
    assert moe.num_experts % parallel.ep == 0
    groups_on_a_node = moe.num_groups / parallel.nodes
    assert groups_on_a_node == int(groups_on_a_node), "a group lies on one node"
    if parallel.world > 1:
        for progress in (0.0, 0.01, 0.02, 1.0):
            rows = whole_batch(parallel, train, batch_rows(train, progress))
            micros, each = count_micros(parallel, train, rows), micro_rows(parallel, train, rows)
            assert rows == micros * parallel.token_ranks * each
            assert micros >= parallel.fewest_micros and micros % parallel.micros_step == 0


def small(**changes: Any) -> dict[str, Any]:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return SMALL | {"model.dense_layers": 0} | named


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"parallel__ep": 5},
            r"model\.moe\.num_experts=24 .* parallel\.ep=5 ranks\. Fix: set parallel\.ep to 1$",
        ),
        ({"parallel__pp": 5}, r"model\.num_layers=4 into 5 stages, .* Fix: set parallel\.pp to 4$"),
        (
            {"parallel__pp": 3, "parallel__schedule": "dualpipev"},
            r"into 6 stages, .* Fix: set parallel\.pp to 2$",
        ),
        ({"parallel__pp": 3, "parallel__schedule": "dualpipe"}, r"parallel\.pp=3 is odd\. Fix: set pp to 2$"),
        (
            {"parallel__dp": 3},
            r"batch_size=16 .* parallel\.dp=3 x parallel\.ep=2 ranks\. Fix: set train\.batch_size to 18$",
        ),
        ({"train__micro_batch": 3}, r"is 8 rows, no whole .* Fix: set train\.batch_size to 18$"),
        (
            {"parallel__schedule": "dualpipe", "train__micro_batch": 4},
            r"parallel\.pp=2 needs 4 micro-batches; .* has 2 .* Fix: set train\.micro_batch to 2$",
        ),
        (
            {"parallel__schedule": "dualpipe", "train__schedule__batch_start": 0.25},
            r"the first batch, .* has 2 .* Fix: set train\.schedule\.batch_start to 0\.5$",
        ),
        (
            {"parallel__schedule": "dualpipe", "train__batch_size": 6},
            r"is 3 rows, no .* an even number of which .* Fix: set train\.batch_size to 8$",
        ),
        (
            {"parallel__ep": 6, "parallel__ranks_per_node": 2, "train__batch_size": 12},
            r"3 nodes of .*num_groups=4 whole groups.* Fix: set parallel\.ep to 2$",
        ),
        ({"parallel__ep": 6, "parallel__ranks_per_node": 4}, r"whole nodes\. Fix: set ep to 4$"),
        (
            {"parallel__backend": "nccl", "train__device": "cpu"},
            r"backend=nccl does not serve train\.device=cpu\. Fix: set parallel\.backend to auto$",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_names_the_number_to_change(changes: dict[str, Any], says: str) -> None:
    SCHEMA.build(small())
    with pytest.raises(ConfigError, match=says):
        SCHEMA.build(small(**changes))


def test_one_rank_alone_is_held_to_nothing_new() -> None:
    """A batch that is no multiple of the micro-batch was always allowed there."""
    train = TrainConfig(batch_size=7, micro_batch=2, schedule=ScheduleConfig(batch_start=0.1))
    parallel = Recipe(train=train).parallel
    assert (parallel.world, batch_unit(parallel, train), whole_batch(parallel, train, 5)) == (1, 1, 5)


def test_a_network_without_experts_may_have_any_ep() -> None:
    model = ModelConfig(num_layers=2, dense_layers=2, mtp=MTPConfig(depth=0), moe=MOE)
    parallel, train = ParallelConfig(ep=5), TrainConfig(batch_size=5)
    Recipe(model=model, train=train, parallel=parallel)
    with pytest.raises(ConfigError, match="num_experts=24"):  # an MTP module has experts
        Recipe(model=replace(model, mtp=MTPConfig(depth=1)), train=train, parallel=parallel)


def test_a_recipe_stored_before_there_was_a_mesh_is_one_rank() -> None:
    stored = to_dict(load_recipe("tiny").recipe)
    del stored["parallel"]
    assert from_dict(stored).parallel == ParallelConfig() == load_recipe("tiny").recipe.parallel


def test_the_recipe_of_2048_ranks_is_the_reports() -> None:
    """Report section 3.1: 16 stages, 64 ranks of experts on 8 nodes; 15360 rows are 120 on each of 128."""
    recipe, plain = load_recipe("v3-2048xh800").recipe, load_recipe("v3").recipe
    parallel, train = recipe.parallel, recipe.train
    assert (parallel.world, parallel.pp, parallel.ep, parallel.nodes) == (2048, 16, 64, 8)
    assert (parallel.schedule, count_micros(parallel, train, train.batch_size)) == ("dualpipe", 120)
    first = batch_rows(train, 0.0)
    assert first == whole_batch(parallel, train, first) == 4096
    assert count_micros(parallel, train, first) == parallel.fewest_micros == 32
    ours, theirs = to_flat(recipe), to_flat(plain)
    differ = {name for name in ours if ours[name] != theirs[name] and not name.startswith("parallel.")}
    assert differ == {"train.schedule.batch_start"}, "the report's first batch is 24 micro-batches, too few"
    with pytest.raises(ConfigError, match=r"has 24 .* Fix: set train\.schedule\.batch_start to 0\.266667$"):
        load_recipe("v3-2048xh800", ["train.schedule.batch_start=0.2"])
