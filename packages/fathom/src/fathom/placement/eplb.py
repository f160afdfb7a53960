"""The published load balancer of experts, all layers at once (report 3.4; github.com/deepseek-ai/EPLB).

Axes:  L layers   E experts   G groups   n items   m packs   R slots
"""

from __future__ import annotations

import numpy as np

from fathom.placement.layout import Layout, Loads, Placement, Whole


def eplb(loads_LE: Loads, layout: Layout) -> Placement:
    """Copies of the most loaded experts, and all copies packed onto devices of like load.

    Hierarchical where the groups divide by the nodes: groups are packed onto nodes, experts copied and packed
    within a node, so that a token's nodes stay those that its router chose. Else the nodes are forgotten.
    """
    L, E = loads_LE.shape
    layout.suits(E)
    nodes, groups = (layout.nodes, layout.groups) if layout.groups % layout.nodes == 0 else (1, 1)
    size = E // groups

    node_LG, place_LG = packs(loads_LE.reshape(L, groups, size).sum(axis=2), nodes)
    group_at_LG = np.empty((L, groups), dtype=np.int64)       # the group at each place, node by node
    np.put_along_axis(group_at_LG, node_LG * (groups // nodes) + place_LG, np.arange(groups)[None], axis=1)
    expert_at_LE = (group_at_LG[..., None] * size + np.arange(size)).reshape(L, E)

    by_node = np.take_along_axis(loads_LE, expert_at_LE, axis=1).reshape(L * nodes, E // nodes)
    expert_NR, copies_NE = copies(by_node, layout.slots // nodes)
    share_NR = np.take_along_axis(by_node / copies_NE, expert_NR, axis=1)
    device_NR, slot_NR = packs(share_NR, layout.devices // nodes)
    found_NR = np.empty_like(expert_NR)
    np.put_along_axis(
        found_NR, device_NR * (layout.slots // layout.devices) + slot_NR, expert_NR, axis=1
    )
    within_LNR = found_NR.reshape(L, nodes, -1) + (E // nodes) * np.arange(nodes)[:, None]
    expert_LR = np.take_along_axis(expert_at_LE, within_LNR.reshape(L, -1), axis=1)
    return Placement(expert_LR, E, layout.devices)


def packs(loads_Ln: Loads, m: int) -> tuple[Whole, Whole]:
    """Items into m packs of n/m each. -> each item's pack and its place in it, [L, n] both

    From the heaviest down, each goes to the lightest pack with room; the first of equals.
    """
    L, n = loads_Ln.shape
    if n == m:
        return np.tile(np.arange(n), (L, 1)), np.zeros((L, n), dtype=np.int64)
    pack, place = np.empty((2, L, n), dtype=np.int64)
    weight, filled = np.zeros((L, m)), np.zeros((L, m), dtype=np.int64)
    rows = np.arange(L)
    for item in np.argsort(-loads_Ln, axis=1, kind="stable").T:
        to = np.argmin(np.where(filled < n // m, weight, np.inf), axis=1)
        pack[rows, item], place[rows, item] = to, filled[rows, to]
        weight[rows, to] += loads_Ln[rows, item]
        filled[rows, to] += 1
    return pack, place


def copies(loads_LE: Loads, R: int) -> tuple[Whole, Whole]:
    """R copies of E experts. -> the expert of each copy [L, R], the copies of each expert [L, E]

    One of each, in order; then one more at a time of that whose copies are the most loaded.
    """
    L, E = loads_LE.shape
    expert = np.tile(np.arange(R), (L, 1))
    count = np.ones((L, E), dtype=np.int64)
    rows = np.arange(L)
    for k in range(E, R):
        expert[:, k] = most = np.argmax(loads_LE / count, axis=1)
        count[rows, most] += 1
    return expert, count
