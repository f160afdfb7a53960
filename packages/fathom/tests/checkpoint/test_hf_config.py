"""config.json: ours to the official one and back, and what transformers makes of it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fathom.checkpoint.hf_config import FIXED, hf_config, model_config
from fathom.checkpoint.hf_rope import YARN_KEYS
from fathom.config.errors import DataError
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig, RopeConfig
from fathom.ops.rope import frequencies

transformers = pytest.importorskip("transformers")

# As released with DeepSeek-V3.
RELEASED: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
    "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu",
    "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
    "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096, "type": "yarn",
    },
    "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "tie_word_embeddings": False, "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16",
    "transformers_version": "4.33.1", "use_cache": True, "v_head_dim": 128, "vocab_size": 129280,
}  # fmt: skip
EXTENDED = RopeConfig(factor=40.0)  # V3's settings after context extension


def random_rope(rng: random.Random) -> RopeConfig:
    return RopeConfig(
        theta=rng.choice([10000.0, 50000.0, rng.uniform(2.0, 1e6)]),
        factor=rng.choice([1.0, 40.0, rng.uniform(1.0, 64.0)]),
        original_positions=rng.choice([16, 256, 4096]),
        beta_fast=rng.uniform(8.0, 64.0),
        beta_slow=rng.uniform(0.5, 2.0),  # 16 positions are then still more than one slow turn
        mscale=rng.choice([0.0, 0.707, 1.0, rng.random()]),
        mscale_all=rng.choice([0.0, 0.707, 1.0, rng.random()]),
    )


def random_config(rng: random.Random) -> ModelConfig:
    groups = rng.randint(1, 8)
    size = rng.randint(1, 8)
    reach = rng.randint(1, groups)
    layers = rng.randint(1, 80)
    return ModelConfig(
        name=rng.choice(["v3", "x", 'a "quoted" name', "鯨 in the deep"]),
        vocab_size=rng.randint(2, 200000),
        hidden_size=rng.randint(1, 9000),
        num_layers=layers,
        dense_layers=rng.randint(0, layers),
        dense_size=rng.randint(1, 20000),
        max_positions=rng.randint(1, 200000),
        norm_eps=rng.choice([1e-6, 1e-5, rng.random() + 1e-9]),
        init_std=rng.choice([0.006, 0.02, rng.random() + 1e-9]),
        attention=AttentionConfig(
            num_heads=rng.randint(1, 128),
            q_rank=rng.choice([0, rng.randint(1, 1536)]),
            kv_rank=rng.randint(1, 512),
            nope_head=rng.randint(1, 128),
            rope_head=2 * rng.randint(1, 64),
            value_head=rng.randint(1, 128),
        ),
        rope=random_rope(rng),
        moe=MoEConfig(
            num_experts=groups * size,
            num_shared=rng.randint(0, 3),
            experts_per_token=rng.randint(1, reach * size),
            num_groups=groups,
            groups_per_token=reach,
            expert_size=rng.randint(1, 2048),
            score=rng.choice(["sigmoid", "softmax"]),
            normalize=rng.random() < 0.5,
            route_scale=rng.choice([1.0, 2.5, rng.random() + 0.1]),
        ),
        mtp=MTPConfig(
            depth=rng.randint(0, 3),
            trunk=rng.choice(["pre_norm", "post_norm"]),
            mask_borders=rng.random() < 0.5,
        ),
    )


def test_any_network_survives_the_round_trip():
    rng = random.Random(0)
    for _ in range(300):
        config = random_config(rng)
        assert model_config(json.loads(json.dumps(hf_config(config)))) == config


def test_the_released_file_is_the_v3_of_the_defaults():
    config = model_config(RELEASED, "v3")
    # The released file says 0.02, the report (section 4.2) 0.006.
    assert replace(config, init_std=ModelConfig().init_std) == replace(ModelConfig(), rope=EXTENDED)


def test_what_we_write_has_every_released_key_but_those_of_other_software():
    written = hf_config(replace(ModelConfig(), rope=EXTENDED, init_std=0.02))
    software = {"auto_map", "quantization_config", "transformers_version"}
    assert set(RELEASED) - set(written) == software
    for key in set(RELEASED) - software - {"rope_scaling"}:
        assert written[key] == RELEASED[key], key
    assert RELEASED["rope_scaling"].items() <= written["rope_scaling"].items()


def test_missing_keys_mean_v3():
    assert model_config({}, "v3") == ModelConfig()
    assert model_config({"model_type": "deepseek_v3", "q_lora_rank": None}).attention.q_rank == 0


@pytest.mark.parametrize("spellings", [("rope_theta", "rope_scaling"), ("rope_parameters",)])
@pytest.mark.parametrize("factor", [1.0, 8.0])
def test_either_spelling_of_rope_is_enough(spellings: tuple[str, ...], factor: float):
    config = ModelConfig(rope=RopeConfig(theta=50000.0, factor=factor))
    hf = hf_config(config)
    for key in {"rope_theta", "rope_scaling", "rope_parameters"} - set(spellings):
        del hf[key]
    assert model_config(hf) == config


def test_a_yarn_without_temperatures_is_read_as_deepseek_reads_it():
    hf = {"rope_scaling": {"type": "yarn", "factor": 4}}
    rope = model_config(hf).rope
    assert (rope.original_positions, rope.beta_fast, rope.beta_slow) == (4096, 32.0, 1.0)
    assert rope.logit_factor == 1.0 and rope.table_factor > 1.0


def test_transformers_turns_and_scales_alike(tmp_path: Path):
    rng = random.Random(1)
    for i in range(20):
        rope, channels = random_rope(rng), 2 * rng.randint(1, 32)
        attention = AttentionConfig(
            num_heads=2, q_rank=6, kv_rank=5, nope_head=4, rope_head=channels, value_head=3
        )
        moe = MoEConfig(num_experts=4, num_groups=1, groups_per_token=1, experts_per_token=2, expert_size=3)
        config = ModelConfig(
            hidden_size=8, num_layers=1, dense_layers=1, rope=rope, attention=attention, moe=moe, dense_size=4
        )
        path = tmp_path / str(i)
        path.mkdir()
        (path / "config.json").write_text(json.dumps(hf_config(config)), encoding="utf-8")
        theirs = transformers.AutoConfig.from_pretrained(path)
        module = transformers.models.deepseek_v3.modeling_deepseek_v3
        rotary = module.DeepseekV3RotaryEmbedding(theirs)
        torch.testing.assert_close(rotary.inv_freq, frequencies(rope, channels), rtol=1e-4, atol=0.0)
        assert rotary.attention_scaling == pytest.approx(rope.table_factor, rel=1e-9)
        assert module.DeepseekV3Attention(theirs, 0).scaling == pytest.approx(config.softmax_scale, rel=1e-9)


def test_what_transformers_writes_is_read(tmp_path: Path):
    config = replace(ModelConfig(), rope=EXTENDED, mtp=MTPConfig(depth=1, trunk="post_norm"))
    (tmp_path / "config.json").write_text(json.dumps(hf_config(config)), encoding="utf-8")
    transformers.AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert model_config(json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))) == config


def refused(hf: dict[str, Any]) -> str:
    with pytest.raises(DataError) as caught:
        model_config(hf, where="DIR/config.json")
    text = str(caught.value)
    assert text.startswith("DIR/config.json: ") and "Fix: " in text and "\n" not in text
    return text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "deepseek_v2"), ("attention_bias", True), ("attention_dropout", 0.1),
        ("hidden_act", "gelu"), ("moe_layer_freq", 2), ("rope_interleave", False),
        ("tie_word_embeddings", True), ("topk_method", "greedy"), ("num_key_value_heads", 8),
    ],
)  # fmt: skip
def test_another_network_is_refused(key: str, value: object):
    assert f"{key}={value!r}" in refused({**RELEASED, key: value})


def test_every_fixed_value_is_that_of_v3():
    assert {key: RELEASED.get(key, True) for key in FIXED} == FIXED


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scoring_func": "tanh"}, "model.moe.score='tanh'"),
        ({"n_group": 7}, "num_groups=7"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type='linear'"),
        ({"rope_scaling": {"type": "yarn"}}, "no factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 40, "truncate": False}}, "rope_scaling.truncate=False"),
        ({"rope_scaling": {"type": "yarn", "factor": 40, "attention_factor": 2.0}}, "attention_factor=2.0"),
        ({"rope_scaling": [1]}, "is not a table"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 20}}, "factor is both 40 and 20"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
            "rope_theta is both 10000 and 5.0",
        ),
        ({"fathom": 3}, '"fathom" is not a table'),
        ({"fathom": {"mtp": 3}}, '"fathom" is not a table'),
        ({"fathom": {"layers": 3}}, "unknown key fathom.layers"),
        ({"fathom": {"mtp": {"deep": 3}}}, '"fathom" section is damaged'),
        ({"fathom": {"name": 3}}, "model.name=3"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], said: str):
    assert said in refused({**RELEASED, **change})


def test_nonsense_in_any_key_is_one_line():
    """Whatever stands in a key, the answer is a network or a DataError, never another exception."""
    nonsense: list[Any] = [
        0,
        -1,
        2.5,
        10**400,
        -(10**400),
        "many",
        "",
        None,
        [],
        [1],
        {},
        {"a": 1},
        True,
        float("nan"),
    ]
    written = hf_config(replace(ModelConfig(), rope=EXTENDED))
    nested = [("rope_scaling", key) for key in (*YARN_KEYS, "type", "rope_theta", "attention_factor")]
    nested += [("fathom", "name"), ("fathom", "mtp"), ("fathom", "rope")]
    refusals = 0
    for path in [*((key,) for key in written), *nested]:
        for value in nonsense:
            hf = json.loads(json.dumps({**written, "rope_parameters": None}))
            target = hf if len(path) == 1 else hf[path[0]]
            target[path[-1]] = value
            try:
                model_config(hf)
            except DataError as error:
                refusals += 1
                assert "Fix: " in str(error) and "\n" not in str(error)
    assert refusals > 300
