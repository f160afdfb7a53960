"""Plain generation with the latent cache, and without it as its oracle.

Axes:  B prompts of one length   T positions   V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fathom.config.errors import need
from fathom.model.cache import LatentCache
from fathom.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the next token is drawn; temperature 0 takes the most likely one."""

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        t, p = self.temperature, self.top_p
        need(0.0 <= t < float("inf"), f"temperature={t} is not 0 or above", fix="set it between 0 and 2")
        need(0.0 < p <= 1.0, f"top_p={p} is not above 0 and at most 1", fix="set it to 1 to keep every token")


def sample(logit_BV: Tensor, sampling: Sampling, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token per row. [B, V] -> int64 [B].

    top_p keeps the smallest set of most likely tokens whose probability reaches it (arXiv 1904.09751).
    """
    if sampling.temperature == 0.0:
        return logit_BV.argmax(-1)
    prob_BV = (logit_BV.float() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1.0:
        sorted_BV, order_BV = prob_BV.sort(-1, descending=True)
        beyond_BV = sorted_BV.cumsum(-1) - sorted_BV >= sampling.top_p
        prob_BV = torch.zeros_like(prob_BV).scatter(-1, order_BV, sorted_BV.masked_fill(beyond_BV, 0.0))
    return torch.multinomial(prob_BV, 1, generator=generator)[:, 0]


@torch.inference_mode()
def generate(
    model: Transformer,
    prompt_BT: Tensor,
    *,
    max_tokens: int,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
    tokens: int | None = None,
    use_cache: bool = True,
) -> Iterator[Tensor]:
    """Yield the next token of every prompt, int64 [B], `max_tokens` times; the caller stops at its end token.

    tokens      ids at or above this are never drawn: padding rows of the vocabulary
    use_cache   False runs the whole row through the training form each time: the oracle of the cache
    raises      ConfigError when prompt and answer do not fit the model's positions
    """
    B, T = prompt_BT.shape
    most = model.config.max_positions
    need(T > 0, "the prompt is empty", fix="give at least one token")
    need(
        T + max_tokens <= most,
        f"{T} prompt tokens and max_tokens={max_tokens} do not fit model.max_positions={most}",
        fix=f"shorten the prompt or set max_tokens to {max(most - T, 0)} or less",
    )
    weight = model.embed.weight
    cache = None
    if use_cache:
        cache = LatentCache(model.config, B, T + max_tokens, dtype=weight.dtype, device=weight.device)
    row_BT = new_BT = prompt_BT
    for _ in range(max_tokens):
        out = model(new_BT if cache is not None else row_BT, cache=cache)
        logit_BV = model.head(out.hidden_BTD[:, -1])[:, :tokens]
        token_B = sample(logit_BV, sampling or Sampling(), generator)
        new_BT = token_B[:, None]
        row_BT = torch.cat((row_BT, new_BT), dim=1)
        yield token_B
