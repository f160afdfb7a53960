"""One battery for every table, and tables broken on purpose that it must refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from fathom.config.errors import ConfigError
from fathom.schedule import SCHEDULES, Item, Op, Schedule, build
from fathom.schedule.check import (
    channels,
    check,
    every_op_once,
    forward_before_backward,
    never_stuck,
    sends_meet_receives,
)
from fathom.schedule.dualpipe import dualpipe_steps, dualpipev_steps
from fathom.schedule.figures import peak_activations, weight_copies
from fathom.schedule.place import place

SIZES = [(1, 1), (1, 4), (2, 1), (2, 4), (3, 7), (4, 2), (4, 8), (4, 14), (8, 16), (8, 20), (16, 120)]


def exists(name: str, ranks: int, micros: int) -> bool:
    """By the rules of the reference, said here a second time."""
    if name == "dualpipe":
        return ranks % 2 == 0 and micros % 2 == 0 and micros >= 2 * ranks
    return name != "dualpipev" or micros >= 2 * ranks


TABLES = [(name, *size) for name in SCHEDULES for size in SIZES if exists(name, *size)]
NO_TABLES = [(name, *size) for name in SCHEDULES for size in SIZES if not exists(name, *size)]
CHECKS = [every_op_once, forward_before_backward, sends_meet_receives, never_stuck, place]


@pytest.mark.parametrize("check_it", CHECKS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("name,ranks,micros", TABLES)
def test_every_table(name: str, ranks: int, micros: int, check_it: Callable[[Schedule], object]) -> None:
    check_it(build(name, ranks, micros))


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "zb1p"])
def test_one_way_tables_need_no_receive_ahead(name: str) -> None:
    never_stuck(build(name, 8, 20), slots=0)


@pytest.mark.parametrize("name", ["dualpipe", "dualpipev"])
def test_two_way_tables_need_one(name: str) -> None:
    """If sends wait until the receiver has come to the very item, all ranks wait for each other."""
    with pytest.raises(AssertionError, match="0 receives ahead stops"):
        never_stuck(build(name, 4, 8), slots=0)


@pytest.mark.parametrize("name,ranks,micros", TABLES)
def test_activations_as_documented(name: str, ranks: int, micros: int) -> None:
    falling = tuple(min(ranks - rank, micros) for rank in range(ranks))
    level = {"gpipe": micros, "zb1p": min(ranks, micros), "dualpipe": ranks + 1, "dualpipev": 2 * ranks + 1}
    schedule = build(name, ranks, micros)
    assert peak_activations(schedule) == (falling if name == "1f1b" else (level[name],) * ranks)
    to_inputs = falling if name in ("1f1b", "zb1p") else (level[name],) * ranks
    assert peak_activations(schedule, until_weights=False) == to_inputs


@pytest.mark.parametrize("name", SCHEDULES)
def test_where_weights_are(name: str) -> None:
    schedule = build(name, 4, 8)
    assert weight_copies(schedule) == (2 if name == "dualpipe" else 1)
    two = {"dualpipe": (1, 2), "dualpipev": (1, 6)}
    assert schedule.stages_of(1) == two.get(name, (1,))
    if name == "dualpipe":
        for stage in range(4):
            op = Op("F", stage, 0), Op("F", stage, 4)  # of both halves of the micro-batches
            assert [schedule.rank_of(one) for one in op] == [stage, 3 - stage]


STEPS_8_20 = [
    (6, 1, 3, 3, 3, 1, 3, 1), (4, 2, 2, 4, 2, 2, 2, 2), (2, 3, 1, 5, 1, 3, 1, 3), (0, 4, 0, 6, 0, 4, 0, 4),
]  # fmt: skip


def test_steps_of_the_open_source_scheduler() -> None:
    """Figures of its own dualpipe.py for 8 ranks x 20 and 16 ranks x 120 micro-batches."""
    assert [dualpipe_steps(8, 20, rank) for rank in range(8)] == STEPS_8_20 + STEPS_8_20[::-1]
    ends = (14, 1, 7, 45, 7, 1, 7, 1), (0, 8, 0, 52, 0, 8, 0, 8)
    assert tuple(dualpipe_steps(16, 120, rank) for rank in (0, 7, 8, 15)) == (*ends, *ends[::-1])
    assert [dualpipev_steps(4, 10, rank) for rank in range(4)] == STEPS_8_20


def test_weights_put_off_as_in_the_open_source_scheduler() -> None:
    def put_off(schedule: Schedule) -> list[int]:
        return [sum(op.kind == "W" for item in order for op in item) for order in schedule.orders]

    assert put_off(build("dualpipe", 8, 20)) == [7, 6, 5, 4, 4, 5, 6, 7]
    assert put_off(build("dualpipe", 16, 120)) == [*range(15, 7, -1), *range(8, 16)]
    assert put_off(build("dualpipev", 4, 20)) == [7, 6, 5, 4]


def test_dualpipe_on_one_half_mirrors_the_other() -> None:
    schedule = build("dualpipe", 8, 20)
    for rank in range(4):
        mirrored = (
            tuple(op._replace(micro=(op.micro + 10) % 20) for op in item) for item in schedule.orders[rank]
        )
        assert schedule.orders[7 - rank] == tuple(mirrored)


def test_only_the_first_main_pair_of_the_middle_is_apart() -> None:
    schedule = build("dualpipe", 8, 20)
    pairs = [sum(len(item) == 2 for item in order) for order in schedule.orders]
    assert pairs == [2 * s[3] + s[4] - (s[0] == 0) for s in STEPS_8_20 + STEPS_8_20[::-1]]


@pytest.mark.parametrize("name,ranks,micros", NO_TABLES)
def test_what_does_not_exist_names_the_number(name: str, ranks: int, micros: int) -> None:
    """Following the advice leads to a table, in two steps at most."""
    for _ in range(3):
        try:
            check(build(name, ranks, micros))
            return
        except ConfigError as error:
            setting, number = str(error).partition("Fix: set ")[2].split(" to ")
            number = int(number.split(" or ")[-1])
            ranks, micros = (number, micros) if setting == "ranks" else (ranks, number)
    raise AssertionError(f"no table after three pieces of advice: {ranks} ranks, {micros} micro-batches")


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("ranks,micros", [(0, 4), (-2, 8), (4, 0), (4, -8), (10**6, 10**6)])
def test_nonsense_never_builds(name: str, ranks: int, micros: int) -> None:
    with pytest.raises(ConfigError, match="Fix: set "):
        build(name, ranks, micros)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no schedule 'dualpip'\. Fix: use dualpipe, the nearest"):
        build("dualpip", 8, 20)


def with_order(schedule: Schedule, rank: int, order: Sequence[Item]) -> Schedule:
    orders = list(schedule.orders)
    orders[rank] = tuple(order)
    return replace(schedule, orders=tuple(orders))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_table_with_one_item_dropped_or_doubled_is_refused(name: str) -> None:
    schedule = build(name, 4, 8)
    for rank, order in enumerate(schedule.orders):
        for n in range(len(order)):
            for changed in ([*order[:n], *order[n + 1 :]], [*order[: n + 1], *order[n:]]):
                with pytest.raises(AssertionError):
                    check(with_order(schedule, rank, changed))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_table_with_two_like_items_swapped_is_refused(name: str) -> None:
    """The same kind and stage, another micro-batch: all is there once, but one channel is out of order."""
    schedule = build(name, 4, 8)
    for rank, order in enumerate(schedule.orders):
        last: dict[tuple[object, ...], int] = {}
        for n, item in enumerate(order):
            like = tuple((op.kind, op.stage) for op in item)
            if like in last:
                changed = list(order)
                changed[n], changed[last[like]] = order[last[like]], order[n]
                with pytest.raises(AssertionError):
                    check(with_order(schedule, rank, changed))
            last[like] = n


def test_ranks_that_wait_for_each_other_are_found() -> None:
    """Everything once, in order on each rank and in each channel; and yet nothing ever starts."""
    f, b = Op("F", 0, 0), Op("B", 0, 0)
    first = [(f,), (b,), (f._replace(micro=1),), (b._replace(micro=1),)]
    last = [(op._replace(stage=1),) for op in (f, f._replace(micro=1), b, b._replace(micro=1))]
    schedule = with_order(with_order(build("gpipe", 2, 2), 0, first), 1, last)
    for passes in (every_op_once, forward_before_backward, sends_meet_receives):
        passes(schedule)
    for stops in (never_stuck, place):
        with pytest.raises(AssertionError, match="stops"):
            stops(schedule)


def test_a_work_item_on_the_wrong_rank_is_refused() -> None:
    schedule = build("1f1b", 2, 2)
    orders = schedule.orders[::-1]
    with pytest.raises(AssertionError, match="is on rank 0, not 1"):
        every_op_once(replace(schedule, orders=orders))


def test_what_turns_round_in_dualpipev_needs_no_channel() -> None:
    schedule = build("dualpipev", 4, 8)
    pairs = {(channel.source, channel.to) for channel in channels(schedule)}
    assert pairs == {(r, r + 1) for r in range(3)} | {(r + 1, r) for r in range(3)}
    assert all(len(messages) == 8 for messages in channels(schedule).values())
