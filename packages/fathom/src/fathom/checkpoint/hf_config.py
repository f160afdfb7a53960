"""config.json as DeepSeek-V3 was published with it, to and from our ModelConfig.

What the official keys cannot say is kept under one key of our own, "fathom", which other readers pass over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fathom.checkpoint.hf_rope import FIX, YARN_DEFAULTS, read_rope, real, rope_keys
from fathom.config.errors import ConfigError, DataError, need
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig

# The one value of each key that this network implements; another value is another network.
FIXED: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "moe_layer_freq": 1,
    "rope_interleave": True,
    "tie_word_embeddings": False,
    "topk_method": "noaux_tc",
}
OUR_KEYS = {"name", "mtp", "rope"}


def hf_config(
    config: ModelConfig,
    *,
    bos: int | None = 0,
    eos: int | None = 1,
    pad: int | None = None,
    dtype: str = "bfloat16",
) -> dict[str, Any]:
    """The official config.json of `config`; `dtype` is that of the stored weights.

    Left out are the keys that name software or a quantization: auto_map, transformers_version,
    quantization_config.
    """
    a, moe = config.attention, config.moe
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        **FIXED,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "ep_size": 1,
        "first_k_dense_replace": config.dense_layers,
        "hidden_size": config.hidden_size,
        "initializer_range": config.init_std,
        "intermediate_size": config.dense_size,
        "kv_lora_rank": a.kv_rank,
        "max_position_embeddings": config.max_positions,
        "moe_intermediate_size": moe.expert_size,
        "n_group": moe.num_groups,
        "n_routed_experts": moe.num_experts,
        "n_shared_experts": moe.num_shared,
        "norm_topk_prob": moe.normalize,
        "num_attention_heads": a.num_heads,
        "num_experts_per_tok": moe.experts_per_token,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": a.num_heads,
        "num_nextn_predict_layers": config.mtp.depth,
        "q_lora_rank": a.q_rank or None,
        "qk_nope_head_dim": a.nope_head,
        "qk_rope_head_dim": a.rope_head,
        "rms_norm_eps": config.norm_eps,
        **rope_keys(config.rope),
        "routed_scaling_factor": moe.route_scale,
        "scoring_func": moe.score,
        "topk_group": moe.groups_per_token,
        "torch_dtype": dtype,
        "use_cache": True,
        "v_head_dim": a.value_head,
        "vocab_size": config.vocab_size,
        "fathom": _our_keys(config),
    }


def model_config(hf: Mapping[str, Any], name: str = "imported", *, where: str = "config.json") -> ModelConfig:
    """The network that a config.json describes. A missing key means DeepSeek-V3's own value.

    name     what the model is called if the file does not say
    where    the file, for messages
    errors   DataError, if a value belongs to another network than DeepSeek-V3 or to none
    """
    for key, value in FIXED.items():
        found = hf.get(key, value)
        need(
            found == value,
            f"{where}: {key}={found!r} is not supported (only {value!r})",
            fix=FIX,
            error=DataError,
        )
    ours = _our_section(hf, where)
    try:
        return _read(hf, name, ours, where)
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from error
    except TypeError as error:  # a key that a config class does not have
        raise DataError(f'{where}: its "fathom" section is damaged ({error}). Fix: {FIX}') from error


def _read(hf: Mapping[str, Any], name: str, ours: Mapping[str, Any], where: str) -> ModelConfig:
    v3 = ModelConfig()
    heads = hf.get("num_attention_heads", v3.attention.num_heads)
    kv_heads = hf.get("num_key_value_heads")
    need(
        kv_heads is None or kv_heads == heads,
        f"{where}: num_key_value_heads={kv_heads!r} is not num_attention_heads={heads!r}",
        fix=FIX,
        error=DataError,
    )
    return ModelConfig(
        name=ours.get("name", name),
        vocab_size=hf.get("vocab_size", v3.vocab_size),
        hidden_size=hf.get("hidden_size", v3.hidden_size),
        num_layers=hf.get("num_hidden_layers", v3.num_layers),
        dense_layers=hf.get("first_k_dense_replace", v3.dense_layers),
        dense_size=hf.get("intermediate_size", v3.dense_size),
        max_positions=hf.get("max_position_embeddings", v3.max_positions),
        norm_eps=real(hf.get("rms_norm_eps", v3.norm_eps)),
        init_std=real(hf.get("initializer_range", v3.init_std)),
        attention=_attention(hf, heads),
        rope=read_rope(hf, ours.get("rope", {}), where),
        moe=_moe(hf),
        mtp=MTPConfig(depth=hf.get("num_nextn_predict_layers", v3.mtp.depth), **ours.get("mtp", {})),
    )


def _attention(hf: Mapping[str, Any], heads: Any) -> AttentionConfig:
    v3 = AttentionConfig()
    return AttentionConfig(
        num_heads=heads,
        q_rank=_or_zero(hf.get("q_lora_rank", v3.q_rank)),
        kv_rank=hf.get("kv_lora_rank", v3.kv_rank),
        nope_head=hf.get("qk_nope_head_dim", v3.nope_head),
        rope_head=hf.get("qk_rope_head_dim", v3.rope_head),
        value_head=hf.get("v_head_dim", v3.value_head),
    )


def _moe(hf: Mapping[str, Any]) -> MoEConfig:
    v3 = MoEConfig()
    return MoEConfig(
        num_experts=hf.get("n_routed_experts", v3.num_experts),
        num_shared=_or_zero(hf.get("n_shared_experts", v3.num_shared)),
        experts_per_token=hf.get("num_experts_per_tok", v3.experts_per_token),
        num_groups=hf.get("n_group", v3.num_groups),
        groups_per_token=hf.get("topk_group", v3.groups_per_token),
        expert_size=hf.get("moe_intermediate_size", v3.expert_size),
        score=hf.get("scoring_func", v3.score),
        normalize=hf.get("norm_topk_prob", v3.normalize),
        route_scale=real(hf.get("routed_scaling_factor", v3.route_scale)),
    )


def _our_keys(config: ModelConfig) -> dict[str, Any]:
    section: dict[str, Any] = {
        "name": config.name,
        "mtp": {"trunk": config.mtp.trunk, "mask_borders": config.mtp.mask_borders},
    }
    if config.rope.factor == 1.0:  # settings of a YaRN that is off: the official keys have no place for them
        section["rope"] = {ours: getattr(config.rope, ours) for ours in YARN_DEFAULTS}
    return section


def _our_section(hf: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    section = hf.get("fathom", {})
    tables = isinstance(section, Mapping) and all(
        isinstance(section.get(k, {}), Mapping) for k in ("mtp", "rope")
    )
    need(tables, f'{where}: "fathom" is not a table of settings', fix="delete that key", error=DataError)
    unknown = sorted(set(section) - OUR_KEYS)
    need(
        not unknown,
        f"{where}: unknown key fathom.{unknown[0] if unknown else ''}",
        fix=f"use the version of fathom that wrote it, or keep only {', '.join(sorted(OUR_KEYS))}",
        error=DataError,
    )
    return section


def _or_zero(value: Any) -> Any:
    """null means "none of it" where we write 0."""
    return 0 if value is None else value
