"""On a time axis the tables take what the report says, and look as they should."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.errors import ConfigError
from fathom.schedule import SCHEDULES, Op, Times, build, draw, place
from fathom.schedule.figures import bubble_by_formula, figures
from fathom.schedule.place import needs

NEAR = 1e-6


MAKESPANS = {"gpipe": 8100, "1f1b": 8100, "zb1p": 6700, "dualpipe": 5760}


@pytest.mark.parametrize("name,makespan", MAKESPANS.items())
def test_eight_ranks_twenty_micro_batches(name: str, makespan: float) -> None:
    timeline = place(build(name, 8, 20), Times(forward=100, backward=200, weight=100, pair=240))
    assert timeline.makespan == makespan


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("ranks,micros", [(2, 4), (4, 8), (4, 14), (8, 16), (8, 20)])
@pytest.mark.parametrize("pair", [2, 2.4, 3])
def test_the_longest_bubble_is_the_formula_s(name: str, ranks: int, micros: int, pair: float) -> None:
    """At F = I = W, whatever a pair takes."""
    timeline = place(build(name, ranks, micros), Times(1, 2, 1, pair))
    formula = bubble_by_formula(timeline.schedule, timeline.times)
    assert max(timeline.bubbles) == pytest.approx(formula, abs=NEAR)


def test_the_report_s_example() -> None:
    """16 ranks, F = 1, B = 2, W = 2/3, a pair 2.2. DualPipe stays below its formula there."""
    times = Times(1, 2, 2 / 3, 2.2)
    bubbles = {name: max(place(build(name, 16, 120), times).bubbles) for name in ("1f1b", "zb1p", "dualpipe")}
    assert bubbles["1f1b"] == pytest.approx(45)
    assert bubbles["zb1p"] == pytest.approx(25, abs=0.01)
    assert bubbles["dualpipe"] == pytest.approx(14.4, abs=0.01)
    assert bubble_by_formula(build("dualpipe", 16, 120), times) == pytest.approx(15.4)


SIZE = st.sampled_from([(2, 4), (2, 10), (4, 8), (4, 12), (6, 12), (8, 16)])
LENGTH = st.floats(0.25, 4)


@given(SIZE, LENGTH, LENGTH, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_dualpipe_never_waits_longer(
    size: tuple[int, int], forward: float, inputs: float, weight: float, overlap: float
) -> None:
    """Where neither F nor W is longer than I, and a pair takes between its longer half and both."""
    inputs, weight = max(forward, inputs), weight * max(forward, inputs)
    backward = inputs + weight
    times = Times(forward, backward, weight, max(forward, backward) + overlap * min(forward, backward))
    ranks, micros = size
    for schedule in (build("dualpipe", ranks, micros), build("dualpipev", ranks // 2, micros)):
        formula = bubble_by_formula(schedule, times)
        assert max(place(schedule, times).bubbles) <= formula + NEAR


def test_dualpipe_waits_longer_than_its_formula_where_forwards_are_long() -> None:
    """The formula is no bound outside of that: here I is half of F."""
    times = Times(forward=2, backward=2, weight=1, pair=3)
    schedule = build("dualpipe", 8, 16)
    assert max(place(schedule, times).bubbles) > bubble_by_formula(schedule, times) + 1


@given(st.sampled_from([(1, 1), (2, 2), (3, 5), (4, 4), (8, 9)]), LENGTH, LENGTH, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_bubbles_of_the_one_way_tables(
    size: tuple[int, int], forward: float, inputs: float, weight: float
) -> None:
    """1F1B and GPipe with any times; ZB1P where W is longer than neither F nor I. On every rank alike."""
    weight *= min(forward, inputs)
    times = Times(forward, inputs + weight, weight, 1)
    for name in ("gpipe", "1f1b", "zb1p"):
        timeline = place(build(name, *size), times)
        formula = bubble_by_formula(timeline.schedule, times)
        assert timeline.bubbles == pytest.approx([formula] * size[0], abs=NEAR)


@given(SIZE, LENGTH, LENGTH, st.floats(0, 1), LENGTH, st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_nothing_starts_before_what_it_needs(
    size: tuple[int, int], forward: float, backward: float, weight: float, pair: float, transfer: float
) -> None:
    times = Times(forward, backward, weight * backward, pair, transfer)
    for name in SCHEDULES:
        schedule = build(name, *size)
        timeline = place(schedule, times)
        at = {op: (rank, one) for rank, row in enumerate(timeline.rows) for one in row for op in one.item}
        for rank, row in enumerate(timeline.rows):
            assert [one.item for one in row] == list(schedule.orders[rank])
            assert all(b.start >= a.end - NEAR for a, b in pairwise(row))
        for op, (rank, one) in at.items():
            for choices in needs(schedule, op):
                source, before = next(at[choice] for choice in choices if choice in at)
                assert one.start >= before.end + transfer * (source != rank) - NEAR, (op, choices)


def test_transfers_are_waited_for_on_the_way() -> None:
    """One micro-batch: three hops down, three up."""
    assert place(build("1f1b", 4, 1), Times(transfer=7)).makespan == 4 * 300 + 6 * 7


@pytest.mark.parametrize(
    "name,value", [("forward", 0), ("backward", -1), ("pair", float("nan")), ("weight", float("inf")),
                   ("weight", -1), ("weight", 201), ("transfer", -1)]
)  # fmt: skip
def test_times_that_are_none(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{name}=.*Fix: set {name} "):
        Times(**{name: value})


def test_figures_add_up() -> None:
    timeline = place(build("dualpipe", 8, 20))
    found = figures(timeline)
    assert found.bubbles == (300, 360, 420, 420, 420, 420, 360, 300)
    assert found.idle_share == pytest.approx(sum(found.bubbles) / (8 * found.makespan))
    assert all(a + b == found.makespan for a, b in zip(timeline.busy, found.bubbles, strict=True))


def test_1f1b() -> None:
    assert "\n" + draw(place(build("1f1b", 4, 4), Times(1, 1, 0.5, 2))) == """
