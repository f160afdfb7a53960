"""A run that many ranks share is the run of one process: its record, its checkpoint, its end on a signal."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fathom.checkpoint.find import latest
from fathom.checkpoint.newest import load_newest
from fathom.config.dump import to_toml
from fathom.config.errors import ConfigError, DataError
from fathom.config.parallel import ParallelConfig
from fathom.config.recipe import Recipe
from fathom.config.train import LogConfig, OptimConfig, SaveConfig
from fathom.ops.fp8.cpu import Cpu
from fathom.ops.fp8.kernels import Fp8Kernels
from fathom.ops.kernels import FastKernels
from fathom.parallel.group import Group
from fathom.parallel.mesh import make_mesh
from fathom.parallel.payload import BF16, FP8, Plain
from fathom.parallel.threads import Threads
from fathom.posttrain.sft import start_sft
from fathom.train.pipeline import Pipeline
from fathom.train.start import start
from fathom.train.start_parallel import start_parallel

MESH = {"pp": 2, "ep": 2, "schedule": "dualpipe"}


@pytest.fixture
def wide(recipe: Recipe) -> Recipe:
    """Rows enough for four ranks, and a checkpoint in the middle."""
    save = SaveConfig(every=3)
    return replace(recipe, train=replace(recipe.train, batch_size=8, micro_batch=1, save=save))


def shared(recipe: Recipe, **mesh: object) -> Recipe:
    return replace(recipe, parallel=ParallelConfig(**mesh))


def run_shared(recipe: Recipe, out: Path, *, resume: bool = False) -> None:
    def rank(world: object) -> None:
        start_parallel(recipe, out, world, resume=resume, quiet=True).train()

    Threads(recipe.parallel.world).run(rank)


def record(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "train/loss" in line]


def same_run(one: Path, other: Path) -> None:
    first, second = record(one), record(other)
    assert [line["step"] for line in first] == [line["step"] for line in second] == list(range(1, 7))
    for a, b in zip(first, second, strict=True):
        for name in ("train/loss", "mtp/loss", "moe/sequence_loss", "train/grad_norm", "train/lr"):
            assert a[name] == pytest.approx(b[name], rel=2e-4), (a["step"], name)
        assert a["train/tokens"] == b["train/tokens"]
        assert a["moe/max_violation"] == pytest.approx(b["moe/max_violation"], abs=0.05)
    a, b = load_newest(one), load_newest(other)
    assert a is not None and b is not None and a.state.keys() == b.state.keys()
    assert a.training.optimizer.keys() == b.training.optimizer.keys()
    assert a.training.ema is not None and b.training.ema is not None
    assert a.training.loader == b.training.loader and a.training.ema.keys() == b.training.ema.keys()
    for one_has, other_has in ((a.state, b.state), (a.training.ema, b.training.ema)):
        for name, tensor in one_has.items():
            torch.testing.assert_close(other_has[name], tensor, rtol=0, atol=2e-3, msg=name)


@pytest.mark.parametrize("mesh", [MESH, {"pp": 2}, {"dp": 2, "ep": 2}], ids=str)
def test_a_shared_run_is_the_run_of_one(wide, mesh, tmp_path):
    start(wide, tmp_path / "one", quiet=True).train()
    run_shared(shared(wide, **mesh), tmp_path / "many")
    same_run(tmp_path / "one", tmp_path / "many")
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "many").iterdir()} == files


def test_a_run_goes_on_to_the_same_bits_and_on_another_mesh(wide, tmp_path):
    """Stopped in the middle: on the same mesh the same bits, on another one, or alone, the same numbers."""
    whole, again, other = (tmp_path / name for name in ("whole", "again", "other"))
    run_shared(shared(wide, **MESH), whole)
    for out in (again, other):
        out.mkdir()
        (out / "checkpoints").mkdir()
        half = whole / "checkpoints" / "step-000003"
        for path in half.rglob("*"):
            target = out / "checkpoints" / half.name / path.relative_to(half)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                target.write_bytes(path.read_bytes())
        lines = (whole / "metrics.jsonl").read_text().splitlines(keepends=True)
        (out / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 3))
    run_shared(shared(wide, **MESH), again, resume=True)
    a, b = load_newest(whole), load_newest(again)
    x, y = a.training, b.training
    for mine, theirs in ((a.state, b.state), (x.optimizer, y.optimizer), (x.ema, y.ema)):
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    start(wide, other, resume=True, quiet=True).train()
    same_run(whole, other)


def test_in_fp8_too(wide, tmp_path):
    """Tokens travel in FP8, outputs in bf16; tiles of 128 tokens are cut within a rank, so numbers differ."""
    narrow = replace(wide, train=replace(wide.train, precision="fp8"))
    start(narrow, tmp_path / "one", quiet=True).train()
    run_shared(shared(narrow, **MESH), tmp_path / "many")
    first, second = record(tmp_path / "one"), record(tmp_path / "many")
    for a, b in zip(first, second, strict=True):
        assert a["train/tokens"] == b["train/tokens"]
        for name in ("train/loss", "mtp/loss"):
            assert a[name] == pytest.approx(b[name], rel=2e-3), (a["step"], name)
    a, b = load_newest(tmp_path / "one"), load_newest(tmp_path / "many")
    assert {t.dtype for t in b.training.optimizer.values()} == {torch.bfloat16}
    assert a.state.keys() == b.state.keys() and a.training.optimizer.keys() == b.training.optimizer.keys()


@pytest.mark.parametrize("mesh", [{"pp": 2}, {"ep": 2}], ids=str)
def test_a_nan_in_fp8_is_named_by_all_ranks_as_by_one(wide, mesh, tmp_path):
    """The first layer in time, on whichever rank it lies."""
    narrow = replace(wide, train=replace(wide.train, precision="fp8"))
    seen = []

    def rank(world: object) -> None:
        trainer = start_parallel(shared(narrow, **mesh), tmp_path, world, quiet=True)
        weights = trainer.optimizer.buffers.views(trainer.optimizer.buffers.master)
        if "layers.1.ffn.experts.up" in weights and trainer.pipeline.mesh.experts.rank == 0:
            weights["layers.1.ffn.experts.up"][0, 0, 0] = float("nan")
        trainer.optimizer.buffers.refresh()
        trainer.step()
        seen.append(trainer.watch.last.detail)

    Threads(2).run(rank)
    assert len(seen) == 2 and seen[0] == seen[1]
    assert re.search(r"first in layers\.1\.ffn\.experts: its weights \(rank [01]\)$", seen[0]), seen[0]


def test_what_travels_in_an_fp8_run(wide):
    """Tokens in FP8 and outputs in bf16, as section 3.3.3 says; as they are in any other run."""
    parallel = shared(wide, ep=2).parallel

    def rank(world: Group) -> tuple[type, type, type, type]:
        made = []
        for kernels in (Fp8Kernels(Cpu()), FastKernels()):
            dispatch = Pipeline(wide.model, parallel, make_mesh(parallel, world), kernels).dispatch
            made += [type(dispatch._dispatch), type(dispatch._combine)]
        return tuple(made)

    assert set(Threads(2).run(rank)) == {(FP8, BF16, Plain, Plain)}


def test_in_bf16_too(wide, tmp_path):
    """Ranks round other sums; the runs stay as near as two orders of the same sums do."""
    bf16 = replace(wide, train=replace(wide.train, precision="bf16"))
    start(bf16, tmp_path / "one", quiet=True).train()
    run_shared(shared(bf16, **MESH), tmp_path / "many")
    for a, b in zip(record(tmp_path / "one"), record(tmp_path / "many"), strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=5e-3)


def test_a_finished_run_and_an_evaluated_step_are_gone_on_from(wide, tmp_path):
    """What has been evaluated only rank 0 knows; all ranks must agree on what is still to be done."""
    log = LogConfig(eval_every=3)
    recipe = shared(replace(wide, train=replace(wide.train, log=log)), **MESH)
    run_shared(recipe, tmp_path / "run")
    run_shared(recipe, tmp_path / "run", resume=True)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000006")
    run_shared(recipe, tmp_path / "run", resume=True)
    assert [line["step"] for line in record(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
    assert len((tmp_path / "run" / "samples.jsonl").read_text().splitlines()) > 0


def test_ranks_that_see_other_files_say_so(wide, tmp_path):
    recipe = shared(wide, pp=2)
    run_shared(recipe, tmp_path / "0")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    shutil.rmtree(tmp_path / "1" / "checkpoints" / "step-000006")

    def rank(world) -> str:
        with pytest.raises(ConfigError) as problem:
            start_parallel(recipe, tmp_path / str(world.rank), world, resume=True, quiet=True)
        return str(problem.value)

    told = Threads(2).run(rank)
    assert told[0] == told[1] and "checkpoint is not the same on all ranks" in told[0]


def test_copies_stay_bitwise_equal(wide, tmp_path):
    """Of DualPipe's mirrored ranks, and of ranks that see other rows: weights, biases, moments, averages."""

    def rank(world) -> dict[str, Tensor]:
        trainer = start_parallel(shared(wide, **MESH), tmp_path / "run", world, quiet=True)
        trainer.train()
        run = trainer.optimizer
        held = {f"average of {name}": tensor for name, tensor in run.averages().items()}
        held |= run.weights() | run.state()[0]
        own = trainer.pipeline.experts
        return {f"{name} {own if '.experts.' in name else ''}": t.clone() for name, t in held.items()}

    held: dict[str, list[Tensor]] = {}
    for found in Threads(4).run(rank):
        for name, tensor in found.items():
            held.setdefault(name, []).append(tensor)
    assert {len(copies) for copies in held.values()} == {2, 4}, "experts twice, all else four times"
    for name, copies in held.items():
        assert all(torch.equal(copies[0], copy) for copy in copies[1:]), name


