"""What goes out is what transformers reads, what comes in is what it wrote, and FP8 is what its bytes say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fathom.checkpoint import load_model, load_model_state, save_model
from fathom.checkpoint.exchange import export_hf, import_hf
from fathom.checkpoint.fp8_blocks import QUANTIZATION, in_fp8, scale_name
from fathom.checkpoint.hf import to_hf
from fathom.checkpoint.names import copies
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig, RopeConfig
from fathom.data.tokenizer import Tokenizer
from fathom.model.router import Router
from fathom.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5  # of the largest |logit|: fp32 rounding through a few layers
SHARD = 60_000  # bytes: several files


@pytest.fixture(scope="module")
def wide() -> Transformer:
    """Matrices of more than one block, with ragged edges, and a routing bias."""
    config = ModelConfig(
        name="wide", vocab_size=400, hidden_size=136, num_layers=3, dense_layers=1, dense_size=200,
        max_positions=128, init_std=0.1, rope=RopeConfig(factor=4.0, original_positions=32),
        attention=AttentionConfig(
            num_heads=4, q_rank=130, kv_rank=128, nope_head=32, rope_head=16, value_head=48
        ),
        moe=MoEConfig(num_experts=8, experts_per_token=2, num_groups=4, groups_per_token=2, expert_size=140),
        mtp=MTPConfig(depth=1),
    )  # fmt: skip
    model = Transformer(config, seed=3).eval()
    for module in model.modules():
        if isinstance(module, Router):
            module.bias.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(4))
    return model


@pytest.fixture(scope="module")
def saved(wide: Transformer, tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    return save_model(
        tmp_path_factory.mktemp("saved") / "wide", wide.state_dict(), wide.config, tokenizer=tokenizer
    )


@pytest.fixture(scope="module")
def fp8(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8") / "wide-fp8"
    export_hf(saved, folder, weights="fp8", shard_bytes=SHARD)
    return folder


def theirs(folder: Path) -> torch.nn.Module:
    """transformers' network, computing in fp32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(model).__name__ == "DeepseekV3ForCausalLM"
    return model


def contents(folder: Path) -> dict[str, Tensor]:
    """Every tensor of every file, by the library's reader; no name twice."""
    files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    assert sum(map(len, files)) == len({name for file in files for name in file})
    return {name: tensor for file in files for name, tensor in file.items()}


def same_bits(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(
        one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)
    )


@torch.no_grad()
def assert_same_model(ours: Transformer, peer: torch.nn.Module, token_BT: Tensor) -> None:
    """The same logits, and the same text when each continues a prompt greedily."""
    want, got = peer(token_BT).logits, ours.logits(token_BT)
    assert (want - got).abs().max() <= TOLERANCE * want.abs().max()
    prompt = token_BT[:1, :8]
    length = prompt.shape[1] + 24
    long = peer.generate(prompt, max_length=length, min_length=length, do_sample=False, pad_token_id=0)
    row = prompt
    for _ in range(24):
        row = torch.cat([row, ours.logits(row)[:, -1:].argmax(-1)], 1)
    assert torch.equal(row, long)


def loaded(folder: Path) -> Transformer:
    return load_model(folder, dtype=torch.float32)


def test_transformers_reads_an_export(tmp_path: Path, saved: Path, token_BT: Tensor):
    written = export_hf(saved, tmp_path / "out", shard_bytes=SHARD)
    assert written.files > 5
    assert_same_model(loaded(tmp_path / "out"), theirs(tmp_path / "out"), token_BT)


def test_an_export_is_the_model_rounded_to_bf16(tmp_path: Path, saved: Path, wide: Transformer):
    export_hf(saved, tmp_path / "out", shard_bytes=SHARD)
    config, state = load_model_state(tmp_path / "out")
    assert config == wide.config
    for name, tensor in wide.state_dict().items():
        exact = name.endswith("router.bias")
        assert same_bits(state[name], tensor if exact else tensor.bfloat16()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_transformers_saved_comes_in(
    tmp_path: Path, saved: Path, token_BT: Tensor, dtype: torch.dtype
):
    peer = transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=dtype).eval()
    peer.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    import_hf(tmp_path / "theirs", tmp_path / "ours", shard_bytes=SHARD)
    ours = loaded(tmp_path / "ours")
    assert ours.config.mtp.depth == 0, "transformers drops MTP"
    assert_same_model(ours, peer.float(), token_BT)
    assert_same_model(ours, theirs(tmp_path / "ours"), token_BT)


