"""A damaged checkpoint is one line that names the file, what is wrong with it, and a way out."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fathom.checkpoint import TrainingState, load_checkpoint, load_model_state, save_checkpoint
from fathom.config.errors import DataError
from fathom.config.model import ModelConfig

O_PROJ = "model.layers.2.self_attn.o_proj.weight"


@pytest.fixture
def folder(
    tmp_path: Path, config: ModelConfig, state: dict[str, Tensor], training: Callable[[int], TrainingState]
) -> Path:
    """Without its hashes, which would notice everything first: what the files themselves give away."""
    folder = save_checkpoint(tmp_path, 1, state=state, config=config, tokenizer=None, training=training(1))
    (folder / "manifest.json").unlink()
    return folder


def refused(folder: Path, load: Callable[[Path], object] = load_model_state) -> str:
    with pytest.raises(DataError) as caught:
        load(folder)
    text = str(caught.value)
    assert str(folder) in text and "Fix: " in text and "\n" not in text and len(text) < 500
    return text


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def shard(folder: Path) -> tuple[Path, Path]:
    """Two shards and an index instead of one file."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    first, second = folder / "a.safetensors", folder / "b.safetensors"
    save_file({n: tensors[n] for n in names[::2]}, first)
    save_file({n: tensors[n] for n in names[1::2]}, second)
    weight_map = dict.fromkeys(names[::2], first.name) | dict.fromkeys(names[1::2], second.name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    (folder / "model.safetensors").unlink()
    return second, index


def test_truncated_weights(folder: Path):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors is truncated" in refused(folder)


def test_not_safetensors(folder: Path):
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    assert "not a safetensors file" in refused(folder)


def test_a_missing_tensor(folder: Path):
    edit_weights(folder, lambda t: t.pop(O_PROJ))
    assert f"lacks {O_PROJ}" in refused(folder)


def test_many_missing_tensors_are_counted(folder: Path):
    edit_weights(folder, lambda t: [t.pop(name) for name in list(t) if ".layers.2." in name])
    assert "and 35 more" in refused(folder)


def test_half_an_mtp_module(folder: Path):
    """All of it missing is a model without MTP; a part missing is damage."""
    edit_weights(folder, lambda t: t.pop("model.layers.3.eh_proj.weight"))
    assert "lacks model.layers.3.eh_proj.weight" in refused(folder)


def test_a_wrong_shape(folder: Path):
    edit_weights(folder, lambda t: t.update({O_PROJ: torch.ones(32, 31)}))
    assert f"model.safetensors: {O_PROJ} is [32, 31], config.json says [32, 32]" in refused(folder)


def test_an_unknown_tensor(folder: Path):
    edit_weights(folder, lambda t: t.update({"model.layers.0.extra": torch.ones(1)}))
    assert "holds model.layers.0.extra, which config.json does not describe" in refused(folder)


def test_weights_that_are_no_floats(folder: Path):
    edit_weights(folder, lambda t: t.update({O_PROJ: torch.ones(32, 32, dtype=torch.int32)}))
    assert f"{O_PROJ} is I32; weights are F64, F32, F16, BF16 or F8_E4M3" in refused(folder)


def test_weights_that_are_no_numbers(folder: Path):
    edit_weights(folder, lambda t: t[O_PROJ].view(-1)[3:4].fill_(float("nan")))
    assert f"{O_PROJ} holds NaN or infinity as float32" in refused(folder)


def test_only_pickled_weights(folder: Path):
    """Refused by name, unread: reading a pickle runs whatever code is in it."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    said = refused(folder)
    assert "only pickled weights (pytorch_model.bin), which can run code" in said


def test_a_config_of_another_model(folder: Path):
    edit_json(folder / "config.json", hidden_size=64)
    assert "config.json says" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [{"num_hidden_layers": 10**12}, {"num_nextn_predict_layers": 10**12}, {"n_routed_experts": 10**12}],
)
def test_a_config_of_absurd_size_is_refused_at_once(folder: Path, change: dict[str, int]):
    edit_json(folder / "config.json", **change)
    assert "too few for" in refused(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b'{"model_type": "deepseek_v3"', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1, 2]", "holds a JSON list"),
        (b'{"model_type": "llama"}', "model_type='llama' is not supported"),
    ],
)
def test_a_damaged_config(folder: Path, content: bytes, said: str):
    (folder / "config.json").write_bytes(content)
    assert said in refused(folder)


def test_a_missing_shard(folder: Path):
    second, _ = shard(folder)
    second.unlink()
    assert "b.safetensors is missing" in refused(folder)


def test_a_truncated_shard(folder: Path):
    second, _ = shard(folder)
    second.write_bytes(second.read_bytes()[:-1])
    assert "b.safetensors is truncated" in refused(folder)


def test_an_index_that_promises_too_much(folder: Path):
    second, _ = shard(folder)
    tensors = load_file(second)
    gone = sorted(tensors)[0]
    del tensors[gone]
    save_file(tensors, second)
    assert f"b.safetensors lacks {gone}" in refused(folder)


@pytest.mark.parametrize(
    "weight_map",
    [None, [], {"a": 1}, {"a": "../model.safetensors"}, {"a": "/etc/passwd"}, {"a": ""}, {"a": "x\0"}],
)
def test_a_damaged_index(folder: Path, weight_map: Any):
    _, index = shard(folder)
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    assert "has no weight_map" in refused(folder)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda s: (s / "trainer.json").write_text("{", encoding="utf-8"), "trainer.json is not valid JSON"),
        (lambda s: edit_json(s / "trainer.json", step=1.5), "trainer.json: step=1.5"),
        (lambda s: edit_json(s / "trainer.json", loader=None), "trainer.json: loader=None"),
        (lambda s: edit_json(s / "trainer.json", rng={"torch": {"hex": "0g"}}), "a random state is damaged"),
        (lambda s: (s / "optimizer.safetensors").unlink(), "optimizer.safetensors is missing"),
        (lambda s: (s / "ema.safetensors").unlink(), "ema.safetensors is missing"),
        (lambda s: save_file({"norm.weight": torch.ones(3)}, s / "ema.safetensors"), "is [3], but"),
        (lambda s: save_file({"m.head.weight": torch.ones(1)}, s / "optimizer.safetensors"), "is [1], but"),
    ],
)  # fmt: skip
def test_a_damaged_state(folder: Path, damage: Callable[[Path], Any], said: str):
    damage(folder / "state")
    assert said in refused(folder, load_checkpoint)
    load_model_state(folder)


def test_no_random_damage_is_more_than_one_line(folder: Path):
    """Cut, overwrite or empty any file anywhere: loading works or says so in one line."""
    rng = random.Random(0)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    refusals = 0
    for _ in range(60):
        path = rng.choice(files)
        whole = path.read_bytes()
        at = rng.randrange(min(len(whole), 2000))
        damaged = rng.choice([b"", whole[:at], whole[:at] + rng.randbytes(3) + whole[at + 3 :]])
        path.write_bytes(damaged)
        try:
            load_checkpoint(folder)
        except DataError as error:
            refusals += 1
            assert "Fix: " in str(error) and "\n" not in str(error)
        path.write_bytes(whole)
    assert refusals > 20
    load_checkpoint(folder)
