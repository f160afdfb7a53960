"""The two plain tables: all forwards first (GPipe, arXiv 1811.06965), or one forward, one backward (1F1B)."""

from __future__ import annotations

from fathom.schedule.op import Item, Op, Schedule


def gpipe(ranks: int, micros: int) -> Schedule:
    """Every forward, then every backward; `micros` activations at once on every rank."""
    orders = tuple(
        tuple((Op(kind, rank, micro),) for kind in "FB" for micro in range(micros)) for rank in range(ranks)
    )
    return one_way("gpipe", ranks, micros, orders)


def one_f_one_b(ranks: int, micros: int) -> Schedule:
    """Forward and backward by turns, as soon as backwards arrive (arXiv 2006.09503).

    guarantee   idle (ranks-1)(F+B) per rank; at most min(ranks - rank, micros) activations
    """
    return one_way("1f1b", ranks, micros, tuple(_turns(ranks, micros, rank) for rank in range(ranks)))


def one_way(name: str, ranks: int, micros: int, orders: tuple[tuple[Item, ...], ...]) -> Schedule:
    """A schedule whose stage s is on rank s."""
    return Schedule(name, ranks, micros, (tuple(range(ranks)),), (0,) * micros, orders)


def _turns(ranks: int, micros: int, rank: int) -> tuple[Item, ...]:
    ahead = min(ranks - rank - 1, micros)  # forwards before the first turn
    order = [Op("F", rank, micro) for micro in range(ahead)]
    for micro in range(micros):
        if micro + ahead < micros:
            order.append(Op("F", rank, micro + ahead))
        order.append(Op("B", rank, micro))
    return tuple((op,) for op in order)
