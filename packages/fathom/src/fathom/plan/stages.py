"""Which layers each stage has, so that the fullest rank has least to do."""

from __future__ import annotations

from typing import NamedTuple

from fathom.config.model import ModelConfig
from fathom.config.parallel import ParallelConfig


class Stage(NamedTuple):
    """What it holds. The embedding costs no time, and memory in the first."""

    dense: int
    moe: int
    first: bool = False
    last: bool = False      # with the head and the MTP modules


def cut(model: ModelConfig, parallel: ParallelConfig, extra_layers: float) -> list[Stage]:
    """The stages. Where a rank has two (two directions, or a turn), they are one load.

    extra_layers    what the last stage does besides its layers, in layers

    Whole layers, all taken to cost the same, go one by one to the ranks that have least. The report does not
    say how it cut the network.
    """
    P, count = parallel.pp, parallel.stages
    two = parallel.schedule in ("dualpipe", "dualpipev")
    held = [sorted({r, count - 1 - r}) if two else [r] for r in range(P)]
    sets = [list(one) for one in dict.fromkeys(map(tuple, held))]
    layers = [len(stages) for stages in sets]
    load = [len(stages) + extra_layers * (count - 1 in stages) for stages in sets]
    for _ in range(model.num_layers - sum(layers)):
        least = min(range(len(sets)), key=load.__getitem__)
        layers[least] += 1
        load[least] += 1.0
    sizes = [0] * count
    for n, stages in zip(layers, sets, strict=True):
        for k, stage in enumerate(stages):
            sizes[stage] = n // len(stages) + (len(stages) - 1 - k < n % len(stages))   # early ones hold more
    return _filled(model, sizes)


def _filled(model: ModelConfig, sizes: list[int]) -> list[Stage]:
    made, at = [], 0
    for k, size in enumerate(sizes):
        dense = max(min(model.dense_layers - at, size), 0)
        made.append(Stage(dense, size - dense, k == 0, k == len(sizes) - 1))
        at += size
    return made
