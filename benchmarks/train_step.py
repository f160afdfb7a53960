"""One full training step of fathom against transformers' DeepseekV3, side by side.

    python benchmarks/train_step.py [--quick] [--json] [--shape bench] [--precision bf16] [--pairs 3]
    python benchmarks/train_step.py --where

Forward, backward, clipping to 1.0 and AdamW with fp32 masters, fresh random tokens every step. Three
columns: fathom as `fathom train` runs it; transformers as it comes (sdpa, grouped_mm, autocast, fused
AdamW); transformers tuned (eager attention and the allocator kept from giving memory back, the two settings
that were found to help it most). Each side is a process of its own; they take turns, a few steps at a time,
so that what else the machine does meets all of them. Both sides compute in the same precision: bf16 where
that is the faster one on this machine, else fp32.

Tokens per second are of the best step of each turn, and their median over the turns; ratios are medians of
the turns' own ratios. CPU seconds count both threads' work and say what wall time hides. `share_of_peak` is
useful FLOPs (6 per active parameter that multiplies, and causal attention) over the best matmul rate that
was measured in this very run. `peak_memory_ratio` is our largest resident memory over transformers'.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

import torch
from sides.process import Side
from step.shapes import SHAPES

from fathom.train.machine import survey

SIDES = ("ours", "peer", "peer_tuned")
WARM_UP = 2     # steps before the clock starts: kernels are compiled, memory is touched
STEPS = {"bench": 2, "wide": 3, "demo": 12}     # of a turn


def measure(name: str, precision: str, pairs: int, steps: int) -> dict[str, Any]:
    """All sides of one shape, taking turns."""
    sides = {who: Side("step.worker", who, name, precision) for who in SIDES}
    for side in sides.values():
        side.ask(str(WARM_UP))
    turns: dict[str, list[dict[str, Any]]] = {who: [] for who in SIDES}
    for turn in range(pairs):
        for who in (*SIDES[turn % 3 :], *SIDES[: turn % 3]):
            turns[who].append(sides[who].ask(str(steps)))
            print(f"{name} turn {turn + 1} {who}: {min(turns[who][-1]['wall']):.3f} s", file=sys.stderr)
    for side in sides.values():
        side.close()
    return figures(name, precision, turns)


def where(name: str, precision: str) -> dict[str, Any]:
    """Milliseconds of a step by kind of operation, on every side."""
    spent: dict[str, Any] = {"name": name, "precision": precision}
    for who in SIDES:
        side = Side("step.worker", who, name, precision)
        side.ask(str(WARM_UP))
        spent[who] = side.ask("where")
        side.close()
    return spent


def figures(name: str, precision: str, turns: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The line of one shape."""
    tokens = SHAPES[name].tokens
    wall = {who: [min(t["wall"]) for t in turns[who]] for who in SIDES}
    cpu = {who: [min(t["cpu"]) for t in turns[who]] for who in SIDES}
    rate = max(t["rate"] for who in SIDES for t in turns[who])
    flops = turns["ours"][0]["flops"]
    peak = {who: max(t["peak"] for t in turns[who]) for who in SIDES}

    def ratio(who: str, seconds: dict[str, list[float]]) -> float:
        return round(statistics.median(p / o for p, o in zip(seconds[who], seconds["ours"], strict=True)), 2)

    return {
        "name": name,
        "precision": precision,
        **{who: round(tokens / statistics.median(wall[who])) for who in SIDES},
        "ratio": ratio("peer", wall),
        "ratio_tuned": ratio("peer_tuned", wall),
        "share_of_peak": round(flops / statistics.median(wall["ours"]) / rate, 3),
        "peak_memory_ratio": round(peak["ours"] / peak["peer"], 2),
        "cpu_ratio": ratio("peer", cpu),
        "cpu_ratio_tuned": ratio("peer_tuned", cpu),
        "ratios": [round(p / o, 2) for p, o in zip(wall["peer"], wall["ours"], strict=True)],
        "wall_s": {who: [round(s, 3) for s in wall[who]] for who in SIDES},
        "cpu_s": {who: [round(s, 3) for s in cpu[who]] for who in SIDES},
        "peak_mib": {who: peak[who] >> 20 for who in SIDES},
        "gflops_peak": round(rate / 1e9),
        "gflop_per_step": round(flops / 1e9, 1),
        "threads": torch.get_num_threads(),
    }


def readable(line: dict[str, Any]) -> str:
    """The same for people."""
    return "".join(f"{name:>18}  {value}\n" for name, value in line.items())


def main() -> None:
    """Measure the shapes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the demo shape only, shorter turns")
    parser.add_argument("--json", action="store_true", help="one JSON line a shape")
    parser.add_argument("--shape", choices=tuple(SHAPES), action="append", help="only this one")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--pairs", type=int, default=3, help="turns of every side")
    parser.add_argument("--where", action="store_true", help="where the milliseconds go, by torch's profiler")
    asked = parser.parse_args()
    precision = survey("cpu", asked.precision).precision
    for name in asked.shape or (["demo"] if asked.quick else list(SHAPES)):
        steps = 4 if asked.quick else STEPS[name]
        line = where(name, precision) if asked.where else measure(name, precision, asked.pairs, steps)
        print(json.dumps(line) if asked.json else readable(line), flush=True)


if __name__ == "__main__":
    main()
