"""MTP drafts against none, on a small model that was trained: part of `engine.py`."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from fathom.checkpoint.find import latest
from fathom.config.engine import EngineConfig
from fathom.config.load import load_recipe
from fathom.data.smallworld import prompts
from fathom.engine.engine import Engine
from fathom.engine.request import Request, SamplingParams
from fathom.train.start import prepare_corpus, start

TOKENS = 96     # of an answer
TURNS = 7


def train(folder: Path, minutes: float) -> Path:
    """A model of the demo's kind, trained for some minutes."""
    recipe = load_recipe("demo", [f"train.minutes={minutes}"]).recipe
    corpus = prepare_corpus(recipe, folder)
    recipe = load_recipe("demo", [f"train.minutes={minutes}", f"data.corpus={corpus}"]).recipe
    print(f"training for {minutes:g} minutes, to have a head that guesses", file=sys.stderr)
    start(recipe, folder / "run").train()
    place = latest(folder / "run")
    assert place is not None
    return place


def measure(model: Path, batch: int, mode: str) -> dict[str, Any]:
    """Tokens per second with drafts (`mode` on or auto) over those without, turn about, and what stood."""
    asked = [
        Request(
            text=f"{p.messages[-1]['content'][:60]}",
            sampling=SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True),
        )
        for p in prompts(77, batch * (TURNS + 1), held_out=True)
    ]
    engines = {
        name: Engine(model, EngineConfig(device="cpu", speculate=name, prefix_cache=False, pages=1024))
        for name in ("off", mode)
    }
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(TURNS + 1):
        part = asked[turn * batch : (turn + 1) * batch]
        for name in engines if turn % 2 else reversed(engines):
            began = time.perf_counter()
            engines[name].generate(part)
            seconds[name].append(time.perf_counter() - began)
    stats = engines[mode].stats
    warm = {name: taken[1:] for name, taken in seconds.items()}
    ratios = [off / on for off, on in zip(warm["off"], warm[mode], strict=True)]
    rate = {name: batch * TOKENS / statistics.median(taken) for name, taken in warm.items()}
    return {
        "name": f"mtp {mode}, batch {batch}, against off",
        "ours": round(rate[mode], 1),
        "peer": round(rate["off"], 1),
        "ratio": round(statistics.median(ratios), 3),
        "share_of_limit": None,
        "ratios": [round(r, 3) for r in ratios],
        "acceptance": round(stats.acceptance, 3),
        "tokens_per_trunk_pass": round(stats.tokens_per_pass, 3),
        "drafted": stats.drafted,
    }
