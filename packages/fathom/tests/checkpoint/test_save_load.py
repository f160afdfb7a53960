"""A checkpoint is a folder that transformers reads, and a run that goes on bit for bit."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fathom.checkpoint import (
    TrainingState,
    latest,
    load_checkpoint,
    load_model,
    load_model_state,
    save_checkpoint,
    save_model,
)
from fathom.checkpoint import training as training_module
from fathom.checkpoint.names import copies
from fathom.config.errors import DataError, DiskError
from fathom.config.model import ModelConfig
from fathom.data.tokenizer import Tokenizer
from fathom.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5  # of the largest |logit|: fp32 rounding through a few layers
Make = Callable[[int], TrainingState]


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        t.dtype == theirs[n].dtype and torch.equal(t, theirs[n]) for n, t in ours.items()
    )


@torch.no_grad()
def differs(model: Transformer, folder: Path, token_BT: Tensor) -> float:
    """How far transformers' logits of `folder` are from the model's, as a share of the largest."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == "DeepseekV3ForCausalLM"
    want, got = model.logits(token_BT), theirs(token_BT).logits
    return ((want - got).abs().max() / want.abs().max()).item()


def test_a_saved_model_is_the_model(
    tmp_path: Path, model: Transformer, state: dict[str, Tensor], token_BT: Tensor
):
    folder = save_model(tmp_path / "out", state, model.config)
    config, loaded = load_model_state(folder)
    assert config == model.config and same(loaded, state)
    again = load_model(folder)
    assert not again.training and again.config == model.config
    assert torch.equal(again.logits(token_BT), model.logits(token_BT))
    assert all(p.requires_grad for p in again.parameters())


def test_a_saved_model_stands_by_itself(tmp_path: Path, model: Transformer, state: dict[str, Tensor]):
    """Neither later training nor a deleted file reaches what was loaded."""
    folder = save_model(tmp_path / "out", state, model.config)
    _, loaded = load_model_state(folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(0)
    assert same(loaded, state)


@pytest.mark.parametrize("when", ["saved", "loaded"])
def test_bf16_keeps_the_routing_bias_exact(
    tmp_path: Path, model: Transformer, state: dict[str, Tensor], when: str
):
    stored = torch.bfloat16 if when == "saved" else None
    folder = save_model(tmp_path / "out", state, model.config, dtype=stored)
    loaded = load_model(folder, dtype=None if when == "saved" else torch.bfloat16).state_dict()
    for name, tensor in state.items():
        exact = name.endswith("router.bias")
        assert torch.equal(loaded[name], tensor if exact else tensor.bfloat16()), name
        assert loaded[name].dtype == (torch.float32 if exact else torch.bfloat16)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert written["torch_dtype"] == ("bfloat16" if when == "saved" else "float32")


def test_copies_of_the_tables_are_written_on_request(
    tmp_path: Path, model: Transformer, state: dict[str, Tensor]
):
    plain = load_file(save_model(tmp_path / "plain", state, model.config) / "model.safetensors")
    whole = save_model(tmp_path / "whole", state, model.config, mtp_copies=True)
    copied = load_file(whole / "model.safetensors")
    assert copied.keys() - plain.keys() == copies(model.config).keys()
    assert torch.equal(copied["model.layers.3.embed_tokens.weight"], state["embed.weight"])
    assert torch.equal(copied["model.layers.4.shared_head.head.weight"], state["head.weight"])
    assert same(load_model_state(whole)[1], state)


def test_transformers_reads_a_saved_model(tmp_path: Path, model: Transformer, token_BT: Tensor):
    """It passes over the MTP layers, with or without copies of the tables in them."""
    folder = save_model(tmp_path / "out", model.state_dict(), model.config, mtp_copies=True)
    assert differs(model, folder, token_BT) <= TOLERANCE


def test_transformers_own_mtp_is_ours(
    tmp_path: Path, model: Transformer, token_BT: Tensor, monkeypatch: pytest.MonkeyPatch
):
    """The first module, read from the file by transformers' reader of MTP layers, gives the same states."""
    layers = pytest.importorskip("transformers.modeling_layers")
    if not hasattr(layers, "MtpModel"):
        pytest.skip(f"transformers {transformers.__version__} has no MTP modules")
    folder = save_model(tmp_path / "out", model.state_dict(), model.config)
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    # It looks for MTP only in layer 61, where V3 has it.
    here = [
        rf"model\.layers\.{model.config.num_layers}\..*",
        rf"model\.layers\.{model.config.num_layers + 1}\..*",
    ]
    monkeypatch.setattr(type(peer), "_keys_to_ignore_on_load_unexpected", here)
    monkeypatch.setattr(peer, "_keys_to_ignore_on_load_unexpected", here)
    modules = layers.MtpModel.from_pretrained(peer).eval()
    row = token_BT[:1]
    with torch.no_grad():
        want = model(row, mtp=True).mtp_BTD[0][:, :-1]
        trunk = peer.model(row).last_hidden_state[:, :-1]  # after the final norm: our trunk="post_norm"
        got = modules.forward_layer(
            0, trunk, torch.arange(row.shape[1] - 1)[None], None, input_ids=row[:, 1:]
        )
    assert (want - got).abs().max() <= TOLERANCE * want.abs().max()


def test_transformers_reads_the_tokenizer(tmp_path: Path, model: Transformer, tokenizer: Path):
    folder = save_model(tmp_path / "out", model.state_dict(), model.config, tokenizer=tokenizer)
    ours, theirs = Tokenizer.load(tokenizer), transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs.encode("Mia flies.", add_special_tokens=False) == ours.encode("Mia flies.")
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.bos, ours.eos, ours.pad)
    for config in (
        transformers.AutoConfig.from_pretrained(folder),
        transformers.GenerationConfig.from_pretrained(folder),
    ):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
            ours.bos,
            ours.eos,
            ours.pad,
        )


