"""ZB1P: 1F1B whose backwards for weights fill the end (arXiv 2401.10241, ZB-H1)."""

from __future__ import annotations

from fathom.schedule.one_f_one_b import one_way
from fathom.schedule.op import Item, Op, Schedule


def zb1p(ranks: int, micros: int) -> Schedule:
    """As 1F1B, with "I" and "W" in place of "B"; rank r is r micro-batches behind with its "W".

    Late ranks start late and are done with "I" early: the "W" they put off fill that end.

    guarantee   idle (ranks-1)(F+B-2W) per rank when W <= F, W <= I and micros >= ranks; at most
                min(ranks, micros) activations, those that wait for their "W" included
    """
    return one_way("zb1p", ranks, micros, tuple(_turns(ranks, micros, rank) for rank in range(ranks)))


def _turns(ranks: int, micros: int, rank: int) -> tuple[Item, ...]:
    ahead, behind = min(ranks - rank - 1, micros), min(rank, micros)
    order = [Op("F", rank, micro) for micro in range(ahead)]
    for micro in range(micros):
        if micro + ahead < micros:
            order.append(Op("F", rank, micro + ahead))
        order.append(Op("I", rank, micro))
        if micro >= behind:
            order.append(Op("W", rank, micro - behind))
    order += [Op("W", rank, micro) for micro in range(micros - behind, micros)]
    return tuple((op,) for op in order)
