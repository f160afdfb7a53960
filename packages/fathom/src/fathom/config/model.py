"""The shape of the network: everything that decides which tensors exist (report sections 2.1, 2.2 and 4.2).

The defaults are DeepSeek-V3 as it was pre-trained, before YaRN. What can be derived is a property, never a
setting. Upper bounds stand where the mathematics would overflow; sizes have none, because a network may be
counted that no machine can hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fathom.config.errors import need
from fathom.config.setting import check, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionConfig:
    """Multi-head latent attention (report section 2.1.1)."""

    num_heads: int = setting(128, "attention heads, n_h", low=1)
    q_rank: int = setting(1536, "width of the compressed query, d_c'; 0 = queries are not compressed", low=0)
    kv_rank: int = setting(512, "width of the compressed key and value, d_c: what the cache holds", low=1)
    nope_head: int = setting(128, "query and key channels of a head that carry no position, d_h", low=1)
    rope_head: int = setting(64, "query and key channels of a head that are rotated, d_h^R", low=2)
    value_head: int = setting(128, "value channels of a head", low=1)

    def __post_init__(self) -> None:
        check(self, "model.attention")
        need(
            self.rope_head % 2 == 0,
            f"model.attention.rope_head={self.rope_head} is odd, and channels rotate in pairs",
            fix=f"set rope_head to {self.rope_head - 1}",
        )

    @property
    def qk_head(self) -> int:
        """Channels of one head's query and key."""
        return self.nope_head + self.rope_head

    @property
    def cache_elements(self) -> int:
        """Cached elements per token and layer: the latent and the one rotated key."""
        return self.kv_rank + self.rope_head


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeConfig:
    """Rotary positions and their YaRN extension (report section 4.3; arXiv 2309.00071)."""

    theta: float = setting(10000.0, "base of the rotation frequencies", above=1.0, high=1e12)
    factor: float = setting(1.0, "YaRN: times the original length, s; 1 = no YaRN", low=1.0, high=1e6)
    original_positions: int = setting(4096, "YaRN: the length trained before extension", low=1)
    beta_fast: float = setting(32.0, "YaRN: turns above which a frequency is kept", above=0.0, high=1e6)
    beta_slow: float = setting(1.0, "YaRN: turns below which it is divided by factor", above=0.0, high=1e5)
    mscale: float = setting(1.0, "YaRN: temperature term of the cos and sin tables", low=0.0, high=100.0)
    mscale_all: float = setting(1.0, "YaRN: temperature term of the logits (_all_dim)", low=0.0, high=100.0)

    def __post_init__(self) -> None:
        check(self, "model.rope")
        need(
            self.beta_fast > self.beta_slow,
            f"model.rope.beta_fast={self.beta_fast} is not above model.rope.beta_slow={self.beta_slow}",
            fix=f"set beta_fast to more than {self.beta_slow}, such as {2 * self.beta_slow}",
        )

    @property
    def logit_factor(self) -> float:
        """m squared: what YaRN multiplies the attention logits by; 1 without YaRN."""
        return yarn_mscale(self.factor, self.mscale_all) ** 2

    @property
    def table_factor(self) -> float:
        """What YaRN multiplies the cos and sin tables by; 1 for V2 and V3, whose two terms are equal."""
        return yarn_mscale(self.factor, self.mscale) / yarn_mscale(self.factor, self.mscale_all)


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's attention temperature 0.1 * mscale * ln(factor) + 1 (report section 4.3)."""
    return 0.1 * mscale * math.log(factor) + 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MoEConfig:
    """DeepSeekMoE: routed and shared experts and the choice among them (report section 2.1.2)."""

    num_experts: int = setting(256, "routed experts per layer, N_r", low=1)
    num_shared: int = setting(1, "shared experts per layer, N_s; 0 = none", low=0)
    experts_per_token: int = setting(8, "routed experts that see a token, K_r", low=1)
    num_groups: int = setting(8, "expert groups; one group per node in training", low=1)
    groups_per_token: int = setting(4, "groups a token may reach, M", low=1)
    expert_size: int = setting(2048, "inner width of one expert", low=1)
    score: str = setting("sigmoid", "affinity: sigmoid (V3) or softmax (V2)", choices=("sigmoid", "softmax"))
    normalize: bool = setting(True, "divide the chosen affinities by their sum")
    route_scale: float = setting(2.5, "factor on the routed output, after normalisation", above=0.0, high=1e3)

    def __post_init__(self) -> None:
        check(self, "model.moe")
        E, G, K = self.num_experts, self.num_groups, self.experts_per_token
        need(
            E % G == 0,
            f"model.moe.num_experts={E} does not split into model.moe.num_groups={G} equal groups",
            fix=f"set num_experts to {E - E % G + G} or num_groups to a divisor of {E}",
        )
        need(
            self.groups_per_token <= G,
            f"model.moe.groups_per_token={self.groups_per_token} is above model.moe.num_groups={G}",
            fix=f"set groups_per_token to {G} or less",
        )
        reach = self.groups_per_token * (E // G)
        need(
            reach >= K,
            f"model.moe.experts_per_token={K} is above the {reach} experts in model.moe.groups_per_token="
            f"{self.groups_per_token} of the model.moe.num_groups={G} groups of model.moe.num_experts={E}",
            fix=f"set experts_per_token to {reach} or less",
        )

    @property
    def group_size(self) -> int:
        """Experts in one group."""
        return self.num_experts // self.num_groups


@dataclass(frozen=True, kw_only=True, slots=True)
class MTPConfig:
    """Multi-token prediction (report section 2.2)."""

    depth: int = setting(1, "extra tokens predicted at each position, D; 0 = none", low=0)
    trunk: str = setting("pre_norm", "trunk state fed to the module", choices=("pre_norm", "post_norm"))
    mask_borders: bool = setting(False, "do not predict across a document border")

    def __post_init__(self) -> None:
        check(self, "model.mtp")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One DeepSeek-V3 network. The defaults are the 671B model."""

    name: str = setting("v3", "what this model is called in reports and model cards")
    vocab_size: int = setting(129280, "rows of the embedding and of the head", low=2)
    hidden_size: int = setting(7168, "width of the residual stream, d", low=1)
    num_layers: int = setting(61, "transformer blocks of the trunk, L", low=1)
    dense_layers: int = setting(3, "first blocks with a dense feed-forward instead of experts", low=0)
    dense_size: int = setting(18432, "inner width of the dense feed-forward", low=1)
    max_positions: int = setting(163840, "longest sequence the model promises to handle", low=2)
    norm_eps: float = setting(1e-6, "epsilon of every RMSNorm", above=0.0, high=1.0)
    init_std: float = setting(0.006, "deviation of initial weights (report 4.2)", above=0.0, high=10.0)
    attention: AttentionConfig = setting(AttentionConfig, "multi-head latent attention")
    rope: RopeConfig = setting(RopeConfig, "rotary positions")
    moe: MoEConfig = setting(MoEConfig, "mixture of experts")
    mtp: MTPConfig = setting(MTPConfig, "multi-token prediction")

    def __post_init__(self) -> None:
        check(self, "model")
        need(
            self.dense_layers <= self.num_layers,
            f"model.dense_layers={self.dense_layers} is above model.num_layers={self.num_layers}",
            fix=f"set dense_layers to {self.num_layers} or less",
        )
        need(self.name != "", "model.name is empty", fix='set it to a name such as "mine"')

    @property
    def softmax_scale(self) -> float:
        """Factor on the attention logits: 1/sqrt(qk_head), times m squared under YaRN (report 4.3)."""
        return self.rope.logit_factor / math.sqrt(self.attention.qk_head)

    def is_moe(self, layer: int) -> bool:
        """Whether block `layer` (0-based; MTP blocks follow the trunk) has experts."""
        return layer >= self.dense_layers
