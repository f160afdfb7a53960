"""Damaged FP8 checkpoints: one line that names what is wrong, or weights that are all finite."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from fathom.checkpoint import load_model_state, resolve, save_model
from fathom.checkpoint.exchange import export_hf, import_hf
from fathom.checkpoint.fp8_blocks import in_fp8
from fathom.checkpoint.names import official
from fathom.config.errors import DataError
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig
from fathom.config.presets import PRESETS, load_preset

O_PROJ = "model.layers.2.self_attn.o_proj.weight"
SCALE = f"{O_PROJ}_scale_inv"
MOE = MoEConfig(num_experts=2, experts_per_token=1, num_groups=1, groups_per_token=1, num_shared=2)


@pytest.fixture(scope="module")
def fp8(tmp_path_factory: pytest.TempPathFactory, config: ModelConfig, state: dict[str, Tensor]) -> Path:
    root = tmp_path_factory.mktemp("fp8")
    save_model(root / "model", state, config)
    return export_hf(root / "model", root / "fp8", weights="fp8").folder


@pytest.fixture
def folder(tmp_path: Path, fp8: Path) -> Path:
    """One file under the plain name, which is easiest to damage."""
    shutil.copytree(fp8, tmp_path / "broken")
    (tmp_path / "broken/model.safetensors.index.json").unlink()
    (tmp_path / "broken/model-00001-of-000001.safetensors").rename(tmp_path / "broken/model.safetensors")
    return tmp_path / "broken"


def refused(folder: Path) -> str:
    """What loading says; importing says the same, and leaves nothing behind."""
    said = []
    for work in (load_model_state, lambda f: import_hf(f, folder.parent / "out")):
        with pytest.raises(DataError) as caught:
            work(folder)
        said.append(str(caught.value))
        assert str(folder) in said[-1] and "Fix: " in said[-1] and "\n" not in said[-1]
    assert said[0] == said[1]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return said[0]


def edit(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(SCALE), f"{O_PROJ} is FP8, but its scale {SCALE} is missing"),
        (lambda t: t.pop(O_PROJ), f"{SCALE} is the scale of no FP8 weight"),
        (lambda t: t.update({O_PROJ: torch.ones(32, 32)}), f"{SCALE} is the scale of no FP8 weight"),
        (lambda t: t.update({SCALE: torch.ones(2, 1)}), f"{SCALE} is [2, 1], but blocks of 128 need [1, 1]"),
        (lambda t: t.update({SCALE: torch.ones(1)}), f"{SCALE} is [1], but blocks of 128 need [1, 1]"),
        (lambda t: t.update({SCALE: t[SCALE].bfloat16()}), f"{SCALE} is BF16, not F32"),
        (lambda t: t.update({SCALE: t[SCALE].view(torch.int32)}), f"{SCALE} is I32, not F32"),
        (lambda t: t.update({O_PROJ: t[O_PROJ].view(torch.uint8)}), f"{SCALE} is the scale of no FP8 weight"),
        (lambda t: t.update({O_PROJ: t[O_PROJ].view(torch.float8_e5m2)}), "is the scale of no FP8 weight"),
        (lambda t: t.update({O_PROJ: t[O_PROJ][:, :31].contiguous()}), f"{O_PROJ} is [32, 31], config.json"),
        (lambda t: t.update({"model.norm.weight": torch.ones(32).to(torch.float8_e4m3fn)}), "but no matrix"),
        (lambda t: t[SCALE].fill_(float("nan")), f"{O_PROJ} holds NaN or infinity as bfloat16"),
        (lambda t: t[SCALE].fill_(3e38), f"{O_PROJ} holds NaN or infinity as bfloat16"),
        (lambda t: t[O_PROJ].view(torch.uint8)[0, :1].fill_(0x7F), f"{O_PROJ} holds NaN or infinity"),
        (lambda t: t["model.norm.weight"][:1].fill_(float("inf")), "model.norm.weight holds NaN or infinity"),
    ],
)
def test_damaged_fp8_is_named(folder: Path, change: Callable[[dict[str, Tensor]], Any], said: str):
    edit(folder, change)
    assert said in refused(folder)


@pytest.mark.parametrize(
    ("quantization", "said"),
    [
        ({"quant_method": "awq"}, "quantization_config.quant_method='awq' is not read (only 'fp8')"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "quantization_config.fmt='e5m2' is not read"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, "weight_block_size=[64, 64] is not read"),
        ({"quant_method": "fp8", "weight_block_size": None}, "weight_block_size=None is not read"),
        ([], "quantization_config=[] is not a table"),
    ],
)
def test_another_quantization_is_refused(folder: Path, quantization: Any, said: str):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"quantization_config": quantization}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert said in refused(folder)


@pytest.mark.parametrize("change", [{}, {"scale_fmt": "ue8m0"}, {"modules_to_not_convert": ["lm_head"]}])
def test_what_later_releases_add_is_no_reason_to_refuse(folder: Path, change: dict[str, Any]):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] |= change
    path.write_text(json.dumps(config), encoding="utf-8")
    load_model_state(folder)


@pytest.mark.parametrize("said", [True, False])
def test_the_tensors_decide_not_the_config(folder: Path, fp8: Path, said: bool):
    """Known converters leave quantization_config over bf16 weights; others drop it over FP8."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if said:
        import_hf(fp8, folder.parent / "bf16")
        folder = folder.parent / "bf16"
    else:
        del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    want = load_model_state(fp8)[1]
    assert all(torch.equal(tensor, want[name]) for name, tensor in load_model_state(folder)[1].items())


@pytest.mark.parametrize("name", PRESETS)
def test_linear_maps_of_attention_and_of_experts_are_in_fp8_and_no_more(name: str):
    """In every network, also those that do not compress queries."""
    variants = [
        load_preset(name),
        ModelConfig(num_layers=2, dense_layers=1, moe=MOE, attention=AttentionConfig(q_rank=0)),
    ]
    for config in variants:
        for official_name, place in official(config, mtp_copies=True).items():
            whole = "embed_tokens", "lm_head", "norm", "mlp.gate.", "eh_proj", "shared_head"
            linear = len(place.shape) == 2 and not any(part in official_name for part in whole)
            assert in_fp8(official_name) == linear, official_name


@pytest.fixture(scope="module")
def whole(fp8: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in fp8.iterdir()}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_is_more_than_one_line(tmp_path: Path, whole: dict[str, bytes], data: st.DataObject):
    """Bytes changed or cut anywhere: a refusal in one line, or every weight finite."""
    folder = tmp_path / "fuzz"
    folder.mkdir(exist_ok=True)
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    name = data.draw(st.sampled_from(sorted(whole)))
    damaged = bytearray(whole[name])
    ends = st.sampled_from([64, 4096, len(damaged)])  # headers are short beside the data
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(data.draw(ends), len(damaged)) - 1))
        damaged[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b'\\"0n,:[]{}\x7f\xff')))
    if data.draw(st.integers(0, 3)) == 0:
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    (folder / name).write_bytes(damaged)
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    try:
        _, state = load_model_state(resolve(folder))
        assert all(tensor.isfinite().all() for tensor in state.values())
        import_hf(folder, tmp_path / "in")
        assert all(tensor.isfinite().all() for tensor in load_model_state(tmp_path / "in")[1].values())
    except DataError as error:
        assert "Fix: " in str(error) and "\n" not in str(error)