F0 F1 F2 F3 .  .  .  B0 .  B1 .  B2 .  B3
.  F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3
.  .  F0 F1 .  B0 F2 B1 F3 B2 .  B3
.  .  .  F0 B0 F1 B1 F2 B2 F3 B3"""


def test_gpipe() -> None:
    assert "\n" + draw(place(build("gpipe", 3, 3))) == """
F0 F1 F2 .  .  .  .  .  .  B0--- B1--- B2---
.  F0 F1 F2 .  .  .  B0--- B1--- B2---
.  .  F0 F1 F2 B0--- B1--- B2---"""


def test_zb1p() -> None:
    assert "\n" + draw(place(build("zb1p", 4, 6))) == """
F0 F1 F2 F3 .  .  .  I0 W0 F4 I1 W1 F5 I2 W2 I3 W3 I4 W4 I5 W5
.  F0 F1 F2 .  .  I0 F3 I1 W0 F4 I2 W1 F5 I3 W2 I4 W3 I5 W4 W5
.  .  F0 F1 .  I0 F2 I1 F3 I2 W0 F4 I3 W1 F5 I4 W2 I5 W3 W4 W5
.  .  .  F0 I0 F1 I1 F2 I2 F3 I3 W0 F4 I4 W1 F5 I5 W2 W3 W4 W5"""


def test_dualpipe() -> None:
    assert "\n" + draw(place(build("dualpipe", 4, 8), Times(1, 2, 1, 2))) == """
F0 F1 F2 f4 i4 w4 f5 F3&b5 .  f6&B0 b6--- f7&B1 b7--- I2 W2 I3 W3
.  F0 f4 F1 f5 F2 b4--- f6&B0 F3&b5 f7&B1 b6--- B2--- i7 I3 w7 W3
.  f4 F0 f5 F1 f6 B0--- F2&b4 f7&B1 F3&b5 B2--- b6--- I3 i7 W3 w7
f4 f5 f6 F0 I0 W0 F1 f7&B1 .  F2&b4 B2--- F3&b5 B3--- i6 w6 i7 w7"""


def test_dualpipev() -> None:
    assert "\n" + draw(place(build("dualpipev", 2, 4), Times(1, 2, 1, 3))) == """
F0 F1 F2 f0 i0 w0 f1 F3&b1--- .  f2&B0--- b2--- .  f3&B1--- b3--- I2 W2 I3 W3
.  F0 f0 F1 f1 F2 b0--- f2&B0--- F3&b1--- f3&B1--- b2--- B2--- .  i3 I3 w3 W3"""


def test_a_cut_says_so() -> None:
    lines = draw(place(build("dualpipe", 4, 8)), width=20).splitlines()
    assert {len(line) for line in lines} == {20} and all(line.endswith("…") for line in lines)


def test_every_item_is_in_the_drawing() -> None:
    """The shortest one too, in times that fit no column."""
    times = Times(forward=1, backward=1.3, weight=0.31, pair=1.7)
    schedule = build("dualpipe", 4, 14)
    words = draw(place(schedule, times)).replace(".", " ").replace("-", " ").split()
    drawn = [part for word in words for part in word.split("&")]
    every = [op for order in schedule.orders for item in order for op in item]
    small = [Op(op.kind.lower(), 0, op.micro) if op.micro >= 7 else op for op in every]
    assert sorted(drawn) == sorted(f"{op.kind}{op.micro}" for op in small)
