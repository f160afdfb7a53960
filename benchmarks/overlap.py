"""How much of expert parallelism's communication a pair of micro-batches hides (report section 3.2.1).

    python benchmarks/overlap.py [--quick] [--json] [--turns 5] [--layers 4] [--tokens 512]

A stage of DeepSeek-V3 (MoE layers with MLA, fp32) on two processes of one thread each that share out its
experts. Their link is slowed down until communication takes as long as computation, the report's 1:1; waiting
for it is sleeping. Four ways of a forward and a backward pass, which take turns:

    compute_ms    one after the other, on a link without delay
    serial_ms     one after the other, every message waited for where it starts
    unpaired_ms   one after the other, messages waited for where they are needed
    paired_ms     a forward and a backward pass of two micro-batches taking turns

`hidden` is (serial - paired) / (serial - compute), and `hidden_unpaired` the same of unpaired: what shared
experts and gradients of weights hide within one pass. `ratio` is what serial adds over computation.
`hidden_of_link` is (compute + link - paired) / link, where `link_ms` is what the bytes take: it leaves out
that ranks which wait at every message meet the slower one each time.

A turn's figure is the shortest of three pairs, of computation before and after the others; a line has
medians of the turns. `hidden_of_shortest` is `hidden` of each way's shortest time in any turn, for a machine
that does other things as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WAYS = ("compute", "serial", "unpaired", "paired")
ALONE = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def ranks(options: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Two processes; a turn after the other."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipelines.paired"]
        both = [
            subprocess.Popen(
                [*command, str(rank), folder, json.dumps(options)],
                cwd=Path(__file__).parent,
                env=os.environ | ALONE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            assert both[0].stdout is not None
            for line in both[0].stdout:
                yield json.loads(line)
            status = [process.wait() for process in both]
            assert status == [0, 0], f"ranks ended with {status}"
        finally:
            for process in both:
                process.kill()
                process.communicate()


def hidden(turn: dict[str, float], mode: str) -> float:
    """The share of what communication adds that a mode takes away again."""
    return (turn["serial"] - turn[mode]) / (turn["serial"] - turn["compute"])


def hidden_of_link(turn: dict[str, float]) -> float:
    """The share of the link's own time that pairs hide."""
    return (turn["compute"] + turn["link"] - turn["paired"]) / turn["link"]


def figures(turns: list[dict[str, float]], options: dict[str, Any]) -> dict[str, Any]:
    """The line of all turns."""
    ms = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    shortest = {name: min(turn[name] for turn in turns) for name in WAYS}
    return {
        "name": f"{options['layers']} MoE layers",
        **{f"{mode}_ms": round(ms[mode], 1) for mode in (*WAYS, "link")},
        "hidden": round(statistics.median(hidden(turn, "paired") for turn in turns), 3),
        "hidden_of_shortest": round(hidden(shortest, "paired"), 3),
        "hidden_unpaired": round(statistics.median(hidden(turn, "unpaired") for turn in turns), 3),
        "hidden_of_link": round(statistics.median(hidden_of_link(turn) for turn in turns), 3),
        "ratio": round(statistics.median((t["serial"] - t["compute"]) / t["compute"] for t in turns), 3),
        "hidden_by_turn": [round(hidden(turn, "paired"), 3) for turn in turns],
        "mb_per_pair": round(ms["bytes"] / 1e6, 2),
        "mb_per_s": round(ms["bytes_per_s"] / 1e6, 2),
        "tokens": options["tokens"],
        "ranks": 2,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one turn, 2 layers, 128 tokens")
    parser.add_argument("--json", action="store_true", help="one JSON line a row")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--layers", type=int, action="append", help="of the stage; the report has 4")
    parser.add_argument("--tokens", type=int, default=512, help="of a micro-batch on each rank")
    asked = parser.parse_args()
    for layers in [2] if asked.quick else asked.layers or [4]:
        options = {"layers": layers, "turns": asked.turns, "tokens": asked.tokens}
        if asked.quick:
            options |= {"turns": 1, "tokens": 128}
        turns = []
        for turn in ranks(options):
            turns.append(turn)
            shown = ", ".join(f"{name} {value:.0f}" for name, value in turn.items() if name in WAYS)
            print(f"{layers} layers, turn {len(turns)}: {shown} ms", file=sys.stderr)
        line = figures(turns, options)
        lines = "".join(f"{key:>18}  {value}\n" for key, value in line.items())
        print(json.dumps(line) if asked.json else lines, flush=True)


if __name__ == "__main__":
    main()