def test_what_is_wrong_is_said_on_every_rank(wide, tmp_path):
    """One error everywhere, and nobody waits: a wrong mesh, other recipes, a run that is there already."""

    def errors(recipes: list[Recipe], out: Path) -> list[str]:
        def rank(world) -> str:
            with pytest.raises((ConfigError, DataError)) as problem:
                start_parallel(recipes[world.rank % len(recipes)], out, world, quiet=True)
            return str(problem.value)

        return Threads(2).run(rank)

    told = errors([shared(wide, pp=2, ep=2)], tmp_path / "a")
    assert told[0] == told[1] and "is 4 ranks, but 2 started. Fix:" in told[0]
    other = replace(wide, train=replace(wide.train, optim=OptimConfig(clip=0.5)))
    told = errors([shared(wide, pp=2), shared(other, pp=2)], tmp_path / "b")
    assert told[0] == told[1] and "recipe is not the same on all ranks" in told[0]
    run_shared(shared(wide, pp=2), tmp_path / "c")
    told = errors([shared(wide, pp=2)], tmp_path / "c")
    assert told[0] == told[1] and "already holds a run" in told[0]


def torchrun(size: int, *words: object, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    words = tuple(str(word) for word in ("-m", "fathom", "train", *words))
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True, env=quiet)


