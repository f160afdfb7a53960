"""A MoE layer over many ranks is the layer on one: outputs and every gradient, however uneven the routing.

Axes:  B rows   T positions   D width   N = B*T tokens   K experts per token   E experts
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fathom.config.errors import ConfigError
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.model.experts import LocalDispatch, MoE
from fathom.model.transformer import Transformer
from fathom.ops import experts
from fathom.ops.kernels import FastKernels, Kernels, PlainKernels
from fathom.parallel.dispatch import AllToAll
from fathom.parallel.group import Alone, Group
from fathom.parallel.payload import BF16, FP8
from fathom.parallel.threads import Threads

SHAPES = [(2, 2), (2, 1), (4, 4), (4, 2), (4, 1)]  # ranks, ranks of a node
T, E, K = 5, 8, 3
CONFIG = ModelConfig(
    vocab_size=32, hidden_size=16, num_layers=3, dense_layers=1, dense_size=16, max_positions=16,
    init_std=0.3,
    attention=AttentionConfig(num_heads=2, q_rank=8, kv_rank=8, nope_head=4, rope_head=4, value_head=4),
    moe=MoEConfig(num_experts=E, experts_per_token=K, num_groups=4, groups_per_token=2, expert_size=12),
    mtp=MTPConfig(depth=1),
)  # fmt: skip
ROWS = (2, 0, 3, 1)  # of each rank; the second has nothing


class Case:
    """One layer's weights, all ranks' inputs, and the gradient of its outputs."""

    def __init__(self, ranks: int, dtype: torch.dtype, favour: tuple[int, ...] = ()) -> None:
        """`favour`: experts that every token chooses, if they are K, or likes best."""
        draw = torch.Generator().manual_seed(1)
        self.rows, self.dtype = ROWS[:ranks], dtype
        self.whole = MoE(CONFIG, PlainKernels(), LocalDispatch()).to(dtype)
        for parameter in self.whole.parameters():
            parameter.data.normal_(0.0, 0.3, generator=draw)
        self.whole.router.bias[list(favour)] += 10.0
        shape = sum(self.rows), T, CONFIG.hidden_size
        self.x_BTD = torch.randn(shape, generator=draw, dtype=dtype)
        self.dy_BTD = torch.randn(shape, generator=draw, dtype=dtype)

    def layer(self, group: Group, kernels: Kernels | None = None, **how) -> MoE:
        """What one rank holds of it."""
        layer = MoE(CONFIG, kernels or PlainKernels(), AllToAll(group, **how)).to(self.dtype)
        mine = layer.dispatch.local_experts(E)
        own = {
            name: value[mine.start : mine.stop] if name.startswith("experts.") else value
            for name, value in self.whole.state_dict().items()
        }
        layer.load_state_dict(own)
        return layer

    def run(self, layer: MoE, rank: int | None = None) -> dict[str, Tensor]:
        """Output, loads and gradients from one rank's rows, or all."""
        first = 0 if rank is None else sum(self.rows[:rank])
        part = slice(first, None if rank is None else first + self.rows[rank])
        x_BTD = self.x_BTD[part].clone().requires_grad_()
        y_BTD, routing = layer(x_BTD, torch.ones(x_BTD.shape[:2], dtype=torch.bool))
        # As in a loss: balance counts once a row.
        loss = (y_BTD * self.dy_BTD[part]).sum() + 0.1 * len(x_BTD) * routing.sequence_loss
        names, weights = zip(*layer.named_parameters(), strict=True)
        grads = torch.autograd.grad(loss, [x_BTD, *weights])
        return {"y": y_BTD.detach(), "count": routing.count_E, **dict(zip(("x", *names), grads, strict=True))}


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Ranks' results as one: rows and experts side by side, the rest summed."""
    together = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        beside = name in ("x", "y") or name.startswith("experts.")
        together[name] = torch.cat(values) if beside else torch.stack(values).sum(0)
    return together


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].shape == want[name].shape and got[name].dtype == want[name].dtype, name
        error = (got[name] - want[name]).abs().max().item()
        assert error <= tolerance * want[name].abs().max().item(), f"{name} is off by {error:.2g}"


FAVOURED = {
    "natural": (),
    "one hot expert": (5,),
    "three experts get all": (0, 1, 2),  # of 4 ranks the last two get nothing
    "the last get all": (5, 6, 7),
}


@pytest.mark.parametrize("ranks,local", SHAPES)
@pytest.mark.parametrize("favoured", FAVOURED)
@pytest.mark.parametrize("multiple", [1, 4])
def test_many_ranks_equal_one_in_float64(ranks, local, favoured, multiple):
    case = Case(ranks, torch.float64, FAVOURED[favoured])
    how = {"ranks_per_node": local, "row_multiple": multiple}
    got = joined(Threads(ranks).run(lambda group: case.run(case.layer(group, **how), group.rank)))
    assert_same(got, case.run(case.whole), 1e-10)


