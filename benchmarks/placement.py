"""How long EPLB takes for V3's 58 layers of 256 experts, and how even it leaves the devices.

    python benchmarks/placement.py

The loads are drawn: a lognormal distribution whose logarithm spreads by 0.5, about what a router has that
nothing balances. `imbalance` is the fullest device's load over the mean, averaged over the layers.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from fathom.placement import Layout, in_order, place

LAYERS, EXPERTS, SPREAD, TURNS = 58, 256, 0.5, 5
UNITS = {   # report section 3.4
    "prefill, 32 devices in 4 nodes, 9 experts each": Layout(slots=288, devices=32, nodes=4, groups=8),
    "decoding, 144 devices, 2 experts each": Layout(slots=288, devices=144),
    "decoding, 320 devices, one expert each": Layout(slots=320, devices=320),
}


def main() -> None:
    """Print a JSON line for each unit."""
    style = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=style).parse_args()
    loads = np.random.default_rng(0).lognormal(sigma=SPREAD, size=(LAYERS, EXPERTS))
    plain = in_order(loads.shape, Layout(slots=EXPERTS, devices=32)).imbalance(loads).mean()
    print(json.dumps({"unit": "32 devices, 8 experts each, no copies", "imbalance": round(float(plain), 3)}))
    for name, layout in UNITS.items():
        took = [_timed(loads, layout) for _ in range(TURNS)]
        even = float(place(loads, layout).imbalance(loads).mean())
        print(json.dumps({"unit": name, "seconds": round(min(took), 4), "imbalance": round(even, 3)}))


def _timed(loads: np.ndarray, layout: Layout) -> float:
    start = time.perf_counter()
    place(loads, layout)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
