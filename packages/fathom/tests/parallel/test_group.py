"""One battery for every kind of group: ranks as threads and as processes keep the same promises.

The checks of a kind and size share one world: starting processes takes longer than all of them.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fathom.parallel.group import Alone, Group, Line, RankFailedError, barrier
from fathom.parallel.threads import Threads

DTYPES = [torch.float8_e4m3fn, torch.bfloat16, torch.float32, torch.int64, torch.uint8, torch.bool]
Check = Callable[[Group], None]
CHECKS: dict[str, Check] = {}
SKIPPED = "an earlier check failed"


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def noise(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (8 * x).to(dtype) if dtype != torch.bool else x > 0


def same(a: Tensor, b: Tensor) -> bool:
    """The same shape, dtype and bits."""
    bits = [x.contiguous().view(-1).view(torch.uint8) for x in (a, b)]
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(bits[0], bits[1])


def rows_for(source: int, to: int) -> int:
    """Uneven, and none at all from rank 0 to itself or its neighbour."""
    return 0 if source == 0 and to <= 1 else 2 * source + to


@check
def rows_arrive_whole_and_in_order(group: Group) -> None:
    """Everything that rank r sent to rank q is in the q-th part of what q gathers from r."""
    for dtype in DTYPES:
        for shape in ((), (3,), (2, 5)):
            part = {
                (a, b): noise(rows_for(a, b), *shape, seed=100 * a + b, dtype=dtype)
                for a in range(group.size) for b in range(group.size)
            }
            sent = [rows_for(group.rank, b) for b in range(group.size)]
            received = [rows_for(a, group.rank) for a in range(group.size)]
            x = torch.cat([part[group.rank, b].view(-1, *shape) for b in range(group.size)])
            handle = group.all_to_all(x, sent, received)
            got = handle.wait()
            want = torch.cat([part[a, group.rank].view(-1, *shape) for a in range(group.size)])
            assert same(got, want), f"{dtype} {shape}"
            assert handle.wait() is got


@check
def a_rank_may_have_no_rows_at_all(group: Group) -> None:
    """Only the last rank sends, only to rank 0; then nobody sends anything."""
    last, me = group.size - 1, group.rank
    x = torch.full((4 if me == last else 0, 3), 7.0)
    sent = [len(x) if r == 0 else 0 for r in range(group.size)]
    received = [4 if r == last and me == 0 else 0 for r in range(group.size)]
    assert group.all_to_all(x, sent, received).wait().shape == (4 if me == 0 else 0, 3)
    none = [0] * group.size
    assert group.all_to_all(x[:0], none, none).wait().shape == (0, 3)


@check
def views_and_tensors_with_a_gradient_are_sent(group: Group) -> None:
    x = noise(6, 4 * group.size, seed=group.rank).requires_grad_().t()  # not contiguous
    each = [4] * group.size
    got = group.all_to_all(x, each, each).wait()
    me = slice(4 * group.rank, 4 * group.rank + 4)
    want = torch.cat([noise(6, 4 * group.size, seed=r).t()[me] for r in range(group.size)])
    assert same(got, want) and not got.requires_grad


@check
def exchanges_may_be_waited_for_in_any_order(group: Group) -> None:
    each = [1] * group.size
    handles = [group.all_to_all(torch.full((group.size,), 10 * i + group.rank), each, each) for i in range(9)]
    for i in (4, 8, 0, 1, 7, 2, 6, 3, 5):
        assert handles[i].wait().tolist() == [10 * i + r for r in range(group.size)]


@check
def sums_have_the_same_bits_everywhere(group: Group) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        for n in (1, 5, 1000, 65_537):
            x = noise(n, seed=group.rank, dtype=dtype)
            handle = group.all_reduce(x)
            got = handle.wait()
            assert got.data_ptr() == x.data_ptr(), "the sum is written into the tensor itself"
            assert all(same(other, x) for other in group.all_gather(x)), f"{dtype} {n}"
            exact = sum(noise(n, seed=r, dtype=dtype).double() for r in range(group.size))
            tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.5, torch.int64: 0.0}[dtype]
            torch.testing.assert_close(x.double(), exact, rtol=0.0, atol=tolerance)


@check
def a_view_is_summed_in_place(group: Group) -> None:
    x = torch.zeros(3, 4)
    x[:, 1] = group.rank + 1.0
    group.all_reduce(x[:, 1]).wait()
    total = group.size * (group.size + 1) / 2
    assert x.tolist() == [[0.0, total, 0.0, 0.0]] * 3
    assert group.all_reduce(torch.zeros(0)).wait().shape == (0,)


@check
def gathered_tensors_are_in_order_of_ranks(group: Group) -> None:
    for dtype in DTYPES:
        for shape in ((), (3,), (2, 3), (0, 4)):
            got = group.all_gather(noise(*shape, seed=group.rank, dtype=dtype))
            assert len(got) == group.size
            want = [noise(*shape, seed=r, dtype=dtype) for r in range(group.size)]
            assert all(same(x, y) for x, y in zip(got, want, strict=True)), f"{dtype} {shape}"


@check
def small_values_arrive_as_json_makes_them(group: Group) -> None:
    values: list[Any] = [{"näme": [r, None, 1.5], "long": "x" * 1000 * r} for r in range(group.size)]
    assert group.gather_objects(values[group.rank]) == values
    assert group.gather_objects((1, {2: math.inf})) == [[1, {"2": math.inf}]] * group.size
    assert group.gather_objects(None) == [None] * group.size
    barrier(group)


@check
def channels_do_not_mix_and_keep_their_order(group: Group) -> None:
    """A ring, both ways, three channels, more messages in flight than anybody asks for in that order."""
    up, down, me = (group.rank + 1) % group.size, (group.rank - 1) % group.size, group.rank
    lines = [Line(a, b, c) for a in range(group.size) for b in range(group.size) for c in range(3) if a != b]
    group.open_channels(lines)
    sent, many = [], 20
    for i in range(many):
        for channel in range(3):
            shape = (i + 1, channel + 1)
            for to, way in ((up, 0), (down, 500)):
                x = torch.full(shape, 10_000 * me + 1000 * channel + way + i)
                sent.append(group.send(x, to, channel if group.size > 2 else 2 * channel + (way > 0)))
    for channel in (2, 0, 1):
        for source, way in ((up, 500), (down, 0)):
            line = channel if group.size > 2 else 2 * channel + (way > 0)
            spaces = [torch.empty(i + 1, channel + 1, dtype=torch.int64) for i in range(many)]
            handles = [group.receive(space, source, line) for space in spaces]
            for i in reversed(range(many)):
                got = handles[i].wait()
                assert got is spaces[i] or same(got, spaces[i])
                assert (got == 10_000 * source + 1000 * channel + way + i).all(), f"{channel} {source} {i}"
    for handle in sent:
        handle.wait()


@check
def receives_may_be_posted_first(group: Group) -> None:
    """And every dtype travels bit by bit; nothing at all is a message too."""
    up, down = (group.rank + 1) % group.size, (group.rank - 1) % group.size
    for dtype in DTYPES:
        for shape in ((), (5,), (3, 2), (0, 2)):
            handle = group.receive(torch.zeros(shape, dtype=dtype), down, 7)
            x = noise(*shape, seed=group.rank, dtype=dtype)
            sent = group.send(x.requires_grad_(dtype.is_floating_point), up, 7)
            assert same(handle.wait(), noise(*shape, seed=down, dtype=dtype)), f"{dtype} {shape}"
            sent.wait()


@check
def a_subgroup_talks_among_itself(group: Group) -> None:
    """Halves, and in each half single ranks: sums, messages and places are those of the subgroup alone."""
    half = group.size // 2
    halves = [group.subgroup(range(half)), group.subgroup(range(half, group.size))]
    mine = [part for part in halves if part is not None]
    assert len(mine) == 1
    part, first = mine[0], 0 if group.rank < half else half
    assert (part.rank, part.size) == (group.rank - first, half)
    got = part.all_reduce(torch.tensor([2.0**group.rank])).wait()
    assert got.item() == sum(2.0**r for r in range(first, first + half))
    assert part.gather_objects(group.rank) == list(range(first, first + half))
    inner = [part.subgroup([r]) for r in range(half)]
    alone = [one for one in inner if one is not None]
    assert len(alone) == 1 and (alone[0].rank, alone[0].size) == (0, 1)
    assert alone[0].all_reduce(torch.ones(2)).wait().tolist() == [1.0, 1.0]
    assert alone[0].all_to_all(torch.ones(2), [2], [2]).wait().tolist() == [1.0, 1.0]
    assert alone[0].gather_objects([group.rank]) == [[group.rank]]
    if half > 1:
        again = part.subgroup(range(half))  # the same ranks, and still another group
        assert again is not None and again.gather_objects(1) == [1] * half
        part.open_channels([Line(0, 1, 0)])
        if part.rank == 0:
            part.send(torch.tensor([group.rank]), 1, 0).wait()
        if part.rank == 1:
            assert part.receive(torch.zeros(1, dtype=torch.int64), 0, 0).wait().tolist() == [first]


@check
def groups_that_share_a_rank_do_not_mix(group: Group) -> None:
    """Rank 0 is in a group with every other one; each sum is that pair's."""
    pairs = [group.subgroup([0, other]) for other in range(1, group.size)]
    mine = [(other, pair) for other, pair in enumerate(pairs, 1) if pair]
    under_way = [(other, pair.all_reduce(torch.tensor([10.0**group.rank]))) for other, pair in mine]
    assert {other: int(handle.wait().item()) for other, handle in under_way} == {
        other: 1 + 10**other for other in range(1, group.size) if group.rank in (0, other)
    }


