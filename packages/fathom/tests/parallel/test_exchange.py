"""Rows reach every expert they chose in the stated order, once per node, and the way back is the transpose.

The oracle has all ranks' tokens in one place.

Axes:  N tokens of a rank   K experts per token   D width   R rows at a rank's experts   E experts of a rank
"""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.errors import ConfigError
from fathom.config.model import MoEConfig
from fathom.model.experts import LocalExchange
from fathom.model.router import choose
from fathom.parallel.exchange import Exchange, held, plan, rows_sent, split_nodes
from fathom.parallel.group import Alone, Group
from fathom.parallel.payload import BF16, FP8
from fathom.parallel.threads import Threads

SHAPES = [(1, 1), (2, 2), (2, 1), (4, 4), (4, 2), (4, 1)]  # ranks, ranks of a node
K, D, EXPERTS = 3, 5, 8


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def routing(name: str, ranks: int) -> list[torch.Tensor]:
    """The choice of every rank's tokens, some of them few or none."""
    g = torch.Generator().manual_seed(7)
    counts = [(6, 0, 9, 1)[r % 4] for r in range(ranks)] if name != "even" else [8] * ranks
    kinds = {
        "even": range(EXPERTS),
        "uneven": range(EXPERTS),
        "experts without rows": (0, 1, 3, 6),
        "ranks without rows": range(EXPERTS - K, EXPERTS),
        "nobody has a token": range(EXPERTS),
    }
    some = torch.tensor(list(kinds[name]))
    counts = [0] * ranks if name == "nobody has a token" else counts
    scores = [torch.rand(count, len(some), generator=g) for count in counts]
    return [some[score.topk(K, -1).indices] for score in scores]


NAMES = ["even", "uneven", "experts without rows", "ranks without rows", "nobody has a token"]


Row = tuple[int, int, int]


def order_of(expert_NK: list[torch.Tensor], rank: int, experts: int, multiple: int) -> list[Row]:
    """(source, token, k) of each row at one rank's experts, by definition; source -1 fills up."""
    rows = []
    for expert in range(rank * experts, (rank + 1) * experts):
        for source, choice_NK in enumerate(expert_NK):
            rows += [(source, n, k) for n, k in (choice_NK == expert).nonzero().tolist()]
        rows += [(-1, 0, 0)] * (-len(rows) % multiple)
    return rows


def planned(group: Group, local: int, expert_NK: list[torch.Tensor], multiple: int = 1, **how) -> Exchange:
    return plan(split_nodes(group, local), expert_NK[group.rank], EXPERTS, row_multiple=multiple, **how)


