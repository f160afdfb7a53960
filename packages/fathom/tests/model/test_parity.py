"""Our logits equal transformers' DeepseekV3ForCausalLM on random small networks."""

from __future__ import annotations

import random

import pytest
import torch

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig, RopeConfig
from fathom.model.router import Router, affinity
from fathom.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

NETWORKS = 100
TOLERANCE = 2e-5  # of the largest |logit|: fp32 rounding through a few layers
NEAR_TIE = 1e-5  # two routing scores nearer than this may be ordered either way by rounding


def random_config(rng: random.Random) -> ModelConfig:
    groups = rng.choice([1, 2, 4])
    experts = groups * rng.choice([2, 3, 4])
    kept = rng.randint(1, groups)
    yarn = rng.random() < 0.5
    mscale = rng.choice([0.707, 1.0])
    rope = RopeConfig(
        theta=rng.choice([10000.0, 50000.0]),
        factor=rng.choice([2.0, 40.0]) if yarn else 1.0,
        original_positions=rng.choice([16, 64, 4096]),
        mscale=mscale,
        mscale_all=mscale,
    )
    return ModelConfig(
        vocab_size=rng.choice([50, 97]),
        hidden_size=rng.choice([16, 32, 40]),
        num_layers=rng.choice([2, 3]),
        dense_layers=rng.choice([0, 1]),
        dense_size=rng.choice([24, 48]),
        max_positions=256,
        init_std=0.3,
        rope=rope,
        attention=AttentionConfig(
            num_heads=rng.choice([1, 2, 4]),
            q_rank=rng.choice([0, 12, 24]),
            kv_rank=rng.choice([8, 16]),
            nope_head=rng.choice([4, 8, 16]),
            rope_head=rng.choice([4, 8]),
            value_head=rng.choice([4, 8, 24]),
        ),
        moe=MoEConfig(
            num_experts=experts,
            num_shared=rng.choice([1, 2]),
            experts_per_token=rng.randint(1, min(4, kept * experts // groups)),
            num_groups=groups,
            groups_per_token=kept,
            expert_size=rng.choice([8, 12]),
            normalize=rng.random() < 0.7,
            route_scale=rng.choice([1.0, 2.5]),
        ),
        mtp=MTPConfig(depth=0),
    )


def peer_of(model: Transformer) -> torch.nn.Module:
    """transformers' network with our weights."""
    c = model.config
    a, m, r = c.attention, c.moe, c.rope
    rope = {"rope_theta": r.theta, "rope_type": "default"}
    if r.factor != 1.0:
        rope |= {
            "rope_type": "yarn",
            "factor": r.factor,
            "original_max_position_embeddings": r.original_positions,
            "beta_fast": r.beta_fast,
            "beta_slow": r.beta_slow,
            "mscale": r.mscale,
            "mscale_all_dim": r.mscale_all,
        }
    config = transformers.DeepseekV3Config(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.dense_size,
        moe_intermediate_size=m.expert_size, num_hidden_layers=c.num_layers, num_attention_heads=a.num_heads,
        num_key_value_heads=a.num_heads, n_shared_experts=m.num_shared, n_routed_experts=m.num_experts,
        routed_scaling_factor=m.route_scale, kv_lora_rank=a.kv_rank, q_lora_rank=a.q_rank or None,
        qk_rope_head_dim=a.rope_head, v_head_dim=a.value_head, qk_nope_head_dim=a.nope_head,
        n_group=m.num_groups, topk_group=m.groups_per_token, num_experts_per_tok=m.experts_per_token,
        first_k_dense_replace=c.dense_layers, norm_topk_prob=m.normalize, rms_norm_eps=c.norm_eps,
        max_position_embeddings=c.max_positions, rope_parameters=rope, rope_interleave=True,
        attn_implementation="eager", experts_implementation="eager",
    )  # fmt: skip
    peer = transformers.DeepseekV3ForCausalLM(config).eval()
    missing, unexpected = peer.load_state_dict(peer_names(model), strict=False)
    assert not unexpected and all("rotary" in name for name in missing), (missing, unexpected)
    return peer


RENAMES = [
    ("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"), ("attention.", "self_attn."),
    ("q_a.", "q_a_proj."), ("q_b.", "q_b_proj."), (".q.", ".q_proj."), ("kv_a.", "kv_a_proj_with_mqa."),
    ("kv_b.", "kv_b_proj."), ("kv_norm", "kv_a_layernorm"), ("q_norm", "q_a_layernorm"),
    ("self_attn.out.", "self_attn.o_proj."), ("ffn.shared.", "mlp.shared_experts."), ("ffn.", "mlp."),
    ("router.bias", "gate.e_score_correction_bias"), ("router.weight", "gate.weight"),
    ("embed.", "embed_tokens."),
]  # fmt: skip


def peer_names(model: Transformer) -> dict[str, torch.Tensor]:
    """Our tensors under the names of transformers' module tree (gate and up of all experts in one)."""
    state, named = model.state_dict(), {}
    for name, tensor in state.items():
        new = name
        for ours, theirs in RENAMES:
            new = new.replace(ours, theirs)
        if name.endswith("experts.gate"):
            both = torch.cat((tensor, state[name.removesuffix("gate") + "up"]), dim=1)
            named[f"model.{new.removesuffix('gate')}gate_up_proj"] = both
        elif name.endswith("experts.down"):
            named[f"model.{new}_proj"] = tensor
        elif not name.endswith("experts.up"):
            dense = "mlp." in new and "router" not in name
            if dense and new.endswith(("gate.weight", "up.weight", "down.weight")):
                new = new.removesuffix(".weight") + "_proj.weight"
            named["lm_head.weight" if name == "head.weight" else f"model.{new}"] = tensor
    return named


def smallest_gap(model: Transformer, token_BT: torch.Tensor) -> float:
    """How near the nearest top-k decision of any router was to a tie."""
    gaps: list[float] = []

    def look(router: Router, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        moe = router.moe
        score_NE = affinity(inputs[0].flatten(0, 1) @ router.weight.T, moe) + router.bias
        if moe.num_groups > moe.groups_per_token:
            grouped = score_NE.unflatten(-1, (moe.num_groups, -1))
            group_NG = grouped.topk(min(2, moe.group_size)).values.sum(-1)
            gaps.append(gap_at(group_NG, moe.groups_per_token))
            kept = group_NG.topk(moe.groups_per_token).indices
            mask = torch.ones_like(group_NG, dtype=torch.bool).scatter(-1, kept, False)
            score_NE = grouped.masked_fill(mask[..., None], -9.0).flatten(-2)
        if moe.experts_per_token < moe.num_experts:
            gaps.append(gap_at(score_NE, moe.experts_per_token))

    hooks = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, Router)]
    model.logits(token_BT)
    for hook in hooks:
        hook.remove()
    return min(gaps, default=1.0)


def gap_at(score: torch.Tensor, k: int) -> float:
    best = score.sort(-1, descending=True).values
    return (best[:, k - 1] - best[:, k]).min().item()


@torch.inference_mode()
def test_logits_equal_transformers_on_random_networks():
    rng, checked, redrawn = random.Random(0), 0, 0
    seen: set[str] = set()
    while checked < NETWORKS:
        config = random_config(rng)
        generator = torch.Generator().manual_seed(checked + 1000 * redrawn)
        model = Transformer(config, seed=checked).eval()
        for module in model.modules():
            if isinstance(module, Router):
                module.bias.uniform_(-0.5, 0.5, generator=generator)
        token_BT = torch.randint(0, config.vocab_size, (2, 24), generator=generator)
        if smallest_gap(model, token_BT) < NEAR_TIE:
            redrawn += 1
            assert redrawn < NETWORKS, "near-ties are rare: so many mean that something else is wrong"
            continue
        ours, theirs = model.logits(token_BT), peer_of(model)(token_BT).logits
        error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
        assert error <= TOLERANCE, f"network {checked} differs by {error:.2e} of the largest logit: {config}"
        checked += 1
        seen |= {
            f"compression {bool(config.attention.q_rank)}",
            f"yarn {config.rope.factor != 1}",
            f"groups {config.moe.num_groups > config.moe.groups_per_token}",
        }
    print(f"{checked} networks agree, {redrawn} draws with a near-tie drawn again")
    assert len(seen) == 6, f"the draws leave something out: {seen}"


def test_a_wrong_scale_would_be_seen():
    """The battery is able to fail: forgetting YaRN's m squared moves the logits far beyond the tolerance."""
    rope = RopeConfig(factor=40.0, original_positions=16)
    model = Transformer(
        ModelConfig(
            vocab_size=50, hidden_size=32, num_layers=2, dense_layers=1, dense_size=48, max_positions=256,
            init_std=0.3, rope=rope, mtp=MTPConfig(depth=0),
            attention=AttentionConfig(
                num_heads=2, q_rank=12, kv_rank=16, nope_head=8, rope_head=8, value_head=8
            ),
            moe=MoEConfig(
                num_experts=4, experts_per_token=2, num_groups=1, groups_per_token=1, expert_size=8
            ),
        )
    ).eval()  # fmt: skip
    token_BT = torch.randint(0, 50, (1, 24), generator=torch.Generator().manual_seed(0))
    theirs = peer_of(model)(token_BT).logits
    for layer in model.layers:
        layer.attention.scale = model.config.attention.qk_head**-0.5
    wrong = model.logits(token_BT)
    assert (wrong - theirs).abs().max() > 100 * TOLERANCE * theirs.abs().max()
    torch.testing.assert_close(wrong[:, 0], theirs[:, 0], rtol=1e-4, atol=1e-4)  # position 0 cannot tell
