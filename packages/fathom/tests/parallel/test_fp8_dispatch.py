"""Experts over ranks whose tokens travel in FP8 see the numbers that one process makes of them.

Rows are quantised with powers of two once, where they leave; what arrives is quantised again by the experts,
which changes nothing, and the same holds for gradients on their way back. So with outputs combined as they
are, many ranks equal one process that quantises there too, up to the order of sums (report section 3.3.3).

Axes:  B rows   T positions   D model width   K experts per token   E experts
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.model.experts import LocalDispatch, MoE
from fathom.ops.fp8.cpu import Cpu
from fathom.ops.fp8.kernels import Fp8Kernels
from fathom.parallel.dispatch import AllToAll
from fathom.parallel.exchange import PLAIN
from fathom.parallel.group import Group
from fathom.parallel.payload import BF16, FP8, Payload
from fathom.parallel.threads import Threads

E, K, D, T = 8, 3, 160, 64
ROWS = (2, 0, 4, 2)  # of each rank, in whole tiles of 128 tokens: the shared expert's Wgrad is cut alike
CONFIG = ModelConfig(
    vocab_size=32, hidden_size=D, num_layers=2, dense_layers=1, dense_size=16, max_positions=T, init_std=0.1,
    attention=AttentionConfig(num_heads=2, q_rank=8, kv_rank=8, nope_head=4, rope_head=4, value_head=4),
    moe=MoEConfig(num_experts=E, experts_per_token=K, num_groups=4, groups_per_token=2, expert_size=136),
    mtp=MTPConfig(depth=0),
)  # fmt: skip


def kernels() -> Fp8Kernels:
    return Fp8Kernels(Cpu(torch.float32))


class Case:
    """One layer's weights, all ranks' inputs, and the gradient of its outputs."""

    def __init__(self, dtype: torch.dtype) -> None:
        draw = torch.Generator().manual_seed(1)
        made = kernels()
        self.whole = MoE(CONFIG, made, LocalDispatch(made.row_multiple, made.spread))
        for parameter in self.whole.parameters():
            parameter.data.normal_(0.0, 0.1, generator=draw)
        # Tokens and gradients of very different sizes, whose tiles have very different scales.
        size = torch.randn(sum(ROWS), T, 1, generator=draw).exp()
        self.x_BTD = (torch.randn(sum(ROWS), T, D, generator=draw) * size).to(dtype)
        self.dy_BTD = (torch.randn(sum(ROWS), T, D, generator=draw) / size).to(dtype)

    def layer(self, group: Group, local: int, dispatch: Payload, combine: Payload) -> MoE:
        made = kernels()
        how = {"row_multiple": made.row_multiple, "dispatch": dispatch, "combine": combine}
        layer = MoE(CONFIG, made, AllToAll(group, ranks_per_node=local, **how))
        mine = layer.dispatch.local_experts(E)
        state = self.whole.state_dict()
        part = slice(mine.start, mine.stop)
        layer.load_state_dict({n: v[part] if n.startswith("experts.") else v for n, v in state.items()})
        return layer

    def run(self, layer: MoE, rank: int | None = None) -> dict[str, Tensor]:
        first = 0 if rank is None else sum(ROWS[:rank])
        part = slice(first, None if rank is None else first + ROWS[rank])
        x_BTD = self.x_BTD[part].clone().requires_grad_()
        y_BTD, _ = layer(x_BTD, torch.ones(x_BTD.shape[:2], dtype=torch.bool))
        names, weights = zip(*layer.named_parameters(), strict=True)
        grads = torch.autograd.grad(y_BTD, [x_BTD, *weights], self.dy_BTD[part])
        return {"y": y_BTD.detach(), **dict(zip(("x", *names), grads, strict=True))}

    def ranks(self, local: int, dispatch: Payload, combine: Payload) -> dict[str, Tensor]:
        parts = Threads(4).run(lambda g: self.run(self.layer(g, local, dispatch, combine), g.rank))
        beside = {n for n in parts[0] if n in ("x", "y") or n.startswith("experts.")}
        return {
            n: torch.cat([p[n] for p in parts]) if n in beside else torch.stack([p[n] for p in parts]).sum(0)
            for n in parts[0]
        }


def distances(got: dict[str, Tensor], want: dict[str, Tensor]) -> dict[str, float]:
    assert got.keys() == want.keys()
    return {n: float((got[n].float() - w.float()).norm() / w.float().norm()) for n, w in want.items()}


@pytest.mark.parametrize("local", [4, 2, 1])
def test_ranks_with_fp8_payloads_equal_one_process(local):
    case = Case(torch.float32)
    far = distances(case.ranks(local, FP8(), PLAIN), case.run(case.whole))
    # Sums in another order; where one crosses the border between two E4M3 numbers, one tile differs a little.
    assert max(far.values()) < 2e-4, far


def test_the_payload_is_where_experts_quantise_anyway():
    """Rows as they are or in FP8: the same bits reach the experts, so all results have the same bits."""
    case = Case(torch.bfloat16)
    plain, narrow = (case.ranks(2, payload, BF16()) for payload in (PLAIN, FP8()))
    for name, value in plain.items():
        assert torch.equal(value, narrow[name]), name


def test_a_combine_in_bf16_costs_its_rounding():
    case = Case(torch.bfloat16)
    far = distances(case.ranks(2, FP8(), BF16()), case.run(case.whole))
    assert max(far.values()) < 2e-2, far
