"""The engine in a process without HTTP: reads requests, answers how long they took.

    cd benchmarks; python -m serving.raw MODEL SETTINGS

A wish is {"bodies": [...]}: completions as they go to the server; what is not sampling is left out here.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from fathom.config.engine import EngineConfig
from fathom.engine import Engine, Request, SamplingParams

SAMPLING = ("temperature", "max_tokens", "ignore_eos", "seed")


def asked(body: dict[str, Any]) -> Request:
    """The same as the server makes of it."""
    sampling = SamplingParams(**{name: body[name] for name in SAMPLING if name in body})
    return Request(text=body["prompt"], sampling=sampling)


def main() -> None:
    """Answer until stdin ends."""
    model, settings = sys.argv[1:]
    engine = Engine(model, EngineConfig(**json.loads(settings)))
    for line in sys.stdin:
        requests = [asked(body) for body in json.loads(line)["bodies"]]
        began, own = time.perf_counter(), time.process_time()
        results = engine.generate(requests)
        wall, own = time.perf_counter() - began, time.process_time() - own
        tokens = sum(len(one.tokens) for result in results for one in result.completions)
        texts = [result.text for result in results]
        print(json.dumps({"wall": wall, "cpu": own, "tokens": tokens, "texts": texts}), flush=True)


if __name__ == "__main__":
    main()
