"""Names and shapes: the official checkpoint's, ours, and the way between them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fathom.checkpoint.hf import from_hf, to_hf
from fathom.checkpoint.names import Place, copies, official, rows, shapes
from fathom.config.errors import DataError
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.model.transformer import Transformer

TILE = 128  # side of an FP8 scale's block


@pytest.fixture(scope="module")
def v3() -> dict[str, Place]:
    return official(ModelConfig(), mtp_copies=True)


def has_scale(name: str, place: Place) -> bool:
    """Whether the official checkpoint stores this tensor in FP8, with a `weight_scale_inv` beside it."""
    whole = ("embed_tokens", "lm_head", "mlp.gate.", "eh_proj", "shared_head")
    return len(place.shape) == 2 and not any(part in name for part in whole)


def test_v3_has_the_published_number_of_tensors(v3: dict[str, Place]):
    scales = sum(has_scale(name, place) for name, place in v3.items())
    assert len(v3) + scales == 91_991
    assert len(v3) == 46_183, "tensors of the bf16 layout: 3 global, 3 x 12 dense, 58 x 782, and 788 of MTP"
    assert len(official(ModelConfig())) == 46_183 - 2


def test_v3_has_the_published_number_of_bytes(v3: dict[str, Place]):
    total = 0
    for name, place in v3.items():
        size = torch.Size(place.shape).numel()
        if has_scale(name, place):
            total += size + 4 * -(-place.shape[0] // TILE) * -(-place.shape[1] // TILE)
        else:
            total += size * (4 if name.endswith("e_score_correction_bias") else 2)
    assert total == 688_574_839_360


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.embed_tokens.weight", (129280, 7168)),
        ("lm_head.weight", (129280, 7168)),
        ("model.norm.weight", (7168,)),
        ("model.layers.0.self_attn.q_a_proj.weight", (1536, 7168)),
        ("model.layers.0.self_attn.q_a_layernorm.weight", (1536,)),
        ("model.layers.1.self_attn.q_b_proj.weight", (24576, 1536)),
        ("model.layers.1.self_attn.kv_a_proj_with_mqa.weight", (576, 7168)),
        ("model.layers.1.self_attn.kv_a_layernorm.weight", (512,)),
        ("model.layers.2.self_attn.kv_b_proj.weight", (32768, 512)),
        ("model.layers.60.self_attn.o_proj.weight", (7168, 16384)),
        ("model.layers.2.mlp.gate_proj.weight", (18432, 7168)),
        ("model.layers.2.mlp.down_proj.weight", (7168, 18432)),
        ("model.layers.3.mlp.gate.weight", (256, 7168)),
        ("model.layers.3.mlp.gate.e_score_correction_bias", (256,)),
        ("model.layers.61.mlp.experts.255.up_proj.weight", (2048, 7168)),
        ("model.layers.61.mlp.experts.0.down_proj.weight", (7168, 2048)),
        ("model.layers.60.mlp.shared_experts.gate_proj.weight", (2048, 7168)),
        ("model.layers.61.input_layernorm.weight", (7168,)),
        ("model.layers.61.post_attention_layernorm.weight", (7168,)),
        ("model.layers.61.enorm.weight", (7168,)),
        ("model.layers.61.hnorm.weight", (7168,)),
        ("model.layers.61.eh_proj.weight", (7168, 14336)),
        ("model.layers.61.shared_head.norm.weight", (7168,)),
        ("model.layers.61.shared_head.head.weight", (129280, 7168)),
        ("model.layers.61.embed_tokens.weight", (129280, 7168)),
    ],
)
def test_v3_tensors_have_the_published_shapes(v3: dict[str, Place], name: str, shape: tuple[int, ...]):
    assert v3[name].shape == shape


def variants() -> list[ModelConfig]:
    rng = random.Random(0)
    found = []
    for _ in range(20):
        groups = rng.choice([1, 2])
        found.append(
            ModelConfig(
                vocab_size=17,
                hidden_size=rng.choice([8, 12]),
                num_layers=3,
                dense_layers=rng.randint(0, 3),
                dense_size=10,
                attention=AttentionConfig(
                    num_heads=2, q_rank=rng.choice([0, 6]), kv_rank=5, nope_head=4, rope_head=2, value_head=3
                ),
                moe=MoEConfig(
                    num_experts=4 * groups,
                    num_shared=rng.randint(0, 2),
                    experts_per_token=2,
                    num_groups=groups,
                    groups_per_token=1,
                    expert_size=7,
                ),
                mtp=MTPConfig(depth=rng.randint(0, 2)),
            )
        )
    return found


def test_the_table_is_the_model():
    for config in [*variants(), ModelConfig()]:
        with torch.device("meta"):
            state = Transformer(config, seed=None).state_dict()
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes(config)


def test_there_and_back_is_the_same_to_the_bit():
    for config in variants():
        state = Transformer(config, seed=3).state_dict()
        tensors = dict(to_hf(state, config, mtp_copies=True))
        assert {name: place.shape for name, place in official(config, mtp_copies=True).items()} == {
            name: tuple(tensor.shape) for name, tensor in tensors.items()
        }
        back = from_hf(tensors, config)
        assert list(back) == [row.ours for row in rows(config)]
        assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_v3_goes_there_and_back_without_memory():
    with torch.device("meta"):
        state = Transformer(ModelConfig(), seed=None).state_dict()
    back = from_hf(dict(to_hf(state, ModelConfig(), mtp_copies=True)), ModelConfig())
    assert {name: tensor.shape for name, tensor in back.items()} == {n: t.shape for n, t in state.items()}
    assert all(tensor.is_meta for tensor in back.values())


def test_official_tensors_are_views(state: dict[str, Tensor], config: ModelConfig):
    tensors = dict(to_hf(state, config, mtp_copies=True))
    expert = tensors["model.layers.1.mlp.experts.5.up_proj.weight"]
    assert expert.data_ptr() == state["layers.1.ffn.experts.up"][5].data_ptr()
    copy = tensors["model.layers.3.shared_head.head.weight"]
    assert copy.data_ptr() == state["head.weight"].data_ptr()


def test_experts_keep_their_numbers(state: dict[str, Tensor], config: ModelConfig):
    tensors = dict(to_hf(state, config))
    for e in range(config.moe.num_experts):
        for which in ("gate", "up", "down"):
            theirs = tensors[f"model.layers.4.mlp.experts.{e}.{which}_proj.weight"]
            assert torch.equal(theirs, state[f"mtp.1.block.ffn.experts.{which}"][e])


def test_copies_of_the_tables_change_nothing(state: dict[str, Tensor], config: ModelConfig):
    tensors = dict(to_hf(state, config))
    wrong = {name: torch.full(place.shape, 7.0) for name, place in copies(config).items()}
    assert len(wrong) == 2 * config.mtp.depth and not wrong.keys() & tensors.keys()
    back = from_hf(tensors | wrong, config)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_a_changed_precision_leaves_the_routing_bias(state: dict[str, Tensor], config: ModelConfig):
    back = from_hf(dict(to_hf(state, config)), config, dtype=torch.bfloat16)
    kinds = {name: tensor.dtype for name, tensor in back.items()}
    assert {name for name, kind in kinds.items() if kind == torch.float32} == {
        name for name in kinds if name.endswith("router.bias")
    }
    assert torch.equal(back["layers.1.ffn.router.bias"], state["layers.1.ffn.router.bias"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("lm_head.weight"), "lacks lm_head.weight"),
        (lambda t: t.update({"model.layers.2.bias": torch.ones(1)}), "holds model.layers.2.bias"),
        (
            lambda t: t.update({"lm_head.weight": torch.ones(400, 31)}),
            "is [400, 31], config.json says [400, 32]",
        ),
        (lambda t: t.update({"model.layers.3.embed_tokens.weight": torch.ones(2)}), "tokens.weight is [2]"),
    ],
)
def test_wrong_tensors_are_named(state: dict[str, Tensor], config: ModelConfig, change, said: str):
    tensors = dict(to_hf(state, config))
    change(tensors)
    with pytest.raises(DataError) as caught:
        from_hf(tensors, config)
    assert said in str(caught.value) and "Fix: " in str(caught.value) and "\n" not in str(caught.value)


def test_a_state_that_is_not_the_configs_is_a_bug(state: dict[str, Tensor], config: ModelConfig):
    with pytest.raises(AssertionError, match="differ"):
        dict(to_hf(state, replace(config, hidden_size=33)))
