"""Run folders as training leaves them, made up: curves fall, loads even out, some things go wrong."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fathom.config.dump import to_dict
from fathom.config.load import load_recipe

MakeRun = Callable[..., Path]
PROMPTS = ("Mia had a red kite.", "Where did Sam find the hat?")


@dataclass(frozen=True, kw_only=True)
class Story:
    """What happens in a run."""

    steps: int = 300
    lr: float = 3e-3
    layers: int = 4         # with experts, MTP's last
    experts: int = 8
    every: int = 10         # steps between records of loads
    eval_every: int = 100
    spikes: tuple[int, ...] = (120,)
    rollback: int | None = 200
    resumed: int | None = 150
    hot: tuple[int, int] = (1, 5)   # (layer, expert) that is loaded three times its share at the end
    overrides: tuple[str, ...] = ()
    seed: int = 0


def write_run(folder: Path, story: Story) -> Path:
    """A complete run folder."""
    folder.mkdir(parents=True)
    draw = random.Random(story.seed)
    lines = [line for step in range(1, story.steps + 1) for line in metrics(step, story, draw)]
    write_lines(folder / "metrics.jsonl", lines)
    steps = range(story.every, story.steps + 1, story.every)
    write_lines(folder / "loads.jsonl", [{"step": s, "counts": loads(s, story, draw)} for s in steps])
    measured = range(story.eval_every, story.steps + 1, story.eval_every)
    samples = [{"step": s, "prompt": p, "text": f" It flew {s} metres."} for s in measured for p in PROMPTS]
    write_lines(folder / "samples.jsonl", samples)
    write_lines(folder / "events.jsonl", events(story))
    (folder / "about.json").write_text(json.dumps(about(story)), encoding="utf-8")
    return folder


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def metrics(step: int, story: Story, draw: random.Random) -> list[dict[str, Any]]:
    done = step / story.steps
    calm = 1.2 + 6.0 * math.exp(-9.0 * done) - 0.4 * done
    spike = step in story.spikes
    line = {
        "step": step,
        "train/loss": 9.0 + draw.random() if spike else calm + draw.gauss(0.0, 0.08),
        "mtp/loss": calm + 0.3 + draw.gauss(0.0, 0.08),
        "moe/sequence_loss": 1.05,
        "moe/max_violation": 0.15 + 1.2 * math.exp(-12.0 * done) + abs(draw.gauss(0.0, 0.05)),
        "train/lr": story.lr * min(step / 20, 1.0) * (0.55 + 0.45 * math.cos(math.pi * done)),
        "train/grad_norm": 60.0 if spike else 0.4 + 3.0 * math.exp(-8.0 * done) + abs(draw.gauss(0.0, 0.1)),
        "train/tokens": 500 * step,
        "train/elapsed_s": 0.25 * step,
        "perf/tokens_per_sec": 2000.0 + draw.gauss(0.0, 60.0),
        "perf/mfu": 0.5 + draw.gauss(0.0, 0.01),
        "stability/skipped": sum(s <= step for s in story.spikes),
        "stability/rollbacks": int(story.rollback is not None and step >= story.rollback),
    }
    lines: list[dict[str, Any]] = [line]
    if step % story.eval_every == 0:
        lines.append({"step": step, "val/bpb": 1.1 + 2.0 * math.exp(-6.0 * done)})
    return lines


def loads(step: int, story: Story, draw: random.Random) -> list[list[int]]:
    """Unequal at first, equal later, but for one hot expert."""
    spread = 0.9 * math.exp(-5.0 * step / story.steps) + 0.05
    table = [[round(1000 * math.exp(draw.gauss(0.0, spread))) for _ in range(story.experts)]
             for _ in range(story.layers)]  # fmt: skip
    layer, expert = story.hot
    table[layer][expert] = round(1000 * (1.0 + 2.0 * step / story.steps))
    return table


def events(story: Story) -> list[dict[str, Any]]:
    spike = "loss 9.4, 12.1 deviations above the last 128 steps; skipped"
    found: list[dict[str, Any]] = [{"step": s, "kind": "spike", "detail": spike} for s in story.spikes]
    if story.resumed is not None:
        found.append({"step": story.resumed, "kind": "resumed", "detail": "from step-000150"})
    if story.rollback is not None:
        found.append({"step": story.rollback, "kind": "rollback", "detail": "back to step-000180"})
    found.append({"step": story.steps, "kind": "saved", "detail": f"step-{story.steps:06d}"})
    return sorted(found, key=lambda event: event["step"])


def about(story: Story) -> dict[str, Any]:
    loaded = load_recipe("tiny", [f"train.steps={story.steps}", f"train.lr={story.lr}", *story.overrides])
    return {
        "title": "train", "fathom": "0.1", "torch": "2.13.0", "python": "3.12.1",
        "machine": {"device": "cpu", "precision": "fp32", "peak_flops": 1.6e11, "threads": 2,
                    "cpu": "A Processor @ 2.6 GHz", "cores": 2, "memory_bytes": 16 * 2**30},
        "origin": dict(loaded.origin), "recipe": to_dict(loaded.recipe),
        "parameters": {"total": 3_059_192, "active": 1_600_000, "mtp": 900_000},
        "flops_per_token": 1.7e7, "started": "2026-11-22T10:00:00",
    }  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """make_run(name, **what) writes a run folder and returns it; `what` changes the story."""

    def make(name: str = "run", **what: Any) -> Path:
        return write_run(tmp_path / name, replace(Story(), **what))

    return make