def test_torchrun_trains_stops_on_a_signal_and_goes_on(wide, tmp_path):
    """Real processes, the command as people type it."""
    recipe, out = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(to_toml(replace(wide, train=replace(wide.train, steps=2000))))
    mesh = ["parallel.pp=2", "parallel.schedule=dualpipe"]
    running = torchrun(2, recipe, *mesh, "--out", out)
    until = time.monotonic() + 100
    while not (out / "metrics.jsonl").is_file() or len(record(out)) < 4:
        assert running.poll() is None and time.monotonic() < until, running.communicate(timeout=9)[1]
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    said = running.communicate(timeout=60)[1]
    assert said.count("fathom: stopped at step") == 1, said
    stopped = latest(out, resumable=True)
    assert stopped is not None
    step = int(re.search(r"step-(\d+)", stopped.name)[1])
    going = torchrun(2, recipe, *mesh, f"train.steps={step + 2}", "--out", out, "--resume", "auto")
    said = going.communicate(timeout=100)[1]
    assert going.returncode == 0, said
    assert [line["step"] for line in record(out)][-2:] == [step + 1, step + 2]


def test_a_recipe_for_many_is_not_started_alone(wide, tmp_path):
    (tmp_path / "recipe.toml").write_text(to_toml(shared(wide, **MESH)))
    command = [sys.executable, "-m", "fathom", "train", tmp_path / "recipe.toml", "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "torchrun --standalone --nproc-per-node 4 -m fathom train" in done.stderr
    assert not (tmp_path / "run").exists()


def test_fine_tuning_is_not_shared_yet(wide, tmp_path):
    with pytest.raises(ConfigError, match=r"for 4 ranks, .* Fix: leave parallel\.\* away"):
        start_sft(shared(wide, **MESH), tmp_path, tmp_path / "sft")