def every_check(group: Group) -> dict[str, str]:
    """What went wrong, by check; ranks are out of step after the first failure, so that is the last tried."""
    said: dict[str, str] = {}
    for name, function in CHECKS.items():
        try:
            function(group)
            said[name] = ""
        except Exception:
            said[name] = traceback.format_exc()
        failed = [text for text in group.gather_objects(said[name]) if text]
        if failed:
            return said | {name: failed[0]}
    return said


@pytest.fixture(scope="module", params=["threads 2", "threads 4", "processes 2", "processes 4"])
def said(request: pytest.FixtureRequest) -> dict[str, str]:
    kind, _, size = request.param.partition(" ")
    if kind == "threads":
        return Threads(int(size)).run(every_check)[0]
    found: dict[str, str] = request.getfixturevalue("on_processes")(every_check, int(size))[0]
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_every_kind_of_group(said: dict[str, str], name: str) -> None:
    if name not in said:
        pytest.fail(SKIPPED)
    assert not said[name], said[name]


def test_one_rank_alone_keeps_the_same_promises() -> None:
    group: Group = Alone()
    checks = [rows_arrive_whole_and_in_order, views_and_tensors_with_a_gradient_are_sent]
    checks += [a_view_is_summed_in_place, gathered_tensors_are_in_order_of_ranks]
    for function in [*checks, small_values_arrive_as_json_makes_them]:
        function(group)
    assert group.subgroup([0]) is group and group.subgroup([]) is None


