"""Which layers make a stage."""

from __future__ import annotations

from itertools import pairwise


def cut(layers: int, stages: int) -> list[range]:
    """Layers 0 to layers-1 in consecutive parts; where they do not come out even the first are longer by one.

    The last stage has the head and the MTP modules to run besides, so it is never among the longer ones.
    """
    assert 1 <= stages <= layers, f"{layers} layers in {stages} stages"
    each, longer = divmod(layers, stages)
    starts = [s * each + min(s, longer) for s in range(stages + 1)]
    return [range(first, last) for first, last in pairwise(starts)]
