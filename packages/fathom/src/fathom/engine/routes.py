"""Which experts the tokens of a text go to."""

from __future__ import annotations

import torch

from fathom.config.errors import need
from fathom.config.model import ModelConfig
from fathom.engine.apart import Apart
from fathom.engine.request import RequestError

MOST_CHOICES = 1_500_000  # ids of one answer; with V3's 58 MoE layers of 8 experts 3,232 tokens

Routes = list[list[list[int]]]  # [tokens][MoE layers][experts per token], highest weight first


def need_few_choices(tokens: int, config: ModelConfig) -> None:
    """RequestError unless an answer about so many tokens has at most MOST_CHOICES ids."""
    each = max(1, (config.num_layers - config.dense_layers) * config.moe.experts_per_token)
    what = f"{tokens} tokens choose {tokens * each:,} experts, above {MOST_CHOICES:,}"
    fix = f"ask for {MOST_CHOICES // each:,} tokens or less"
    need(tokens * each <= MOST_CHOICES, what, fix=fix, error=RequestError)


@torch.inference_mode()
def next_routes(text: Apart) -> Routes:
    """The choices of the next chunk's tokens."""
    chosen: list[torch.Tensor] = []
    rows = len(text.advance(chosen))
    layers = [layer_RK.tolist() for layer_RK in chosen]
    return [[layer[r] for layer in layers] for r in range(rows)]