@pytest.mark.parametrize("ranks,local", SHAPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("multiple", [1, 4])
def test_every_row_stands_where_it_should(ranks, local, name, multiple):
    expert_NK = routing(name, ranks)
    x_ND = [rand(len(e), D, seed=r) for r, e in enumerate(expert_NK)]
    weight_NK = [rand(len(e), K, seed=9 + r) for r, e in enumerate(expert_NK)]

    def work(group):
        exchange = planned(group, local, expert_NK, multiple)
        moving = exchange.spread(x_ND[group.rank]), exchange.spread_weights(weight_NK[group.rank])
        return *(m.wait() for m in moving), exchange.count_E

    for rank, (x_RD, weight_R, count_E) in enumerate(Threads(ranks).run(work)):
        rows = order_of(expert_NK, rank, EXPERTS // ranks, multiple)
        none = torch.zeros(D, dtype=torch.float64)
        assert x_RD.shape == (len(rows), D) and weight_R.shape == (len(rows),)
        assert count_E.dtype == torch.int64 and int(count_E.sum()) == len(rows)
        assert (count_E % multiple == 0).all()
        for (s, n, k), row_D, weight in zip(rows, x_RD, weight_R, strict=True):
            assert torch.equal(row_D, x_ND[s][n] if s >= 0 else none)
            assert weight.item() == (weight_NK[s][n, k].item() if s >= 0 else 0.0)


@pytest.mark.parametrize("ranks,local", SHAPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("multiple", [1, 4])
def test_the_way_back_is_the_transpose(ranks, local, name, multiple):
    expert_NK = routing(name, ranks)

    def work(group):
        exchange = planned(group, local, expert_NK, multiple)
        N, R = len(expert_NK[group.rank]), int(exchange.count_E.sum())
        x_ND, y_RD = rand(N, D, seed=group.rank), rand(R, D, seed=40 + group.rank)
        w_NK, v_R = rand(N, K, seed=80 + group.rank), rand(R, seed=60 + group.rank)
        there = exchange.spread(x_ND).wait(), exchange.spread_weights(w_NK).wait()
        back = exchange.collect(y_RD).wait(), exchange.collect_weights(v_R).wait()
        assert back[0].shape == (N, D) and back[1].shape == (N, K)
        pairs = (there[0], y_RD), (x_ND, back[0]), (there[1], v_R), (w_NK, back[1])
        return [(a * b).sum().item() for a, b in pairs]

    sums = torch.tensor(Threads(ranks).run(work), dtype=torch.float64).sum(0)
    torch.testing.assert_close(sums[0::2], sums[1::2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ranks,local", SHAPES)
def test_weights_come_back_to_the_bit(ranks, local):
    expert_NK = routing("uneven", ranks)
    weight_NK = [rand(len(e), K, seed=r, dtype=torch.float32) for r, e in enumerate(expert_NK)]

    def work(group):
        exchange = planned(group, local, expert_NK, 4, dispatch=FP8(), combine=BF16())
        there_R = exchange.spread_weights(weight_NK[group.rank]).wait()
        return there_R.dtype, exchange.collect_weights(there_R).wait()

    for rank, (dtype, back_NK) in enumerate(Threads(ranks).run(work)):
        assert dtype == torch.float32 and torch.equal(back_NK, weight_NK[rank])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_routing_arrives_and_returns(data):
    ranks, local = data.draw(st.sampled_from(SHAPES[1:]), "ranks, ranks of a node")
    K = data.draw(st.integers(1, EXPERTS), "K")
    choice = st.permutations(range(EXPERTS)).map(lambda p: p[:K])
    chosen = [data.draw(st.lists(choice, max_size=4), f"rank {r}") for r in range(ranks)]
    expert_NK = [torch.tensor(c, dtype=torch.int64).view(-1, K) for c in chosen]
    x_ND = [rand(len(e), D, seed=r) for r, e in enumerate(expert_NK)]

    def work(group):
        exchange = planned(group, local, expert_NK, 2)
        x_RD = exchange.spread(x_ND[group.rank]).wait()
        return x_RD, exchange.collect(x_RD).wait()

    for rank, (x_RD, back_ND) in enumerate(Threads(ranks).run(work)):
        rows = order_of(expert_NK, rank, EXPERTS // ranks, 2)
        want = [x_ND[s][n] if s >= 0 else torch.zeros(D, dtype=torch.float64) for s, n, _ in rows]
        assert torch.equal(x_RD, torch.stack(want) if want else x_RD.new_zeros(0, D))
        torch.testing.assert_close(back_ND, K * x_ND[rank], rtol=1e-14, atol=0)


def test_one_rank_and_one_device_do_the_same():
    expert_NK = routing("even", 1)
    alone = plan(split_nodes(Alone()), expert_NK[0], EXPERTS, row_multiple=4)
    local = LocalExchange(expert_NK[0], EXPERTS, 4)
    assert torch.equal(alone.count_E, local.count_E)
    x_ND, w_NK = rand(8, D), rand(8, K)
    y_RD = rand(int(local.count_E.sum()), D)
    for name, value in (("spread", x_ND), ("spread_weights", w_NK), ("collect_weights", y_RD[:, 0])):
        assert torch.equal(getattr(alone, name)(value).wait(), getattr(local, name)(value).wait()), name
    back = alone.collect(y_RD).wait(), local.collect(y_RD).wait()
    torch.testing.assert_close(*back, rtol=1e-14, atol=1e-15)  # sums by expert, or by k


@pytest.mark.parametrize("ranks,local", [(4, 2), (4, 1), (8, 2)])
def test_a_token_goes_once_to_a_node_and_to_few_nodes(ranks, local):
    nodes, M = ranks // local, 2
    moe = MoEConfig(num_experts=16, experts_per_token=6, num_groups=nodes, groups_per_token=M, expert_size=4)
    score_NE = torch.rand(ranks, 30, 16, generator=torch.Generator().manual_seed(3))
    expert_NK = [choose(s, torch.zeros(16), moe) for s in score_NE]

    def work(group):
        exchange = plan(split_nodes(group, local), expert_NK[group.rank], 16)
        to_nodes = exchange.hops[0]
        parts = to_nodes.copies.source_M.split(to_nodes.sent)
        wanted = [{n for n, e in enumerate(expert_NK[group.rank] // (16 // nodes)) if node in e}
                  for node in range(nodes)]  # fmt: skip
        return [p.tolist() for p in parts], wanted, [h.sent for h in exchange.hops], rows_sent(exchange)

    results = Threads(ranks).run(work)
    held_at = [e // (16 // ranks) for e in expert_NK]
    visits = sum(len(set(to.tolist())) for rank_NK in held_at for to in rank_NK)
    assert sum(sum(sent[-1]) for _, _, sent, _ in results) == visits  # a row goes once to a rank, too
    for rank, (parts, wanted, sent, left) in enumerate(results):
        for part, want in zip(parts, wanted, strict=True):
            assert len(part) == len(set(part)) and set(part) == want
        reached = torch.tensor([n for part in parts for n in part]).bincount(minlength=30)
        assert reached.max() <= M and sum(sent[0]) < 30 * 6  # fewer rows than one for every expert
        assert left[0] == sum(sent[0]) - sent[0][rank // local]
        assert len(sent) == (2 if local > 1 else 1)


def test_within_a_node_a_row_goes_once_to_a_rank():
    expert_NK = [torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), torch.tensor([[0, 1, 4, 7]])]

    def work(group):
        exchange = planned(group, 2, expert_NK)
        return [hop.sent for hop in exchange.hops], exchange.count_E.tolist()

    assert Threads(2).run(work) == [([[1, 1]], [2, 2, 1, 1]), ([[1, 1]], [2, 1, 1, 2])]


class Recorder:
    """A group that writes down what it is asked to do, in order."""

    def __init__(self, group: Group, log: list, name: str = "all") -> None:
        self._group, self._log, self._name = group, log, name
        self.rank, self.size = group.rank, group.size

    def all_to_all(self, x, sent, received):
        self._log.append((self._name, x.dtype, tuple(x.shape[1:])))
        return self._group.all_to_all(x, sent, received)

    def subgroup(self, ranks):
        group = self._group.subgroup(ranks)
        name = "within" if list(ranks) == list(range(ranks[0], ranks[0] + len(ranks))) else "across"
        return None if group is None else Recorder(group, self._log, name)


@pytest.mark.parametrize("ranks,local", SHAPES[1:])
@pytest.mark.parametrize("name", NAMES)
def test_every_rank_makes_the_same_calls_in_the_same_order(ranks, local, name):
    expert_NK = routing(name, ranks)

    def work(group):
        log: list = []
        exchange = planned(Recorder(group, log), local, expert_NK, dispatch=FP8(), combine=BF16())
        x_ND = rand(len(expert_NK[group.rank]), D, dtype=torch.float32)
        moving = exchange.spread(x_ND), exchange.spread_weights(x_ND[:, :K])
        x_RD, weight_R = (m.wait() for m in moving)
        moving = exchange.collect(x_RD), exchange.collect_weights(weight_R)
        assert [len(m.wait()) for m in moving] == [len(x_ND)] * 2
        return log

    logs = Threads(ranks).run(work)
    assert all(log == logs[0] for log in logs)
    hops = 2 if 1 < local < ranks else 1
    assert len(logs[0]) == 6 * hops  # counts, choices, rows, weights; rows and weights back
    kinds = [(torch.int64, ()), (torch.int32, (K + 1,)), (torch.uint8, (D + 4,)), (torch.bfloat16, (D,))]
    assert [sum(call[1:] == kind for call in logs[0]) for kind in kinds] == [hops] * 4


@pytest.mark.parametrize("ranks,local", [(2, 2), (4, 2)])
def test_fp8_is_written_once_and_read_once(ranks, local):
    expert_NK = routing("uneven", ranks)
    x_ND = [rand(len(e), 200, seed=r, dtype=torch.float32) for r, e in enumerate(expert_NK)]
    rounded = [FP8().decode(FP8().encode(x), 200, torch.float32) for x in x_ND]

    def work(group):
        exchange = planned(group, local, expert_NK, dispatch=FP8())
        plain = planned(group, local, expert_NK)
        return exchange.spread(x_ND[group.rank]).wait(), plain.spread(rounded[group.rank]).wait()

    for narrow_RD, want_RD in Threads(ranks).run(work):
        assert torch.equal(narrow_RD, want_RD)


@pytest.mark.parametrize("ranks,local,roundings", [(2, 2, 1), (4, 2, 2)])
def test_sums_of_a_bf16_combine_are_wide(ranks, local, roundings):
    expert_NK = [torch.arange(EXPERTS).expand(6, EXPERTS)] * ranks

    def work(group):
        exact, narrow = planned(group, local, expert_NK), planned(group, local, expert_NK, combine=BF16())
        y_RD = rand(int(exact.count_E.sum()), D, seed=group.rank, dtype=torch.float32)
        size_ND = exact.collect(y_RD.abs()).wait()
        return exact.collect(y_RD).wait(), narrow.collect(y_RD).wait(), size_ND

    for want_ND, got_ND, size_ND in Threads(ranks).run(work):
        assert got_ND.dtype == torch.float32 and not torch.equal(got_ND, want_ND)
        assert ((got_ND - want_ND).abs() <= 1.01 * roundings * 2**-8 * size_ND).all()


def test_small_parts_of_a_bf16_sum_are_not_lost():
    """1 + 7 * 2**-9 is 1 if bf16 adds one by one, and 1 + 2**-6 if only the result is rounded."""
    expert_NK = [torch.arange(EXPERTS)[None]] * 2

    def work(group):
        exchange = planned(group, 2, expert_NK)
        y_RD = torch.full((EXPERTS, 1), 2.0**-9, dtype=torch.bfloat16)
        y_RD[:2] = 1.0 if group.rank == 0 else y_RD[:2]  # the first expert's rows
        return exchange.collect(y_RD).wait()

    for total_ND in Threads(2).run(work):
        assert total_ND.dtype == torch.bfloat16 and total_ND.item() == 1 + 2**-6


def test_a_result_may_be_asked_for_again():
    expert_NK = routing("even", 2)

    def work(group):
        moving = planned(group, 2, expert_NK).spread(rand(8, D))
        return moving.wait() is moving.wait()

    assert Threads(2).run(work) == [True, True]


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(ConfigError, match=r"num_experts=9 .* parallel.ep=4.*Fix: set parallel.ep"):
        Threads(4).run(lambda group: held(group, 9))
    with pytest.raises(ConfigError, match=r"4 ranks .* nodes of 3.*Fix: set ranks_per_node"):
        Threads(4).run(lambda group: split_nodes(group, 3))


@pytest.mark.parametrize("ranks,local", SHAPES)
def test_nodes_are_consecutive_ranks(ranks, local):
    def work(group):
        nodes = split_nodes(group, local)
        places = [g.gather_objects(group.rank) if g.size > 1 else [group.rank] for g in nodes[1:]]
        return [*places, nodes.across.rank, nodes.within.rank]

    each = list(accumulate([local] * (ranks // local), initial=0))[:-1]
    for rank, (across, within, node, place) in enumerate(Threads(ranks).run(work)):
        assert (node, place) == divmod(rank, local)
        assert across == [at + place for at in each]
        assert within == list(range(node * local, (node + 1) * local))