def test_random_networks_of_transformers_come_in(tmp_path: Path, token_BT: Tensor):
    """Made by transformers alone, without YaRN and without query compression."""
    config = transformers.DeepseekV3Config(
        vocab_size=400, hidden_size=48, intermediate_size=64, moe_intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, n_routed_experts=4, n_shared_experts=2, kv_lora_rank=16,
        q_lora_rank=None, qk_rope_head_dim=8, v_head_dim=12, qk_nope_head_dim=8, n_group=2, topk_group=1,
        num_experts_per_tok=2, first_k_dense_replace=1, max_position_embeddings=64, initializer_range=0.3,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        peer = transformers.DeepseekV3ForCausalLM(config).eval()
    peer.save_pretrained(tmp_path / "theirs")
    import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert_same_model(loaded(tmp_path / "ours"), peer, token_BT)


def dequantised(q: Tensor, scale: Tensor) -> Tensor:
    """Number by number, as README_WEIGHTS of the release says it: not the code under test."""
    R, C = q.shape
    row, column = torch.arange(R)[:, None] // 128, torch.arange(C)[None] // 128
    return q.float() * scale[row.expand(R, C), column.expand(R, C)]


def test_fp8_is_what_the_release_keeps_in_fp8(fp8: Path, wide: Transformer):
    """Which tensors, which scales, and that number times scale is the weight to 1 part in 16."""
    tensors, want = contents(fp8), dict(to_hf(wide.state_dict(), wide.config, mtp_copies=True))
    assert {name for name in tensors if not name.endswith("_scale_inv")} == want.keys()
    in_eight = {name for name, tensor in tensors.items() if tensor.dtype == torch.float8_e4m3fn}
    assert in_eight == {
        name for name in want if name.endswith(("_proj.weight", "_with_mqa.weight")) and "eh_proj" not in name
    }
    assert {scale_name(name) for name in in_eight} == tensors.keys() - want.keys()
    for name, tensor in want.items():
        if name in in_eight:
            scale = tensors[scale_name(name)]
            assert (scale.dtype, scale.shape) == (
                torch.float32,
                (math.ceil(tensor.shape[0] / 128), math.ceil(tensor.shape[1] / 128)),
            )
            off = (dequantised(tensors[name], scale) - tensor).abs()
            assert (off <= 2**-4 * tensor.abs() + 2**-10 * scale.max()).all(), name
        else:
            exact = torch.float32 if name.endswith("bias") else torch.bfloat16
            assert same_bits(tensors[name], tensor.to(exact)), name


def test_fp8_loads_as_what_its_bytes_say(fp8: Path):
    """In bf16 unless another dtype is asked for."""
    tensors, config = contents(fp8), load_model(fp8).config
    for dtype in (None, torch.float32):
        _, state = load_model_state(fp8, dtype=dtype)
        for name, tensor in to_hf(state, config):
            raw, exact = tensors[name], name.endswith("bias")
            want = dequantised(raw, tensors[scale_name(name)]) if in_fp8(name) else raw
            assert same_bits(tensor, want.to(torch.float32 if exact else dtype or torch.bfloat16)), name


def test_an_imported_fp8_model_is_bf16_and_everybodys(tmp_path: Path, fp8: Path, token_BT: Tensor):
    written = import_hf(fp8, tmp_path / "in", shard_bytes=SHARD)
    kinds = {tensor.dtype for name, tensor in contents(tmp_path / "in").items() if not name.endswith("bias")}
    assert kinds == {torch.bfloat16} and written.weights == "bfloat16"
    config = json.loads((tmp_path / "in/config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config and config["torch_dtype"] == "bfloat16"
    direct, by_way = load_model_state(fp8)[1], load_model_state(tmp_path / "in")[1]
    assert all(same_bits(tensor, by_way[name]) for name, tensor in direct.items())
    assert_same_model(loaded(tmp_path / "in"), theirs(tmp_path / "in"), token_BT)


def test_fp8_stays_fp8_to_the_bit(tmp_path: Path, fp8: Path):
    """Other file sizes, so that other tensors share a file."""
    export_hf(fp8, tmp_path / "again", weights="fp8", shard_bytes=3 * SHARD)
    one, other = contents(fp8), contents(tmp_path / "again")
    assert list(one) != list(other) and one.keys() == other.keys()
    assert all(same_bits(tensor, other[name]) for name, tensor in one.items())


def test_a_scale_may_be_in_another_file(tmp_path: Path, fp8: Path):
    """As in the release: all scales in a file of their own, the weights in two."""
    tensors, folder = contents(fp8), tmp_path / "scattered"
    folder.mkdir()
    names = sorted(tensors)
    scales = [name for name in names if name.endswith("_scale_inv")]
    rest = [name for name in names if not name.endswith("_scale_inv")]
    files = {"c.safetensors": rest[::2], "a.safetensors": scales, "b.safetensors": rest[1::2]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    places = {name: file for file, held in files.items() for name in held}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_bytes((fp8 / "config.json").read_bytes())
    import_hf(folder, tmp_path / "in")
    for found in (folder, tmp_path / "in"):
        _, state = load_model_state(found)
        assert all(same_bits(tensor, state[name]) for name, tensor in load_model_state(fp8)[1].items())


def test_files_are_named_sized_and_indexed_as_in_the_release(fp8: Path):
    files = sorted(path.name for path in fp8.glob("*.safetensors"))
    assert files == [f"model-{i:05d}-of-{len(files):06d}.safetensors" for i in range(1, len(files) + 1)]
    index = json.loads((fp8 / "model.safetensors.index.json").read_text(encoding="utf-8"))
    tensors = {file: load_file(fp8 / file) for file in files}
    assert index["weight_map"] == {name: file for file, held in tensors.items() for name in held}
    sizes = {file: sum(t.nbytes for t in held.values()) for file, held in tensors.items()}
    assert index["metadata"]["total_size"] == sum(sizes.values())
    for file, size in sizes.items():
        weights = [name for name in tensors[file] if not name.endswith("_scale_inv")]
        assert size <= SHARD or len(weights) == 1, f"{file} is over the limit, and not for one tensor"
    assert any(size > SHARD for size in sizes.values()), "the table of tokens is larger than a file"


def test_mtp_is_stored_with_copies_of_both_tables(fp8: Path, wide: Transformer):
    tensors = contents(fp8)
    assert copies(wide.config).keys() <= tensors.keys()
    assert same_bits(tensors["model.layers.3.embed_tokens.weight"], tensors["model.embed_tokens.weight"])
    assert same_bits(tensors["model.layers.3.shared_head.head.weight"], tensors["lm_head.weight"])
    project = wide.state_dict()["mtp.0.project.weight"]
    assert same_bits(tensors["model.layers.3.eh_proj.weight"], project.bfloat16())


def test_settings_and_tokenizer_come_along(tmp_path: Path, fp8: Path, tokenizer: Path):
    (fp8 / "LICENSE-MODEL").write_text("terms", encoding="utf-8")
    import_hf(fp8, tmp_path / "in")
    known = Tokenizer.load(tokenizer)
    for folder in (fp8, tmp_path / "in"):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert (config["bos_token_id"], config["eos_token_id"]) == (known.bos, known.eos)
        assert config["rope_theta"] and config["rope_scaling"]["type"] == "yarn"
        assert config["rope_parameters"]["rope_type"] == "yarn"
        assert config.get("quantization_config") == (QUANTIZATION if folder == fp8 else None)
        generation = transformers.GenerationConfig.from_pretrained(folder)
        assert generation.eos_token_id == known.eos
        peer = transformers.AutoTokenizer.from_pretrained(folder)
        assert peer.encode("Mia flies.", add_special_tokens=False) == known.encode("Mia flies.")
        assert (folder / "LICENSE-MODEL").read_text(encoding="utf-8") == "terms"
    (fp8 / "LICENSE-MODEL").unlink()
    assert Tokenizer.load(tmp_path / "in").encode("Mia flies.") == known.encode("Mia flies.")