def test_what_transformers_saved_is_read(tmp_path: Path, model: Transformer, token_BT: Tensor):
    """It drops the MTP modules but goes on naming them in config.json; the trunk is a model all the same."""
    first = save_model(tmp_path / "first", model.state_dict(), model.config)
    peer = transformers.AutoModelForCausalLM.from_pretrained(first).eval()
    peer.save_pretrained(tmp_path / "second", max_shard_size="40KB")
    assert len(list((tmp_path / "second").glob("*.safetensors"))) > 2
    again = load_model(tmp_path / "second")
    assert again.config == replace(model.config, mtp=replace(model.config.mtp, depth=0))
    assert torch.equal(again.logits(token_BT), model.logits(token_BT))


def test_shards_are_read(tmp_path: Path, model: Transformer, state: dict[str, Tensor]):
    folder = save_model(tmp_path / "out", state, model.config)
    whole = load_file(folder / "model.safetensors")
    names = sorted(whole)
    random.Random(0).shuffle(names)
    weight_map = {}
    for i in range(3):
        file = f"model-{i + 1:05d}-of-000003.safetensors"
        save_file({name: whole[name] for name in names[i::3]}, folder / file)
        weight_map |= dict.fromkeys(names[i::3], file)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert same(load_model_state(folder)[1], state)


def test_a_checkpoint_comes_back_to_the_bit(
    tmp_path: Path, config: ModelConfig, state: dict[str, Tensor], tokenizer: Path, training: Make
):
    given = training(30)
    folder = save_checkpoint(tmp_path, 30, state=state, config=config, tokenizer=tokenizer, training=given)
    assert folder == tmp_path / "checkpoints" / "step-000030"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja",
        "tokenizer_config.json", "special_tokens_map.json", "state", "manifest.json",
    }  # fmt: skip
    again, weights, back = load_checkpoint(folder)
    assert again == config and same(weights, state)
    assert same(dict(back.optimizer), dict(given.optimizer))
    assert back.ema is not None and given.ema is not None and same(dict(back.ema), dict(given.ema))
    for key in ("step", "tokens", "elapsed_s", "loader", "recipe", "extra"):
        assert getattr(back, key) == getattr(given, key)
    assert torch.equal(back.rng["torch"], given.rng["torch"]) and back.rng["python"] == given.rng["python"]
    generator, other = torch.Generator(), torch.Generator().manual_seed(30)
    generator.set_state(back.rng["torch"])
    other.set_state(given.rng["torch"])
    assert torch.equal(torch.rand(5, generator=generator), torch.rand(5, generator=other))


def test_what_a_run_does_without_stays_away(
    tmp_path: Path, config: ModelConfig, state: dict[str, Tensor], training: Make
):
    given = replace(training(1), ema=None, rng={}, extra={})
    folder = save_checkpoint(tmp_path, 1, state=state, config=config, tokenizer=None, training=given)
    assert {path.name for path in (folder / "state").iterdir()} == {"optimizer.safetensors", "trainer.json"}
    back = load_checkpoint(tmp_path)[2]
    assert back.ema is None and back.rng == {} and back.extra == {}


def test_transformers_reads_a_checkpoint(
    tmp_path: Path, model: Transformer, tokenizer: Path, training: Make, token_BT: Tensor
):
    folder = save_checkpoint(
        tmp_path, 7, state=model.state_dict(), config=model.config, tokenizer=tokenizer, training=training(7)
    )
    assert differs(model, folder, token_BT) <= TOLERANCE


def test_nothing_is_pickled(tmp_path: Path, config: ModelConfig, state: dict[str, Tensor], training: Make):
    folder = save_checkpoint(tmp_path, 1, state=state, config=config, tokenizer=None, training=training(1))
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json"}


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path,
    config: ModelConfig,
    state: dict[str, Tensor],
    training: Make,
    monkeypatch: pytest.MonkeyPatch,
):
    first = save_checkpoint(tmp_path, 1, state=state, config=config, tokenizer=None, training=training(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskError, match=r"step-000002 .* free there.* Fix: "):
        patch.setattr(training_module, "write_tensors", full)  # full by the time the optimizer is written
        save_checkpoint(tmp_path, 2, state=state, config=config, tokenizer=None, training=training(2))
    assert [path.name for path in first.parent.iterdir()] == ["step-000001"]
    assert latest(tmp_path, resumable=True) == first and same(load_checkpoint(tmp_path)[1], state)


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(
    tmp_path: Path, config: ModelConfig, state: dict[str, Tensor], training: Make
):
    folder = save_checkpoint(tmp_path, 5, state=state, config=config, tokenizer=None, training=training(5))
    (folder / "config.json").write_text("{", encoding="utf-8")
    assert (
        save_checkpoint(tmp_path, 5, state=state, config=config, tokenizer=None, training=training(5))
        == folder
    )
    assert same(load_checkpoint(tmp_path)[1], state)


def test_a_model_never_overwrites_another(tmp_path: Path, model: Transformer):
    save_model(tmp_path / "out", model.state_dict(), model.config)
    with pytest.raises(DataError, match="exists already"):
        save_model(tmp_path / "out", model.state_dict(), model.config)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, model: Transformer):
    (tmp_path / "corpus").mkdir()
    with pytest.raises(DataError, match=r"corpus has no tokenizer\.json\. Fix: "):
        save_model(tmp_path / "out", model.state_dict(), model.config, tokenizer=tmp_path / "corpus")
    assert not (tmp_path / "out").exists()
