"""Who goes where, for one routing: rows to the ranks whose experts they chose, and back (report 3.2.2).

Ranks are `nodes x ranks of a node`. A row travels once to every node that holds an expert it chose, to the
rank there with the sender's place in its own node; then once to every rank of that node that holds one; only
there is it copied for each expert. On the way back copies are summed at each of those points. With one node
the first hop falls away. Nothing here knows autograd: `spread` and `collect` are each other's transposes, so
either is the other's backward pass.

Axes:  N tokens of this rank   K experts per token   D width   X what travels   S ranks of a hop
       M rows that a hop sends   V rows that arrive here in the end   P their (row, expert) pairs
       R rows sorted by expert, filled up   E experts held here
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.config.errors import need
from fathom.parallel.group import Alone, Arrival, Group, Handle
from fathom.parallel.payload import Payload, Plain

PLAIN = Plain()


class Nodes(NamedTuple):
    """The ranks that share out the experts, as nodes that are far from each other."""

    group: Group  # all of them; rank = node * ranks of a node + place in the node
    across: Group  # the ranks with this one's place, one of every node
    within: Group  # the ranks of this one's node


def split_nodes(group: Group, ranks_per_node: int | None = None) -> Nodes:
    """The nodes of a group; all ranks call it.

    ranks_per_node  how many consecutive ranks are near each other; None = all
    raises          ConfigError if nodes would not be equal
    """
    size, local = group.size, ranks_per_node or group.size
    need(
        size % local == 0,
        f"{size} ranks that share out the experts do not split into nodes of {local}",
        fix=f"set ranks_per_node to a divisor of {size}",
    )
    if local in (1, size):
        return Nodes(group, *((Alone(), group) if local == size else (group, Alone())))
    across = [group.subgroup(range(place, size, local)) for place in range(local)]
    within = [group.subgroup(range(at, at + local)) for at in range(0, size, local)]
    return Nodes(group, *(next(g for g in some if g is not None) for some in (across, within)))


class Copies(NamedTuple):
    """Rows of one table at places of another, and the transpose: the copies of each row summed."""

    source_M: Tensor  # the row at each place
    place_P: Tensor  # the places of row 0, then those of row 1, ...
    start_N: Tensor  # where the places of each row begin in place_P
    empty: Tensor | None  # places that hold no row

    def copy(self, x_NX: Tensor) -> Tensor:
        """[N, X] -> [M, X], zeros where no row is."""
        x_MX = x_NX.index_select(0, self.source_M)
        return x_MX if self.empty is None else x_MX.index_fill_(0, self.empty, 0)

    def sum(self, y_MX: Tensor) -> Tensor:
        """[M, X] -> [N, X], in the order of places; added up in fp32 at least, rounded once."""
        # It adds bf16 rows up in fp32, and in this order, on a CPU and on a GPU.
        return F.embedding_bag(self.place_P, y_MX.contiguous(), self.start_N, mode="sum")


def copies(row_P: Tensor, N: int, place_P: Tensor | None = None, places: int | None = None) -> Copies:
    """Row `row_P[i]` of N goes to place `place_P[i]`, or i; there are `places`, or as many as are used."""
    place_P = torch.arange(len(row_P), device=row_P.device) if place_P is None else place_P
    places = len(row_P) if places is None else places
    source_M = row_P.new_zeros(places).index_copy_(0, place_P, row_P)
    count_N = row_P.bincount(minlength=N)
    empty = None
    if places > len(row_P):
        empty = torch.ones_like(source_M).index_fill_(0, place_P, 0).nonzero()[:, 0]
    return Copies(
        source_M=source_M,
        place_P=place_P.index_select(0, row_P.argsort(stable=True)),
        start_N=count_N.cumsum(0) - count_N,
        empty=empty,
    )


class Hop(NamedTuple):
    """One all-to-all: rows once to every rank of a group that wants them."""

    group: Group
    copies: Copies  # sorted by rank
    sent: list[int]  # rows to each rank
    received: list[int]

    def spread(self, rows_NX: Tensor) -> Handle[Tensor]:
        """Start sending rows; -> those that came, by rank."""
        return self.group.all_to_all(self.copies.copy(rows_NX), self.sent, self.received)

    def collect(self, rows_MX: Tensor) -> Handle[Tensor]:
        """Start sending back what came; -> one row for each that was sent, `copies.sum` adds them up."""
        return self.group.all_to_all(rows_MX, self.received, self.sent)


@dataclass(frozen=True)
class Exchange:
    """The ways of one routing. Every method starts at its call; ranks call and wait in one order."""

    hops: tuple[Hop, ...]
    rows: Copies  # of arrived rows, for each expert here that they chose
    pairs: Copies  # of (arrived row, k), where that expert is here
    count_E: Tensor  # int64, rows of each expert held here, filled up
    experts_per_token: int
    dispatch: Payload
    combine: Payload

    def spread(self, x_ND: Tensor) -> Arrival:
        """Every token to every expert it chose. -> [R, D].

        Sorted by expert, then by source rank, then by token; filled up with zero rows.
        """
        width, dtype = x_ND.shape[1], x_ND.dtype
        going = self.hops[0].spread(self.dispatch.encode(x_ND.detach()))  # written once, read once

        def finish() -> Tensor:
            return self.rows.copy(self.dispatch.decode(self._onward(going), width, dtype))

        return Arrival(finish)

    def collect(self, y_RD: Tensor) -> Arrival:
        """The sum of each token's rows. [R, D] -> [N, D].

        Sums are made in fp32, or float64 of float64, at each stop, and rounded to the dtype of `y_RD`.
        """
        y_VD = self.rows.sum(y_RD.detach())
        return self._back(y_VD, self.combine)

    def spread_weights(self, weight_NK: Tensor) -> Arrival:
        """The weight of every row that `spread` makes, 0 where one fills up. -> [R] in its own dtype."""
        going = self.hops[0].spread(weight_NK.detach())
        return Arrival(lambda: self.pairs.copy(self._onward(going).reshape(-1, 1))[:, 0])

    def collect_weights(self, weight_R: Tensor) -> Arrival:
        """The transpose of `spread_weights`: of each (token, k) the value in its row. [R] -> [N, K]."""
        weight_VK = self.pairs.sum(weight_R.detach()[:, None]).view(-1, self.experts_per_token)
        return self._back(weight_VK, PLAIN)

    def _onward(self, going: Handle[Tensor]) -> Tensor:
        """Wait for the first hop and take the others."""
        rows = going.wait()
        for hop in self.hops[1:]:
            rows = hop.spread(rows).wait()
        return rows

    def _back(self, y_VX: Tensor, payload: Payload) -> Arrival:
        """Start the last hop backwards; the others follow, each after a sum."""
        width, dtype = y_VX.shape[1], y_VX.dtype
        going = self.hops[-1].collect(payload.encode(y_VX))

        def finish() -> Tensor:
            came = going.wait()
            for hop, after in zip(self.hops[:0:-1], self.hops[-2::-1], strict=True):
                part = hop.copies.sum(payload.decode(came, width, dtype))
                came = after.collect(payload.encode(part)).wait()
            return self.hops[0].copies.sum(payload.decode(came, width, dtype))

        return Arrival(finish)


def plan(
    nodes: Nodes,
    expert_NK: Tensor,
    num_experts: int,
    *,
    row_multiple: int = 1,
    dispatch: Payload = PLAIN,
    combine: Payload = PLAIN,
) -> Exchange:
    """Tell every rank what it will get. Waits: first for counts, then for the choices themselves.

    expert_NK     distinct in a row, 0 to num_experts-1; rank r holds the r-th equal part of them
    row_multiple  every expert's rows are filled up to a multiple of this
    dispatch      how `spread` writes rows
    combine       how `collect` does
    """
    group, across, within = nodes
    mine = held(group, num_experts)
    per_node = len(mine) * within.size
    node = range(group.rank // within.size * per_node, (group.rank // within.size + 1) * per_node)
    rank_N1 = expert_NK.new_full((len(expert_NK), 1), group.rank)
    choice_NX = torch.cat([expert_NK, rank_N1], 1).int()  # a row's experts and where it comes from
    hops: list[Hop] = []
    for peers, experts in ((across, range(num_experts)), (within, node)):
        if peers.size > 1 or (peers is within and not hops):
            hop, choice_NX = _hop(peers, choice_NX, experts)
            hops.append(hop)
    rows, pairs, count_E = _sort(choice_NX, mine, group.size, row_multiple)
    return Exchange(tuple(hops), rows, pairs, count_E, expert_NK.shape[1], dispatch, combine)


def held(group: Group, num_experts: int) -> range:
    """The experts that live on this rank: as many as on any other, in order of ranks."""
    need(
        num_experts % group.size == 0,
        f"model.moe.num_experts={num_experts} does not split into equal parts for parallel.ep={group.size}",
        fix=f"set parallel.ep to a divisor of {num_experts}",
    )
    each = num_experts // group.size
    return range(group.rank * each, (group.rank + 1) * each)


def _hop(peers: Group, choice_NX: Tensor, experts: range) -> tuple[Hop, Tensor]:
    """Each row to every peer that holds one of its `experts`, equal parts of them; and what arrives."""
    N, size = len(choice_NX), peers.size
    to_NK = (choice_NX[:, :-1].long() - experts.start).div(len(experts) // size, rounding_mode="floor")
    to_NK = to_NK.where((to_NK >= 0) & (to_NK < size), size)  # the experts elsewhere
    wanted_NS = to_NK.new_zeros(N, size + 1).scatter_(1, to_NK, 1)[:, :size]
    row_M = wanted_NS.T.nonzero()[:, 1]
    ones = [1] * size
    sent_S = wanted_NS.sum(0)
    received_S = peers.all_to_all(sent_S, ones, ones).wait()
    hop = Hop(peers, copies(row_M, N), sent_S.tolist(), received_S.tolist())
    return hop, hop.spread(choice_NX).wait()


def _sort(choice_VX: Tensor, mine: range, ranks: int, multiple: int) -> tuple[Copies, Copies, Tensor]:
    """The places of arrived rows among R, those of their (row, k) pairs, and the rows of each expert."""
    V, K = len(choice_VX), choice_VX.shape[1] - 1
    expert_VK = choice_VX[:, :-1].long() - mine.start
    pair_P = ((expert_VK >= 0) & (expert_VK < len(mine))).flatten().nonzero()[:, 0]
    expert_P, row_P = expert_VK.flatten().index_select(0, pair_P), pair_P // K
    order_P = (expert_P * ranks + choice_VX[:, -1].index_select(0, row_P)).argsort(stable=True)
    count_E = expert_P.bincount(minlength=len(mine))
    filled_E = (count_E + multiple - 1) // multiple * multiple
    moved_E = (filled_E - count_E).cumsum(0) - (filled_E - count_E)  # rows that fill before each expert
    place_P = torch.arange(len(pair_P), device=pair_P.device)
    place_P = place_P + moved_E.index_select(0, expert_P.index_select(0, order_P))
    R = int(filled_E.sum()) if multiple > 1 else len(pair_P)
    row_P, pair_P = row_P.index_select(0, order_P), pair_P.index_select(0, order_P)
    return copies(row_P, V, place_P, R), copies(pair_P, V * K, place_P, R), filled_E


def rows_sent(exchange: Exchange) -> Sequence[int]:
    """Rows that leave this rank's memory in each hop: those to itself do not."""
    return [sum(hop.sent) - hop.sent[hop.group.rank] for hop in exchange.hops]