def test_threads_send_copies() -> None:
    """What a rank does to its tensor afterwards is its own affair."""

    def work(group: Group) -> float:
        if group.rank == 0:
            x = torch.ones(3)
            group.send(x, 1, 0)
            x.zero_()
            return 3.0
        return float(group.receive(torch.empty(3), 0, 0).wait().sum())

    assert Threads(2).run(work) == [3.0, 3.0]


def test_a_thread_that_fails_fails_the_others() -> None:
    def work(group: Group) -> None:
        if group.rank == 2:
            raise ValueError("the third rank's own error")
        group.all_reduce(torch.ones(1)).wait()

    with pytest.raises(ValueError, match="the third rank's own error"):
        Threads(4).run(work)


def test_a_thread_does_not_wait_for_ever() -> None:
    def work(group: Group) -> None:
        if group.rank == 0:
            group.receive(torch.empty(1), 1, 0).wait()

    with pytest.raises(RankFailedError, match=r"within 0\.2 s\. Fix: "):
        Threads(2, patience_s=0.2).run(work)


@pytest.mark.parametrize(
    "ranks_out_of_step",
    [
        lambda group: group.all_to_all(torch.ones(2), [1, 1], [2, 0]),
        lambda group: group.send(torch.ones(3), 1 - group.rank, 0)
        and group.receive(torch.ones(2), 1 - group.rank, 0),
        lambda group: group.send(torch.ones(2), 1 - group.rank, 0)
        and group.receive(torch.ones(2, dtype=torch.int64), 1 - group.rank, 0),
    ],
)
def test_threads_notice_what_does_not_fit(ranks_out_of_step: Callable[[Group], Any]) -> None:
    with pytest.raises(AssertionError, match="expected"):
        Threads(2).run(lambda group: ranks_out_of_step(group).wait())
