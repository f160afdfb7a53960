"""The networks of `train_step.py`, for fathom and for transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig

NOPE, ROPE, VALUE = 64, 32, 64      # channels of a head
GROUPS, KEPT_GROUPS = 4, 2


@dataclass(frozen=True)
class Shape:
    """One network and its batch."""

    vocab: int
    width: int
    layers: int         # the first is dense
    experts: int
    chosen: int
    expert: int         # inner width of an expert; one is shared
    dense: int
    heads: int
    q_rank: int
    kv_rank: int
    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """Tokens in a step."""
        return self.rows * self.length

    def model(self) -> ModelConfig:
        """The network as fathom has it, without MTP, which transformers does not train."""
        return ModelConfig(
            name="benchmark", vocab_size=self.vocab, hidden_size=self.width, num_layers=self.layers,
            dense_layers=1, dense_size=self.dense, max_positions=2048, init_std=0.02,
            attention=AttentionConfig(
                num_heads=self.heads, q_rank=self.q_rank, kv_rank=self.kv_rank, nope_head=NOPE,
                rope_head=ROPE, value_head=VALUE,
            ),
            moe=MoEConfig(
                num_experts=self.experts, experts_per_token=self.chosen, num_groups=GROUPS,
                groups_per_token=KEPT_GROUPS, expert_size=self.expert,
            ),
            mtp=MTPConfig(depth=0),
        )

    def transformers(self, attention: str) -> Any:
        """The same network as transformers' DeepseekV3ForCausalLM in training mode."""
        from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

        config = DeepseekV3Config(
            vocab_size=self.vocab, hidden_size=self.width, intermediate_size=self.dense,
            moe_intermediate_size=self.expert, num_hidden_layers=self.layers, num_attention_heads=self.heads,
            num_key_value_heads=self.heads, n_shared_experts=1, n_routed_experts=self.experts,
            routed_scaling_factor=2.5, kv_lora_rank=self.kv_rank, q_lora_rank=self.q_rank,
            qk_rope_head_dim=ROPE, v_head_dim=VALUE, qk_nope_head_dim=NOPE, n_group=GROUPS,
            topk_group=KEPT_GROUPS, num_experts_per_tok=self.chosen, first_k_dense_replace=1,
            max_position_embeddings=2048, rope_theta=10000.0,
        )
        build = DeepseekV3ForCausalLM._from_config
        return build(config, attn_implementation=attention, experts_implementation="grouped_mm").train()


SHAPES = {
    "bench": Shape(8192, 512, 8, 32, 4, 256, 1280, 8, 192, 128, 8, 512),
    "wide": Shape(16384, 1024, 4, 16, 4, 512, 2560, 16, 384, 256, 2, 512),
    "demo": Shape(1024, 192, 4, 8, 2, 128, 512, 4, 96, 64, 4, 256),
}
