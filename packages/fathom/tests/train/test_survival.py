"""A killed run, in a save too, ends in the bits of one that was not; a full disk costs no checkpoint."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fathom.checkpoint.find import latest
from fathom.checkpoint.newest import load_newest
from fathom.config.dump import to_toml
from fathom.config.recipe import Recipe
from fathom.config.train import LogConfig, SaveConfig, StabilityConfig

LAUNCHER = """
import json, os, resource, sys
import torch, fathom.train.start, fathom.train.sinks    # once; each run is a fork of this process
import torch._dynamo    # what the first optimizer of a process brings along
from fathom.cli.main import main
try:
    import torch.utils.tensorboard.summary
except ImportError:
    pass
torch.set_num_threads(1)
for line in sys.stdin:
    largest, *words = json.loads(line)
    child = os.fork()
    if child == 0:
        if largest:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        os.dup2(2, 1)    # the launcher's own words go to stdout
        code = main(words)
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
TIMES = {"train/elapsed_s", "perf/tokens_per_sec", "perf/mfu"}  # no two runs agree on these


class Launcher:
    """Starts real `fathom` processes that need not import torch again."""

    def __init__(self, said: Path) -> None:
        self._said, pipe = said, subprocess.PIPE
        with said.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER], stdin=pipe, stdout=pipe, stderr=stderr, text=True
            )

    def start(self, *words: object, largest: int = 0) -> int:
        """The process id of `fathom WORDS`, which cannot write a file of more than `largest` bytes."""
        self._process.stdin.write(json.dumps([largest, *map(str, words)]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        """Its exit status; negative = the signal that ended it."""
        return int(self._process.stdout.readline())

    def said(self) -> str:
        """What all of them wrote to stderr."""
        return self._said.read_text()

    def close(self) -> None:
        """Once the last has ended."""
        self._process.communicate(timeout=60)


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path / "stderr")
    yield launcher
    launcher.close()


def killable(recipe: Recipe, steps: int) -> Recipe:
    """Accumulation, EMA, MTP and balancing on; saved every other step, evaluated every seventh."""
    train = replace(
        recipe.train,
        steps=steps,
        batch_size=6,
        micro_batch=2,
        log=LogConfig(every=3, eval_every=7, samples=1),
        save=SaveConfig(every=2, keep=2),
        stability=StabilityConfig(window=12),
    )
    assert train.optim.ema and recipe.model.mtp.depth and train.balance.bias_speed
    return replace(recipe, train=train)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps_done(run: Path) -> int:
    """Steps in the record, of which the last line may be half written."""
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count('"train/loss"') if metrics.exists() else 0


def saving(run: Path) -> bool:
    folder = run / "checkpoints"
    return folder.is_dir() and any(p.name.endswith(".new") for p in folder.iterdir())


def kill_at(pid: int, run: Path, when: str, target: int, delay: float) -> None:
    """SIGKILL once `target` steps are in the record: a while later, or as soon as a save is under way."""
    deadline = time.monotonic() + 120
    if when == "starting":
        time.sleep(delay)
    else:
        while steps_done(run) < target and time.monotonic() < deadline:
            time.sleep(0.001)
        if when == "in a save":
            while not saving(run) and time.monotonic() < deadline:
                pass
        time.sleep(delay)
    os.kill(pid, signal.SIGKILL)


def survive(launcher: Launcher, recipe: Recipe, folder: Path, *, kills: int, seed: int) -> dict[str, int]:
    """Run whole and in parts, compare everything; how often each kind of kill struck, and what it left."""
    file, whole, parts = folder / "recipe.toml", folder / "whole", folder / "parts"
    file.write_text(to_toml(recipe))
    launcher.start("train", file, "--out", whole, "--quiet")
    assert launcher.wait() == 0, launcher.said()
    steps = recipe.train.steps
    step_s = lines(whole / "metrics.jsonl")[-2]["train/elapsed_s"] / steps
    rng, struck, halves = random.Random(seed), {"starting": 0, "in a step": 0, "in a save": 0}, 0
    for target in sorted(rng.randrange(1, steps - 2) for _ in range(kills)):
        when = rng.choices(list(struck), [1, 4, 5])[0]
        delay = {"starting": 0.3, "in a step": 2 * step_s, "in a save": step_s / 4}[when] * rng.random()
        pid = launcher.start("train", file, "--out", parts, "--resume", "auto", "--quiet")
        kill_at(pid, parts, when, target, delay)
        assert launcher.wait() == -signal.SIGKILL, f"{when}, step {target}: the run was over before the kill"
        struck[when] += 1
        halves += saving(parts)
    launcher.start("train", file, "--out", parts, "--resume", "auto", "--quiet")
    assert launcher.wait() == 0, launcher.said()
    compare(whole, parts)
    assert not saving(parts), "what the killed left is cleared away"
    return struck | {"halves": halves}


def compare(whole: Path, parts: Path) -> None:
    """The same weights, average, moments, biases, place in the data; a record without gap or repetition."""
    first, second = latest(whole, resumable=True), latest(parts, resumable=True)
    assert first.name == second.name
    for name in ("model.safetensors", "state/optimizer.safetensors", "state/ema.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    one, two = (json.loads((f / "state" / "trainer.json").read_text()) for f in (first, second))
    assert one.pop("elapsed_s") and two.pop("elapsed_s") and one == two
    for name in ("loads.jsonl", "samples.jsonl"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    for run in (whole, parts):
        events = lines(run / "events.jsonl")
        assert [e["step"] for e in events] == sorted(e["step"] for e in events)
        assert {e["kind"] for e in events} <= {"saved", "resumed"}
    records = [
        [{k: v for k, v in line.items() if k not in TIMES} for line in lines(run / "metrics.jsonl")]
        for run in (whole, parts)
    ]
    assert records[0] == records[1]
    steps = [line["step"] for line in records[1] if "train/loss" in line]
    assert steps == list(range(1, len(steps) + 1))


def test_ten_kills_change_no_bit(launcher, recipe, tmp_path):
    struck = survive(launcher, killable(recipe, 24), tmp_path, kills=10, seed=0)
    assert struck["in a step"] and struck["in a save"] >= 3
    assert struck["halves"], "no kill left half a checkpoint: the saves were not hit"


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_kills_change_no_bit(launcher, recipe, tmp_path, seed: int):
    assert survive(launcher, killable(recipe, 160), tmp_path, kills=100, seed=seed)["halves"] >= 5


# -- a full disk ---------------------------------------------------------------------------------------------


LONGER = "train.steps=18"  # than the 12 of half_a_run


def fails_for_want_of_room(launcher: Launcher, file: Path, run: Path, *, largest: int = 0) -> None:
    """The run ends with one line and status 1; what was saved before is there, whole."""
    before, said = latest(run, resumable=True), len(launcher.said())
    launcher.start("train", file, LONGER, "--out", run, "--resume", "auto", "--quiet", largest=largest)
    assert launcher.wait() == 1, launcher.said()
    (line,) = launcher.said()[said:].splitlines()
    assert "the disk is full" in line and "Fix: free some space" in line
    saved = load_newest(run)
    assert saved.folder == before == latest(run, resumable=True) and not saved.passed_over
    assert not saving(run)


def goes_on(launcher: Launcher, file: Path, run: Path, whole: Path) -> None:
    """With room again, to the same end."""
    launcher.start("train", file, LONGER, "--out", run, "--resume", "auto", "--quiet")
    assert launcher.wait() == 0, launcher.said()
    launcher.start("train", file, LONGER, "--out", whole, "--quiet")
    assert launcher.wait() == 0, launcher.said()
    compare(whole, run)


def half_a_run(launcher: Launcher, recipe: Recipe, folder: Path, run: Path) -> tuple[Path, int, int]:
    """A run of 12 steps, to be extended: its recipe, the size of its weights, and of a whole checkpoint."""
    recipe = killable(recipe, 12)
    save, log = SaveConfig(every=6, keep=1), LogConfig(every=4, eval_every=12, samples=1)
    schedule = replace(  # the same whatever the budget
        recipe.train.schedule,
        decay_from=1.0, decay_to=1.0, tail_from=1.0, mtp_until=1.0, batch_full=0.0, bias_until=1.0,
    )  # fmt: skip
    train = replace(recipe.train, save=save, log=log, schedule=schedule)
    file = folder / "recipe.toml"
    file.write_text(to_toml(replace(recipe, train=train)))
    launcher.start("train", file, "--out", run, "--quiet")
    assert launcher.wait() == 0, launcher.said()
    saved = latest(run)
    sizes = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
    return file, (saved / "model.safetensors").stat().st_size, sizes


def test_files_that_may_not_grow_cost_no_checkpoint(launcher, recipe, tmp_path):
    """The record of steps, the weights and the moments hit the limit of a file, one after the other."""
    run = tmp_path / "run"
    file, weights, _ = half_a_run(launcher, recipe, tmp_path, run)
    metrics = run / "metrics.jsonl"
    padding = json.dumps({"step": 0, "padding": "x" * 40_000}) + "\n"  # so that it is the largest file
    metrics.write_text(padding + metrics.read_text())
    fails_for_want_of_room(launcher, file, run, largest=metrics.stat().st_size + 700)
    assert "metrics.jsonl could not be written" in launcher.said()
    metrics.write_text(metrics.read_text().removeprefix(padding))
    for largest in (weights // 2, weights + weights // 2):
        fails_for_want_of_room(launcher, file, run, largest=largest)
    goes_on(launcher, file, run, tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"there is no mount here ({error.strerror})")
    if done.returncode:
        pytest.skip(f"this user may not mount a tmpfs ({done.stderr.strip()})")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_at_any_point_costs_no_checkpoint(launcher, recipe, tmp_path, small_disk):
    """Room for no line, half of the weights, half of the moments, and all but the last kilobytes."""
    run, filler = small_disk / "run", small_disk / "filler"
    file, weights, whole = half_a_run(launcher, recipe, tmp_path, run)
    for room in (0, 8192, weights // 2, 2 * weights, whole - 16384):
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        filler.write_bytes(bytes(free - room))
        fails_for_want_of_room(launcher, file, run)
        filler.unlink()
    goes_on(launcher, file, run, tmp_path / "whole")


def test_a_killed_build_of_a_corpus_leaves_nothing_after_the_next(launcher, tmp_path):
    out = tmp_path / "corpus"
    words = ["data", "build", "tiny", "data.documents=300", "data.workers=2", "--out", out]
    pid = launcher.start(*words)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".corpus.*.new")) and time.monotonic() < deadline:
        pass
    os.kill(pid, signal.SIGKILL)
    assert launcher.wait() == -signal.SIGKILL
    assert list(tmp_path.glob(".corpus.*.new")) and not out.exists()
    launcher.start(*words)
    assert launcher.wait() == 0, launcher.said()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "stderr"]