@pytest.mark.parametrize("ranks,local", [(2, 2), (4, 2)])
@pytest.mark.parametrize("kernels", [PlainKernels(), FastKernels()], ids=["grouped", "padded"])
def test_many_ranks_equal_one_with_fast_products(ranks, local, kernels, monkeypatch):
    case = Case(ranks, torch.float32)
    grouped, form = [], experts.experts_grouped
    monkeypatch.setattr(experts, "experts_grouped", lambda *a: grouped.append(1) or form(*a))
    got = joined(
        Threads(ranks).run(
            lambda group: case.run(case.layer(group, kernels, ranks_per_node=local), group.rank)
        )
    )
    assert bool(grouped) == isinstance(kernels, PlainKernels)
    assert_same(got, case.run(case.whole), 1e-5)


def test_two_runs_give_the_same_bits():
    case = Case(4, torch.float32)
    both = [
        Threads(4).run(lambda group: case.run(case.layer(group, ranks_per_node=2), group.rank))
        for _ in range(2)
    ]
    for one, other in zip(*both, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def narrow_layer(group: Group) -> list[list[float]]:
    """Everything that a rank gets, with the report's payloads; some ranks have few rows, one has none."""
    case = Case(4, torch.float32, FAVOURED["three experts get all"])
    layer = case.layer(group, ranks_per_node=2, dispatch=FP8(), combine=BF16())
    return [value.flatten().tolist() for value in case.run(layer, group.rank).values()]


def test_processes_and_threads_give_the_same_bits(on_processes):
    """Rows travel over gloo: bytes, and messages without any."""
    assert on_processes(narrow_layer, 4) == Threads(4).run(narrow_layer)


@pytest.mark.parametrize("how,tolerance", [({"combine": BF16()}, 2**-7), ({"dispatch": FP8()}, 2**-3)])
def test_narrow_payloads_stay_near(how, tolerance):
    """On the norm: rounding errors of many elements do not add up."""
    case = Case(4, torch.float32)
    want = case.run(case.whole)
    got = joined(
        Threads(4).run(lambda group: case.run(case.layer(group, ranks_per_node=2, **how), group.rank))
    )
    for name in want:
        if name != "count":
            error = (got[name] - want[name]).norm() / want[name].norm()
            assert error <= tolerance, f"{name} is off by {error:.2g}"
    assert not torch.equal(got["y"], want["y"]) and not torch.equal(got["x"], want["x"])


class Diary:
    """A group that notes when a message starts and when somebody waits for it."""

    def __init__(self, group: Group, events: list[str]) -> None:
        self._group, self.events = group, events
        self.rank, self.size = group.rank, group.size

    def all_to_all(self, x, sent, received):
        moving = self._group.all_to_all(x, sent, received)
        kind = {1: "counts", 2: "rows"}[x.ndim] if x.dtype != torch.int32 else "choices"
        kind = "weights" if kind == "rows" and x.shape[1] == K else kind
        self.events.append(f"start {kind}")
        diary = self

        class Noted:
            def wait(self):
                diary.events.append(f"wait {kind}")
                return moving.wait()

        return Noted()


def test_the_shared_expert_runs_while_messages_are_under_way():
    case = Case(2, torch.float64)

    def work(group):
        diary = Diary(group, [])
        layer = case.layer(diary)
        assert layer.shared is not None
        layer.shared.register_forward_hook(lambda *_: diary.events.append("shared"))
        layer.shared.register_full_backward_hook(lambda *_: diary.events.append("shared, backward"))
        layer.experts.register_forward_hook(lambda *_: diary.events.append("experts"))
        case.run(layer, group.rank)
        return diary.events

    there = ["start rows", "start weights", "shared", "wait rows", "wait weights", "experts"]
    turn = ["start rows", "wait rows", "start rows", "wait rows"]  # outputs back, and their gradients
    back = ["start rows", "start weights", "shared, backward", "wait rows", "wait weights"]
    planned = ["start counts", "wait counts", "start choices", "wait choices"]
    assert Threads(2).run(work) == [planned + there + turn + back] * 2


@pytest.mark.parametrize(
    "ranks,local,one_device", [(1, 1, True), (1, 1, False), (2, 2, False), (4, 2, False), (4, 1, False)]
)
def test_a_layer_may_be_run_by_hand(ranks, local, one_device):
    """Its parts one by one, autograd nowhere between ranks: the same as the layer."""
    case = Case(ranks, torch.float64)

    def by_hand(layer: MoE, x_BTD: Tensor, dy_BTD: Tensor) -> list[Tensor]:
        x_BTD = x_BTD.clone().requires_grad_()
        routing = layer.router(x_BTD, torch.ones(x_BTD.shape[:2], dtype=torch.bool))
        assert layer.shared is not None
        shared_BTD = layer.shared(x_BTD)
        ways = layer.dispatch.plan(routing.expert_NK, E)
        rows, weights = ways.spread(x_BTD.detach().flatten(0, 1)), ways.spread_weights(routing.weight_NK)
        x_RD, weight_R = rows.wait().requires_grad_(), weights.wait().requires_grad_()
        y_RD = layer.experts(x_RD, ways.count_E, weight_R)
        y_BTD = ways.collect(y_RD).wait().view_as(x_BTD) + shared_BTD
        y_RD.backward(ways.spread(dy_BTD.flatten(0, 1)).wait())
        assert x_RD.grad is not None and weight_R.grad is not None
        dx_ND, dweight_NK = ways.collect(x_RD.grad).wait(), ways.collect_weights(weight_R.grad).wait()
        torch.autograd.backward([shared_BTD, routing.weight_NK], [dy_BTD, dweight_NK])
        assert x_BTD.grad is not None
        return [y_BTD.detach(), x_BTD.grad + dx_ND.view_as(x_BTD), *(p.grad for p in layer.parameters())]

    def whole(layer: MoE, x_BTD: Tensor, dy_BTD: Tensor) -> list[Tensor]:
        x_BTD = x_BTD.clone().requires_grad_()
        y_BTD, _ = layer(x_BTD, torch.ones(x_BTD.shape[:2], dtype=torch.bool))
        layer.zero_grad()
        y_BTD.backward(dy_BTD)
        return [y_BTD.detach(), x_BTD.grad, *(p.grad for p in layer.parameters())]

    def work(group):
        first = sum(case.rows[: group.rank])
        x_BTD, dy_BTD = (t[first : first + case.rows[group.rank]] for t in (case.x_BTD, case.dy_BTD))
        layer = case.whole if one_device else case.layer(group, ranks_per_node=local, row_multiple=2)
        layer.zero_grad()
        hand = [t.clone() for t in by_hand(layer, x_BTD, dy_BTD)]
        return hand, whole(layer, x_BTD, dy_BTD)

    for hand, want in Threads(ranks).run(work):
        for a, b in zip(hand, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("favour", [(), (0, 1, 2)])
def test_a_whole_network_over_ranks(recompute, favour):
    """Blocks that run again in the backward pass talk again, on every rank alike."""
    config = replace(CONFIG, moe=replace(CONFIG.moe, num_groups=1, groups_per_token=1))
    token_BT = torch.randint(0, 32, (4, 6), generator=torch.Generator().manual_seed(2))
    one = Transformer(config).double()

    def forward(model: Transformer, rows: slice) -> dict[str, Tensor]:
        for name, buffer in model.named_buffers():
            if name.endswith("router.bias"):
                buffer[list(favour)] += 10.0
        model.recompute = recompute
        output = model(token_BT[rows], mtp=True)
        (output.hidden_BTD.square().sum() + output.mtp_BTD[0].pow(3).sum()).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    def work(group):
        model = Transformer(config, dispatch=AllToAll(group, ranks_per_node=2), seed=None).double()
        mine = range(group.rank * 2, group.rank * 2 + 2)
        state = {
            name: value[mine.start : mine.stop] if ".experts." in name else value
            for name, value in one.state_dict().items()
        }
        model.load_state_dict(state)
        return forward(model, slice(group.rank, group.rank + 1))

    parts = Threads(4).run(work)  # before the biases of `one` change
    want = forward(one, slice(None))
    for name, grad in want.items():
        each = [part[name] for part in parts]
        got = torch.cat(each) if ".experts." in name else torch.stack(each).sum(0)
        assert (got - grad).abs().max() <= 1e-10 * max(grad.abs().max().item(), 1e-3), name


def test_experts_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ConfigError, match=r"num_experts=8 .* parallel.ep=3.*Fix: "):
        Threads(3).run(lambda group: MoE(CONFIG, PlainKernels(), AllToAll(group)))


def test_a_rank_holds_only_its_experts():
    layers = Threads(4).run(lambda group: MoE(CONFIG, PlainKernels(), AllToAll(group)))
    assert [list(layer.dispatch.local_experts(E)) for layer in layers] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert all(weight.shape[0] == 2 for layer in layers for weight in layer.experts.parameters())
    assert all(layer.router.weight.shape[0] == E for layer in layers)
    assert AllToAll(Alone()).local_experts(E) == range(E) == LocalDispatch().local_experts(E)
