"""DualPipe and DualPipeV: eight steps on every rank, fed from two sides (report section 3.2.1).

A rank holds two stages and calls them its phases. In DualPipe micro-batches enter at both ends: phase 0 takes
those that enter at the nearer end, phase 1 those that come from the farther one. In DualPipeV ("cut in half")
all enter at rank 0, go down in phase 0, turn round on the last rank, and come back up in phase 1. Steps are
the same: `depth` ranks lie between an end and the middle (or the turn), and a rank is `near` of them from it.

    step   repeats          what
    1      2(depth-near-1)  F0
    2      near+1           F0, F1
    3      depth-near-1     I1, W, F1
    4      the rest         F0 & B1, then F1 & B0: pairs that overlap
    5      depth-near-1     B1, then F1 & B0
    6      near+1           B1, B0, from half-way on with the weights' part put off
    7      depth-near-1     W, I0
    8      near+1           W
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from fathom.schedule.op import Item, Op, Schedule


class Work(NamedTuple):
    """One thing to do, before it has a stage and a micro-batch."""

    kind: str  # as in Op
    phase: int  # 0 or 1; of "W" without meaning: the oldest one put off is done


def dualpipe_steps(ranks: int, micros: int, rank: int) -> tuple[int, ...]:
    """How often DualPipe's eight steps repeat on a rank."""
    return _repeats(ranks // 2, min(rank, ranks - 1 - rank), micros // 2)


def dualpipev_steps(ranks: int, micros: int, rank: int) -> tuple[int, ...]:
    """How often DualPipeV's eight steps repeat on a rank."""
    return _repeats(ranks, rank, micros)


def dualpipe(ranks: int, micros: int) -> Schedule:
    """The first half of the micro-batches takes route 0, down the ranks, the second half route 1, up.

    `ranks` is even, `micros` even and at least 2*ranks. The weights of stage s are on ranks s and ranks-1-s.

    guarantee   at most ranks+1 activations per rank
    """
    half = micros // 2
    orders = []
    for rank in range(ranks):
        route_of_phase = (0, 1) if rank < ranks // 2 else (1, 0)
        stages = tuple((rank, ranks - 1 - rank)[route] for route in route_of_phase)
        first = tuple(route * half for route in route_of_phase)
        repeats = dualpipe_steps(ranks, micros, rank)
        orders.append(_number(_eight_steps(repeats), stages, first))
    down = tuple(range(ranks))
    return Schedule("dualpipe", ranks, micros, (down, down[::-1]), (0,) * half + (1,) * half, tuple(orders))


def dualpipev(ranks: int, micros: int) -> Schedule:
    """All micro-batches go down and come back; rank r holds stages r and 2*ranks-1-r, and no weights twice.

    `micros` is at least 2*ranks.

    guarantee   at most 2*ranks+1 activations per rank
    """
    down = tuple(range(ranks))
    orders = tuple(
        _number(_eight_steps(dualpipev_steps(ranks, micros, rank)), (rank, 2 * ranks - 1 - rank), (0, 0))
        for rank in down
    )
    return Schedule("dualpipev", ranks, micros, (down + down[::-1],), (0,) * micros, orders)


def _repeats(depth: int, near: int, micros_of_a_phase: int) -> tuple[int, ...]:
    far = depth - near - 1
    main = micros_of_a_phase - 2 * depth + near + 1
    return 2 * far, near + 1, far, main, far, near + 1, far, near + 1


def _eight_steps(repeats: tuple[int, ...]) -> Iterator[tuple[Work, ...]]:
    one, two, three, four, five, six, seven, eight = repeats
    f0, f1, b0, b1, i0, i1 = (Work(kind, phase) for kind in "FBI" for phase in (0, 1))
    weights = (Work("W", 0),)
    yield from [(f0,)] * one
    yield from [(f0,), (f1,)] * two
    yield from [(i1,), weights, (f1,)] * three
    for turn in range(four):
        in_the_middle = one == 0
        if turn == 0 and in_the_middle:
            yield from [(f0,), (b1,)]  # apart, so that the ranks beside it get F0 sooner
        else:
            yield (f0, b1)
        yield (f1, b0)
    yield from [(b1,), (f1, b0)] * five
    for turn in range(six):
        split_b1 = turn > six // 2 or (turn == six // 2 and six % 2 == 0)
        split_b0 = turn >= six // 2
        yield from [(i1 if split_b1 else b1,), (i0 if split_b0 else b0,)]
    yield from [weights, (i0,)] * seven
    yield from [weights] * eight


def _number(
    steps: Iterator[tuple[Work, ...]], stages: tuple[int, ...], first: tuple[int, ...]
) -> tuple[Item, ...]:
    """Give each work its stage and micro-batch: in order within forwards and backwards of a phase."""
    forwards, backwards = list(first), list(first)
    put_off: deque[Op] = deque()

    def op(work: Work) -> Op:
        if work.kind == "W":
            return put_off.popleft()
        counter = forwards if work.kind == "F" else backwards
        micro, stage = counter[work.phase], stages[work.phase]
        counter[work.phase] += 1
        if work.kind == "I":
            put_off.append(Op("W", stage, micro))
        return Op(work.kind, stage, micro)

    return tuple(tuple(op(work) for work in item) for item in steps)
