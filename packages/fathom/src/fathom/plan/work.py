"""The arithmetic of a training step, kernel by kernel, in FLOPs of one token.

Sizes:  D model width   V vocabulary   H heads   T tokens in a row.   A fused multiply-add counts as two.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from fathom.config.model import ModelConfig

ATTENTION_BACKWARD = 2.5    # five products where the forward has two: no probabilities were kept

# What a backward does again: nothing; norms, up-projections and SwiGLU (report 3.2.3); whole blocks.
Recompute = Literal["none", "report", "blocks"]


class Work(NamedTuple):
    """One kernel. FLOPs of the forward, of the gradients of inputs and of those of weights; `again`: what
    the backward does once more.

    fp8        whether its products may be in FP8 (report 3.3.1)
    attention  the core of attention, which is bf16 and has no weights
    """

    name: str
    forward: float
    inputs: float
    weights: float = 0.0
    again: float = 0.0
    fp8: bool = True
    attention: bool = False

    @property
    def counted(self) -> float:
        """Of a whole step as MFU counts it: the backward twice the forward, nothing done again."""
        return 3.0 * self.forward


def block(model: ModelConfig, seq_len: int, recompute: Recompute, *, dense: bool) -> list[Work]:
    """A transformer block with a dense feed-forward, or one with experts (report 2.1)."""
    a, m, D = model.attention, model.moe, model.hidden_size
    H, C = a.num_heads, a.kv_rank
    up = (a.q_rank * H * a.qk_head if a.q_rank else 0) + C * H * (a.nope_head + a.value_head)
    query = D * a.q_rank if a.q_rank else D * H * a.qk_head
    down = query + D * a.cache_elements + H * a.value_head * D
    core = H * (a.qk_head + a.value_head) * (seq_len + 1)       # mean keys are half of seq_len + 1
    whole = recompute == "blocks"
    attention = [
        _product("attention's projections", down, again=whole),
        _product("attention's up-projections", up, again=recompute != "none"),
        Work("attention", core, (ATTENTION_BACKWARD + whole) * core, fp8=False, attention=True),
    ]
    if dense:
        return [*attention, _product("dense feed-forward", 3 * D * model.dense_size, again=whole)]
    expert = 3 * D * m.expert_size
    return [
        *attention,
        _product("router", D * m.num_experts, fp8=False),
        _product("shared experts", m.num_shared * expert, again=whole),
        _product("routed experts", m.experts_per_token * expert, again=whole),
    ]


def head(model: ModelConfig) -> list[Work]:
    """The output head."""
    return [_product("head", model.vocab_size * model.hidden_size, fp8=False)]


def mtp(model: ModelConfig) -> list[Work]:
    """What an MTP module has besides its block: the projection, and another pass of the head (report 2.2)."""
    return [_product("MTP's projection", 2 * model.hidden_size**2, fp8=False), *head(model)]


def _product(name: str, size: int, *, fp8: bool = True, again: bool = False) -> Work:
    once = 2.0 * size
    return Work(name, once, once, once, once if again else 0.0, fp8)
