"""How far tokens travel to their experts and back (report 3.2.2)."""

from __future__ import annotations

from math import comb
from typing import NamedTuple

from fathom.config.model import ModelConfig

TILE, SCALE = 128, 4            # FP8: one fp32 scale for each 128 numbers
BF16 = 2


class Traffic(NamedTuple):
    """Of one token in one MoE layer's forward; routers are taken to choose evenly.

    nodes, devices      other nodes that it is sent to; devices that it is then handed to, but for the one it
                        came in by
    dispatch, combine   bytes of one copy on the way there and back
    """

    nodes: float
    devices: float
    dispatch: int
    combine: int


def traffic(model: ModelConfig, ep: int, per_node: int, *, fp8: bool) -> Traffic:
    """With a layer's experts in equal blocks on `ep` ranks.

    A token goes to each node once, to the rank of its own number there, which hands it on within the node.
    """
    D = model.hidden_size
    nodes = max(ep // per_node, 1)
    on_node = min(ep, per_node)
    hit_nodes = nodes * _hit(model, nodes)
    hit_ranks = ep * _hit(model, ep)
    foreign = hit_nodes * (nodes - 1) / nodes
    inside = hit_ranks * (on_node - 1) / on_node
    wide = BF16 * D
    return Traffic(foreign, inside, D + SCALE * (D // TILE) if fp8 else wide, wide)


def _hit(model: ModelConfig, parts: int) -> float:
    """The chance that a token reaches one of `parts` equal blocks of experts.

    It chooses M of G groups, then K experts in them, all equally likely.
    """
    m = model.moe
    G, M, K, size = m.num_groups, m.groups_per_token, m.experts_per_token, m.num_experts // m.num_groups
    share = m.num_experts // parts
    whole, within = divmod(share, size)         # a block is some groups, or a part of one
    own = max(whole, 1)
    reach = 0.0
    for chosen in range(min(own, M) + 1):
        if M - chosen > G - own:
            continue
        chance = comb(own, chosen) * comb(G - own, M - chosen) / comb(G, M)
        inside = chosen * (size if whole else within)
        missed = comb(M * size - inside, K) / comb(M * size, K)
        reach += chance * (1.0 - missed)
    return reach
