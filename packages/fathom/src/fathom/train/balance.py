"""Load balance without an auxiliary loss: a bias per expert, moved once per optimizer step (report 2.1.2).

Axes:  L MoE layers, MTP's last   E experts
"""

from __future__ import annotations

import torch
from torch import Tensor

from fathom.model.router import Router
from fathom.model.transformer import Transformer


def routers(model: Transformer) -> list[Router]:
    """Every router in the order of `Output.routing`: trunk first, then MTP modules."""
    return [module for module in model.modules() if isinstance(module, Router)]


@torch.no_grad()
def update_bias(bias_E: Tensor, count_E: Tensor, speed: float, rule: str) -> None:
    """Raise the bias of experts with less than the mean load by `speed`, lower that of the others, in place.

    count_E   tokens per expert over the whole batch, all micro-batches and ranks
    rule      "sign": b += speed * sign(mean - count) (report; arXiv 2408.15664, algorithm 1);
              "centred": less the mean of the signs, so that the mean bias stays put (arXiv 2502.16982)
    """
    load_E = count_E.to(torch.float32)
    move_E = torch.sign(load_E.mean() - load_E)
    if rule == "centred":
        move_E = move_E - move_E.mean()
    bias_E += speed * move_E


def update_biases(model: Transformer, count_LE: Tensor, speed: float, rule: str) -> None:
    """`update_bias` in every MoE layer of the trunk and of MTP; softmax routing (V2) has no bias."""
    layers = routers(model)
    assert len(layers) == len(count_LE), f"{len(layers)} routers, but loads of {len(count_LE)}"
    for router, count_E in zip(layers, count_LE, strict=True):
        if router.moe.score == "sigmoid":
            update_bias(router.bias, count_E, speed, rule)


def max_violation(count_LE: Tensor) -> float:
    """MaxVio: (largest load - mean) / mean, averaged over layers; 0 is perfect (arXiv 2408.15664, 4.1)."""
    if count_LE.numel() == 0:
        return 0.0
    load_LE = count_LE.to(torch.float64)
    mean_L = load_LE.mean(-1).clamp(min=1e-12)
    return ((load_LE.amax(-1) - mean_L) / mean_L).mean().item()
