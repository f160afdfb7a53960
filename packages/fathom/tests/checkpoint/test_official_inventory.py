"""All 91,991 tensors of the official checkpoint, made from the network without memory, against a table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fathom.checkpoint.fp8_blocks import Weights, in_fp8, layout, scale_name
from fathom.checkpoint.hf import to_hf
from fathom.checkpoint.stream import SHARD_BYTES, plan_shards
from fathom.checkpoint.tensors import DTYPES, Kind
from fathom.config.model import ModelConfig
from fathom.model.transformer import Transformer
from fathom.ops.fp8 import quantize_blocks

LAYERS, MTP_LAYER, DENSE, EXPERTS = 61, 61, 3, 256
D, VOCABULARY = 7168, 129280
MAIN_BYTES, MTP_BYTES = 673_150_611_808, 15_424_227_552
BF16_BYTES = 2 * 684_489_845_504 + 2 * 59 * EXPERTS  # every parameter, MTP's copies too; the bias is in fp32
# The released files by their printed listings: name below the layer -> its shape and its scale's.
ATTENTION = {
    "q_a_proj": ((1536, 7168), (12, 56)),
    "q_b_proj": ((24576, 1536), (192, 12)),
    "kv_a_proj_with_mqa": ((576, 7168), (5, 56)),
    "kv_b_proj": ((32768, 512), (256, 4)),
    "o_proj": ((7168, 16384), (56, 128)),
}
UP, DOWN = ((18432, D), (144, 56)), ((D, 18432), (56, 144))
WIDE = {"gate_proj": UP, "up_proj": UP, "down_proj": DOWN}
UP, DOWN = ((2048, D), (16, 56)), ((D, 2048), (56, 16))
EXPERT = {"gate_proj": UP, "up_proj": UP, "down_proj": DOWN}


def linear(name: str, shape: tuple[int, int], scale: tuple[int, int]) -> Iterator[tuple[str, Kind]]:
    yield f"{name}.weight", Kind("F8_E4M3", shape)
    yield f"{name}.weight_scale_inv", Kind("F32", scale)


def layer(i: int) -> Iterator[tuple[str, Kind]]:
    name = f"model.layers.{i}"
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield f"{name}.{norm}.weight", Kind("BF16", (D,))
    yield f"{name}.self_attn.q_a_layernorm.weight", Kind("BF16", (1536,))
    yield f"{name}.self_attn.kv_a_layernorm.weight", Kind("BF16", (512,))
    for part, (shape, scale) in ATTENTION.items():
        yield from linear(f"{name}.self_attn.{part}", shape, scale)
    if i < DENSE:
        for part, (shape, scale) in WIDE.items():
            yield from linear(f"{name}.mlp.{part}", shape, scale)
        return
    yield f"{name}.mlp.gate.weight", Kind("BF16", (EXPERTS, D))
    yield f"{name}.mlp.gate.e_score_correction_bias", Kind("F32", (EXPERTS,))
    for owner in ("shared_experts", *(f"experts.{e}" for e in range(EXPERTS))):
        for part, (shape, scale) in EXPERT.items():
            yield from linear(f"{name}.mlp.{owner}.{part}", shape, scale)


def released() -> Iterator[tuple[str, Kind]]:
    table = Kind("BF16", (VOCABULARY, D))
    yield from [("model.embed_tokens.weight", table), ("lm_head.weight", table)]
    yield "model.norm.weight", Kind("BF16", (D,))
    for i in (*range(LAYERS), MTP_LAYER):
        yield from layer(i)
    name = f"model.layers.{MTP_LAYER}"
    yield from [(f"{name}.embed_tokens.weight", table), (f"{name}.shared_head.head.weight", table)]
    yield f"{name}.eh_proj.weight", Kind("BF16", (D, 2 * D))
    for norm in ("enorm", "hnorm", "shared_head.norm"):
        yield f"{name}.{norm}.weight", Kind("BF16", (D,))


@pytest.fixture(scope="module")
def v3() -> dict[str, Kind]:
    return layout(ModelConfig(), "fp8")


def test_names_shapes_and_dtypes_are_the_released_ones(v3: dict[str, Kind]):
    assert len(v3) == 91_991
    assert v3 == dict(released())


def test_bytes_are_the_released_ones(v3: dict[str, Kind]):
    mtp = sum(kind.nbytes for name, kind in v3.items() if name.startswith(f"model.layers.{MTP_LAYER}."))
    assert (sum(kind.nbytes for kind in v3.values()) - mtp, mtp) == (MAIN_BYTES, MTP_BYTES)


def test_the_network_yields_them_all(v3: dict[str, Kind]):
    """The model on the meta device, named officially, quantised where the release is: no memory is used."""
    with torch.device("meta"):
        state = Transformer(ModelConfig(), seed=None).state_dict()
    made = {}
    quantised: dict[tuple[int, ...], tuple[Kind, Kind]] = {}  # by shape: a meta tensor holds nothing else
    for name, tensor in to_hf(state, ModelConfig(), mtp_copies=True):
        assert tensor.is_meta
        if not in_fp8(name):
            dtype = torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
            made[name] = Kind(DTYPES[tensor.to(dtype).dtype], tuple(tensor.shape))
            continue
        shape = tuple(tensor.shape)
        if shape not in quantised:
            q, scale = quantize_blocks(tensor)
            assert q.is_meta and scale.is_meta
            q_kind, scale_kind = (Kind(DTYPES[t.dtype], tuple(t.shape)) for t in (q, scale))
            quantised[shape] = q_kind, scale_kind
        made[name], made[scale_name(name)] = quantised[shape]
    assert made == v3


@pytest.mark.parametrize(("weights", "total"), [("fp8", MAIN_BYTES + MTP_BYTES), ("bf16", BF16_BYTES)])
def test_v3_in_files_of_5_gb(weights: Weights, total: int):
    """Full files, each below the limit, that hold every tensor once and in order; scales beside weights."""
    kinds = layout(ModelConfig(), weights)
    shards = plan_shards(kinds)
    assert [name for shard in shards for name in shard.kinds] == list(kinds)
    assert sum(shard.nbytes for shard in shards) == total
    assert all(shard.nbytes <= SHARD_BYTES for shard in shards)
    assert len(shards) <= total / SHARD_BYTES * 1.05, f"{len(shards)} files are too many"
    for number, shard in enumerate(shards, 1):
        assert shard.file == f"model-{number:05d}-of-{len(shards):06d}.safetensors"
        assert all(scale_name(n) in shard.kinds for n, kind in shard.kinds.items() if kind.dtype == "F8_E4M3")


def test_every_fp8_weight_has_whole_blocks_but_one_kind(v3: dict[str, Kind]):
    """kv_a is 4.5 blocks high: the ragged block that readers forget."""
    in_blocks = {name: kind.shape for name, kind in v3.items() if kind.dtype == "F8_E4M3"}
    ragged = [name for name, shape in in_blocks.items() if any(n % 128 for n in shape)]
    assert len(ragged) == 62 and all(name.endswith("kv_a_proj_with_mqa.weight") for name in ragged)
