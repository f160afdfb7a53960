"""What HTTP costs the engine, and what ten times overload costs those who are inside.

    python benchmarks/serve.py [--quick] [--json] [--turns 9] [--model runs/x] [--only throughput|overload]

The model is a small trained one (`--model`, or one that is trained for two minutes first). `fathom serve`,
the engine without HTTP and the clients are processes of their own; all share the machine.

Throughput: 16 requests at once, 256 tokens each, to `Engine.generate` and to /v1/completions as streams.
Sides take turns, each turn has prompts of its own, and both sides must write the same texts. `ratio` is the
median of turns, `cpu_s` the processor seconds of a turn.

Overload: as many clients as the server holds (16 run, 16 wait), each sending a request as soon as the one
before has ended; and ten times as many. In one row those that are refused come again when Retry-After says;
in the other all come in one moment, and who is refused stays away. `refused_ms` is from before the connection
until its last byte, the clients' own work included; `ratio` the tokens a second with overload over those
without; of pairs of processor seconds the second is without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inference.speculation import train
from serving.server import Server
from sides.process import Side

from fathom.data.smallworld import prompts

STREAMS = 16
RUNNING, QUEUE = 16, 16     # of the overload
OVERLOAD = 10
LEAD = 3.0      # seconds until a wave is steady
TOKENS = {"throughput": 256, "overload": 64}    # of an answer
ENGINE = {"device": "cpu", "pages": 1024}
Pair = tuple[dict[str, Any], dict[str, Any]]    # a wave of overload, and one without


def bodies(seed: int, count: int, tokens: int) -> list[dict[str, Any]]:
    """Requests for the beginnings of held-out stories, continued by so many tokens."""
    return [
        {"prompt": p.messages[-1]["content"][:60], "temperature": 0.8, "seed": seed + k, "max_tokens": tokens,
         "ignore_eos": True}
        for k, p in enumerate(prompts(seed, count, held_out=True))
    ]  # fmt: skip


def throughput(model: Path, turns: int) -> dict[str, Any]:
    """The row of 16 streams."""
    found: dict[str, list[dict[str, Any]]] = {"http": [], "raw": []}
    spent: list[dict[str, float]] = []
    with Server(model, 64, ENGINE) as server:
        raw = Side("serving.raw", str(model), json.dumps(ENGINE))
        clients = Side("serving.load", str(server.port))
        for turn in range(turns + 1):
            wanted = bodies(1000 * turn, STREAMS, TOKENS["throughput"])
            streamed = [one | {"stream": True, "stream_options": {"include_usage": True}} for one in wanted]
            for who in ("http", "raw") if turn % 2 else ("raw", "http"):
                if who == "raw":
                    found[who].append(raw.ask(json.dumps({"bodies": wanted})))
                    continue
                before = server.seconds()
                found[who].append(clients.ask(json.dumps({"do": "streams", "bodies": streamed})))
                after = server.seconds()
                spent.append({name: after[name] - before[name] for name in after})
            http, other = found["http"][-1], found["raw"][-1]
            assert http.pop("texts") == other.pop("texts"), "HTTP and the engine wrote different texts"
            says = f"{_rate(http):.0f} through HTTP, {_rate(other):.0f} without"
            print(f"turn {turn}: {says}", file=sys.stderr)
        raw.close()
        clients.close()
    warm = {who: taken[1:] for who, taken in found.items()}
    ratios = [_rate(http) / _rate(other) for http, other in zip(warm["http"], warm["raw"], strict=True)]
    http_s, engine_s = (statistics.median(one[name] for one in spent[1:]) for name in ("http", "engine"))
    return {
        "name": f"{STREAMS} streams through HTTP, against the engine alone",
        "ours": round(statistics.median(map(_rate, warm["http"])), 1),
        "peer": round(statistics.median(map(_rate, warm["raw"])), 1),
        "ratio": round(statistics.median(ratios), 3),
        "share_of_limit": None,
        "ratios": [round(one, 3) for one in ratios],
        "wall_s": [round(statistics.median(one["wall"] for one in warm[who]), 3) for who in ("http", "raw")],
        "cpu_s_http": round(http_s, 2),
        "cpu_s_engine": round(engine_s, 2),
        "cpu_s_raw": round(statistics.median(one["cpu"] for one in warm["raw"]), 2),
        "cpu_s_clients": round(statistics.median(one["cpu"] for one in warm["http"]), 2),
        "events": round(statistics.median(one["frames"] for one in warm["http"])),
        "reads": round(statistics.median(one["reads"] for one in warm["http"])),
    }


def _rate(turn: dict[str, Any]) -> float:
    return float(turn["tokens"] / turn["wall"])


def overload(model: Path, seconds: float, turns: int) -> Iterator[dict[str, Any]]:
    """The rows of ten times as many clients as the server holds."""
    held = RUNNING + QUEUE
    wanted = bodies(7, 64, TOKENS["overload"])
    kinds = {
        "come again as told": {"patience": 1.0, "spread": 2.0, "lead": LEAD},
        "came all at once, and do not again": {"patience": 1e6, "spread": 0.0, "lead": 0.0},
    }
    found: dict[str, list[Pair]] = {name: [] for name in kinds}
    with Server(model, QUEUE, ENGINE | {"max_running": RUNNING}) as server:
        clients = Side("serving.load", str(server.port))

        def wave(kind: dict[str, Any], times: int) -> dict[str, Any]:
            wish = {"do": "waves", "bodies": wanted, "clients": times * held, "seconds": seconds, **kind}
            before = server.seconds()
            told = clients.ask(json.dumps(wish))
            return told | {"cpu_http": server.seconds()["http"] - before["http"]}

        wave(kinds["come again as told"], 1)
        for turn in range(turns):
            for name, kind in kinds.items():
                waves = {times: wave(kind, times) for times in ((1, OVERLOAD), (OVERLOAD, 1))[turn % 2]}
                found[name].append((waves[OVERLOAD], waves[1]))
                rates = [f"{one['tokens_per_s']:.0f}" for one in found[name][-1]]
                print(f"turn {turn + 1}, {name}: {rates[0]}, {rates[1]} without overload", file=sys.stderr)
        clients.close()
    for name, pairs in found.items():
        yield _overloaded(name, pairs)


def _overloaded(name: str, pairs: list[Pair]) -> dict[str, Any]:
    kept = [mine["tokens_per_s"] / plain["tokens_per_s"] for mine, plain in pairs]
    waits = sorted(ms for mine, _ in pairs for ms in mine["refused_ms"])
    total = {key: sum(mine[key] for mine, _ in pairs) for key in ("refused", "with_retry_after", "accepted")}
    spent = {
        key: [round(statistics.median(one[key] for one in side), 2) for side in zip(*pairs, strict=True)]
        for key in ("cpu", "cpu_http")
    }
    return {
        "name": f"{OVERLOAD} times overload, those refused {name}",
        "ours": round(statistics.median(mine["tokens_per_s"] for mine, _ in pairs), 1),
        "peer": round(statistics.median(plain["tokens_per_s"] for _, plain in pairs), 1),
        "ratio": round(statistics.median(kept), 3),
        "share_of_limit": None,
        "ratios": [round(one, 3) for one in kept],
        **total,
        "refused_ms": {f"p{p}": round(_percentile(waits, p), 1) for p in (50, 90, 99, 100)},
        "other_answers": sorted({status for mine, _ in pairs for status in mine["others"]}),
        "requests_per_s": round((total["refused"] + total["accepted"]) / sum(m["wall"] for m, _ in pairs), 1),
        "cpu_s_http": spent["cpu_http"],
        "cpu_s_clients": spent["cpu"],
    }


def _percentile(ranked: list[float], percent: int) -> float:
    return ranked[min(len(ranked) - 1, len(ranked) * percent // 100)] if ranked else 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few turns, a shorter training")
    parser.add_argument("--json", action="store_true", help="one JSON line a row")
    parser.add_argument("--turns", type=int, default=9, help="of the streams; a third of it of the overload")
    parser.add_argument("--model", type=Path, help="a trained model; else one is trained first")
    parser.add_argument("--only", choices=("throughput", "overload"), help="one half")
    asked = parser.parse_args()
    turns = 3 if asked.quick else asked.turns

    def say(row: dict[str, Any]) -> None:
        lines = "".join(f"{name:>22}  {value}\n" for name, value in row.items())
        print(json.dumps(row) if asked.json else lines, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        model = asked.model or train(Path(folder), 0.5 if asked.quick else 2.0)
        if asked.only != "overload":
            say(throughput(model, turns))
        if asked.only != "throughput":
            for row in overload(model, 6.0 if asked.quick else 12.0, max(1, turns // 3)):
                say(row)


if __name__ == "__main__":
    main()
