"""The inference engine against transformers' generate on bench-small, and MTP drafts against none.

    python benchmarks/engine.py [--quick] [--json] [--precision bf16] [--turns 3] [--model runs/x]

Rows: decoding at batch 1 and 16 (tokens/s, prompts of 32 tokens), prefill of 1,024 tokens (tokens/s), and
drafts against none on a small trained model at batch 1 and 16 (`--model`, or one that is trained for
two minutes first). "peer" is transformers' generate as it comes, or our engine without drafts; both
sides are processes of their own that take turns. Decoding is the time of 2 + N tokens less the time of 2,
so that neither side is charged for the prompt.

`share_of_limit` is our rate over what the hardware allows: for decoding the bytes of the weights that a step
must read over the bandwidth of a plain read, for prefill the FLOPs over the matmul rate, both measured in
this very run. Random routing touches 28.2 of 32 experts at batch 16: a step reads 581.6 M parameters there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from inference.speculation import measure as measure_drafts
from inference.speculation import train
from sides.process import Side

from fathom.train.machine import matmul_rate, survey

READ = {1: 162.5e6, 16: 581.6e6}    # parameters a decoding step must read
PREFILL_FLOPS = 289e6               # a token, attention at 1,024 tokens included
SIDES = ("ours", "peer")


def wish(side: Side, batch: int, prompt: int, tokens: int) -> dict[str, Any]:
    """So many prompts of so many tokens, continued by so many."""
    return side.ask(json.dumps({"batch": batch, "prompt": prompt, "tokens": tokens}))


def read_rate() -> float:
    """Bytes per second of reading memory once, all threads."""
    block = torch.ones(1 << 27)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        block.sum()
        best = max(best, block.nbytes / (time.perf_counter() - began))
    return best


def decode(side: Side, batch: int, tokens: int) -> float:
    """Tokens per second; the shorter of two runs each."""
    short = min(wish(side, batch, 32, 2)["wall"] for _ in range(2))
    long = min(wish(side, batch, 32, 2 + tokens)["wall"] for _ in range(2))
    return batch * tokens / (long - short)


def prefill(side: Side, length: int) -> float:
    """Tokens per second."""
    return length / min(wish(side, 1, length, 1)["wall"] for _ in range(2))


def against_peer(precision: str, turns: int, quick: bool) -> list[dict[str, Any]]:
    """The rows on bench-small."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows = {
        "decode, batch 1": lambda side: decode(side, 1, 16 if quick else 48),
        "decode, batch 16": lambda side: decode(side, 16, 8 if quick else 24),
        "prefill, 1,024 tokens": lambda side: prefill(side, 1024),
    }
    sides = {who: Side("inference.worker", who, precision) for who in SIDES}
    for side in sides.values():
        wish(side, 1, 32, 3)
    rates: dict[str, dict[str, list[float]]] = {name: {who: [] for who in SIDES} for name in rows}
    bandwidth, flops = [], []
    for turn in range(turns):
        bandwidth.append(read_rate())
        flops.append(matmul_rate(torch.device("cpu"), dtype))
        for name, measure in rows.items():
            for who in SIDES if turn % 2 else reversed(SIDES):
                rates[name][who].append(measure(sides[who]))
                print(f"turn {turn + 1} {name} {who}: {rates[name][who][-1]:.1f}", file=sys.stderr)
    memory = {who: int(wish(side, 1, 32, 2)["resident"]) for who, side in sides.items()}
    for side in sides.values():
        side.close()
    limits = {
        "decode, batch 1": max(bandwidth) / (READ[1] * dtype.itemsize),
        "decode, batch 16": 16 * max(bandwidth) / (READ[16] * dtype.itemsize),
        "prefill, 1,024 tokens": max(flops) / PREFILL_FLOPS,
    }
    return [
        {
            "name": name,
            "ours": round(statistics.median(rate["ours"]), 1),
            "peer": round(statistics.median(rate["peer"]), 1),
            "ratio": round(statistics.median(ratios(rate)), 2),
            "share_of_limit": round(statistics.median(rate["ours"]) / limits[name], 3),
            "peer_share_of_limit": round(statistics.median(rate["peer"]) / limits[name], 3),
            "limit": round(limits[name], 1),
            "ratios": [round(r, 2) for r in ratios(rate)],
            "precision": precision,
            "gb_per_s": round(max(bandwidth) / 1e9, 1),
            "gflops": round(max(flops) / 1e9),
            "resident_mib": {who: memory[who] >> 20 for who in SIDES},
            "threads": torch.get_num_threads(),
        }
        for name, rate in rates.items()
    ]


def ratios(rate: dict[str, list[float]]) -> list[float]:
    """Ours over the peer's, turn by turn."""
    return [ours / peer for ours, peer in zip(rate["ours"], rate["peer"], strict=True)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one turn, fewer tokens, a shorter training")
    parser.add_argument("--json", action="store_true", help="one JSON line a row")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--turns", type=int, default=3, help="of every side")
    parser.add_argument("--model", type=Path, help="a trained model with an MTP module, for the drafts")
    parser.add_argument("--only", choices=("peer", "drafts"), help="one half")
    asked = parser.parse_args()

    def say(row: dict[str, Any]) -> None:
        lines = "".join(f"{name:>22}  {value}\n" for name, value in row.items())
        print(json.dumps(row) if asked.json else lines, flush=True)

    if asked.only != "drafts":
        precision = survey("cpu", asked.precision).precision
        for row in against_peer(precision, 1 if asked.quick else asked.turns, asked.quick):
            say(row)
    if asked.only != "peer":
        with tempfile.TemporaryDirectory() as folder:
            model = asked.model or train(Path(folder), 0.5 if asked.quick else 2.0)
            for batch in (1, 16):
                for mode in ("auto", "on"):
                    say(measure_drafts(model, batch, mode))


if __name__ == "__main__":
    main()
