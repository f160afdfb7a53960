"""Which experts see a token: DeepSeek-V3 report, section 2.1.2, equations 13-20.

Axes:  N tokens   E experts   G groups   M groups kept   K experts per token   B rows   T tokens in a row
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fathom.config.model import MoEConfig
from fathom.ops.norm import wide

TINY = 1e-20  # keeps the normalisation finite when every chosen affinity underflows


class Routing(NamedTuple):
    """The choice of one MoE layer for N tokens."""

    weight_NK: Tensor  # fp32, what each chosen expert's output is multiplied by
    expert_NK: Tensor  # int64, distinct in a row
    count_E: Tensor  # int64, real tokens of this rank that chose each expert, wherever it lives
    sequence_loss: Tensor  # sum_i f_i P_i (eq 17 before alpha), 1 when balanced; 0 when no gradient is taken


def affinity(logit_NE: Tensor, moe: MoEConfig) -> Tensor:
    """How well each expert suits each token: sigmoid (eq 15), or softmax as in V2."""
    return logit_NE.sigmoid() if moe.score == "sigmoid" else logit_NE.softmax(-1)


def choose(score_NE: Tensor, bias_E: Tensor, moe: MoEConfig) -> Tensor:
    """The K experts of each token by biased affinity, within its M best groups (eq 16). -> int64 [N, K].

    A group's score is the sum of its two best biased affinities (K/M = 2 in V3), or its best under softmax
    (V2). Experts outside the chosen groups are masked with -inf: 0.0 would beat negative biased affinities.
    """
    biased_NE = score_NE + bias_E
    if moe.num_groups > 1:
        biased_NGe = biased_NE.unflatten(-1, (moe.num_groups, moe.group_size))
        best = min(2, moe.group_size) if moe.score == "sigmoid" else 1
        group_NG = biased_NGe.topk(best, -1).values.sum(-1)
        kept_NM = group_NG.topk(moe.groups_per_token, -1).indices
        dropped_NG = torch.ones_like(group_NG, dtype=torch.bool).scatter(-1, kept_NM, False)
        biased_NE = biased_NGe.masked_fill(dropped_NG[..., None], -torch.inf).flatten(-2)
    return biased_NE.topk(moe.experts_per_token, -1).indices


def combine_weights(score_NE: Tensor, expert_NK: Tensor, moe: MoEConfig) -> Tensor:
    """Output weights from the unbiased affinities of the chosen experts (eq 13, 14). -> [N, K]."""
    weight_NK = score_NE.gather(-1, expert_NK)
    if moe.normalize:
        weight_NK = weight_NK / (weight_NK.sum(-1, keepdim=True) + TINY)
    return weight_NK * moe.route_scale


def sequence_balance(score_BTE: Tensor, moe: MoEConfig, real_BT: Tensor) -> Tensor:
    """sum_i f_i P_i of each row, averaged over rows (eq 17-20); 1 when balanced, 0 where there is no row.

    f_i is the share of the row's tokens whose K largest unbiased affinities include expert i, times E/K, and
    has no gradient; P_i is the mean share of affinity, normalised over all experts. Padding does not count.
    """
    real_BT1 = real_BT[..., None].to(score_BTE.dtype)
    length_B1 = real_BT1.sum(1).clamp(min=1.0)
    best_BTK = score_BTE.topk(moe.experts_per_token, -1).indices
    chosen_BTE = torch.zeros_like(score_BTE).scatter(-1, best_BTK, 1.0)
    f_BE = (chosen_BTE * real_BT1).sum(1) * (moe.num_experts / moe.experts_per_token) / length_B1  # eq 18
    share_BTE = score_BTE / (score_BTE.sum(-1, keepdim=True) + TINY)              # eq 19
    P_BE = (share_BTE * real_BT1).sum(1) / length_B1                              # eq 20
    loss_B = (f_BE.detach() * P_BE).sum(-1)                                       # eq 17
    return loss_B.mean() if len(loss_B) else loss_B.sum()  # a rank may have no row


class Router(nn.Module):
    """Affinities in fp32, and a routing bias that is a buffer: balance moves it, no gradient does."""

    bias: Tensor

    def __init__(self, width: int, moe: MoEConfig) -> None:
        super().__init__()
        self.moe = moe
        self.weight = nn.Parameter(torch.empty(moe.num_experts, width))
        self.register_buffer("bias", torch.zeros(moe.num_experts, dtype=torch.float32))

    def forward(self, x_BTD: Tensor, real_BT: Tensor, expert_NK: Tensor | None = None) -> Routing:
        """Route every token of [B, T, D]; `expert_NK` given = replay that choice. N = B*T."""
        score_BTE = affinity(F.linear(wide(x_BTD), wide(self.weight)), self.moe)  # eq 15
        score_NE = score_BTE.flatten(0, 1)
        if expert_NK is None:
            expert_NK = choose(score_NE.detach(), self.bias, self.moe)
        learning = torch.is_grad_enabled()
        balance = sequence_balance(score_BTE, self.moe, real_BT) if learning else score_BTE.new_zeros(())
        return Routing(
            weight_NK=combine_weights(score_NE, expert_NK, self.moe),
            expert_NK=expert_NK,
            count_E=_count(expert_NK, real_BT.flatten(), self.moe.num_experts),
            sequence_loss=balance,
        )


def _count(expert_NK: Tensor, real_N: Tensor, num_experts: int) -> Tensor:
    """Real tokens per expert: the loads that MaxVio and the bias are computed from. -> int64 [E]."""
    flat = torch.where(real_N[:, None], expert_NK, num_experts).flatten()
    return flat.bincount(minlength=num_experts + 1)[:num_experts]
