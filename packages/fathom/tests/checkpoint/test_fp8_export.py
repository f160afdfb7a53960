"""A run that computed in FP8 is exported in the very bytes it computed with, and everybody reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fathom.checkpoint import load_model, load_model_state
from fathom.checkpoint.exchange import export_hf, import_hf
from fathom.checkpoint.find import latest
from fathom.checkpoint.fp8_blocks import in_fp8, scale_name
from fathom.checkpoint.names import official
from fathom.cli.main import main
from fathom.config.load import load_recipe
from fathom.config.model import ModelConfig
from fathom.model.transformer import Transformer
from fathom.ops.fp8.cpu import Cpu
from fathom.ops.fp8.experts import Fp8Experts
from fathom.ops.fp8.kernels import Fp8Kernels
from fathom.ops.fp8.linear import Fp8Linear
from fathom.ops.fp8.tiles import Quantized
from fathom.train.loop import Trainer
from fathom.train.start import start

# Experts are 256 x 128, maps of attention have sides of 96, 64 and 192: whole blocks and cut ones.
FEW_STEPS = [
    "data.documents=120", "data.held_out=0.1", "data.workers=1", "train.steps=4", "train.seq_len=48",
    "model.num_layers=2", "model.hidden_size=256", "train.optim.ema=0.9", "train.precision=fp8",
]  # fmt: skip
TOLERANCE = 2e-5  # of the largest |logit|: fp32 rounding through a few layers


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    folder = tmp_path_factory.mktemp("fp8-run") / "run"
    trainer = start(load_recipe("tiny", FEW_STEPS).recipe, folder, quiet=True)
    trainer.train()
    assert trainer.machine.fp8
    return trainer


@pytest.fixture(scope="module")
def run(trained: Trainer) -> Path:
    return trained.run.folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8-export") / "out"
    arguments = ["export", "hf", str(run), str(folder), "--weights", "fp8", "--shard-size", "500KB"]
    assert main(arguments) == 0
    return folder


def computed_with(model: Transformer) -> dict[str, Quantized]:
    """What the FP8 layers of `model` multiply by, under official names."""
    kept: dict[str, Quantized] = {}
    for name, module in model.named_modules():
        if isinstance(module, Fp8Linear):
            kept[f"{name}.weight"] = module.quantized()
        elif isinstance(module, Fp8Experts):
            parts = zip(("gate", "up", "down"), module.quantized(), strict=True)
            kept |= {f"{name}.{part}": made for part, made in parts}
    found = {}
    for theirs, place in official(model.config).items():
        if place.ours in kept:
            whole = kept[place.ours]
            found[theirs] = whole if place.expert is None else Quantized(*(t[place.expert] for t in whole))
    return found


def loaded_in_fp8(config: ModelConfig, state: dict[str, Tensor]) -> Transformer:
    model = Transformer(config, kernels=Fp8Kernels(Cpu()), seed=None)
    model.load_state_dict(state)
    return model


def contents(folder: Path) -> dict[str, Tensor]:
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(torch.uint8)


def test_a_run_is_exported_in_the_bytes_it_computed_with(trained: Trainer, run: Path, exported: Path):
    """By the copies that training kept, and by those that a model makes of the checkpoint."""
    tensors = contents(exported)
    assert len(list(exported.glob("*.safetensors"))) > 2
    for model in (trained.model, loaded_in_fp8(*load_model_state(run))):
        used = computed_with(model)
        assert used.keys() == {name for name in tensors if in_fp8(name)}, "a map in FP8 here and not there"
        ragged = 0
        for name, made in used.items():
            assert tensors[name].dtype == torch.float8_e4m3fn
            assert torch.equal(bits(tensors[name]), bits(made.q)), name
            assert torch.equal(bits(tensors[scale_name(name)]), bits(made.scale)), name
            ragged += any(side % 128 for side in made.q.shape)
        assert 0 < ragged < len(used), "both cut blocks and whole ones are meant to be here"


def test_fp8_comes_back_as_the_same_numbers_under_scales_rounded_to_bf16(tmp_path: Path, exported: Path):
    """Import rounds number times scale to bf16, so scales made anew differ in the ninth bit; once."""
    before, folders = contents(exported), [exported]
    for round_trip in ("first", "second"):
        import_hf(folders[-1], tmp_path / f"{round_trip}-bf16")
        export_hf(tmp_path / f"{round_trip}-bf16", tmp_path / round_trip, weights="fp8")
        folders.append(tmp_path / round_trip)
    once, twice = contents(folders[1]), contents(folders[2])
    assert once.keys() == twice.keys() == before.keys()
    for name in filter(in_fp8, before):
        assert torch.equal(bits(once[name]), bits(before[name])), name
        scale = scale_name(name)
        off = (once[scale] - before[scale]).abs() / before[scale]
        assert off.max() <= 2**-8, f"{name}: scales are {off.max():.2e} off"
    assert all(torch.equal(bits(once[name]), bits(twice[name])) for name in once)
    directly = tmp_path / "directly"
    export_hf(exported, directly, weights="fp8")
    assert all(torch.equal(bits(t), bits(before[name])) for name, t in contents(directly).items())


@torch.no_grad()
def test_transformers_gives_our_logits_of_the_bytes(tmp_path: Path, exported: Path):
    transformers = pytest.importorskip("transformers")
    import_hf(exported, tmp_path / "in")
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "in", dtype=torch.float32).eval()
    assert type(peer).__name__ == "DeepseekV3ForCausalLM"
    ours = load_model(tmp_path / "in", dtype=torch.float32)
    token_BT = torch.randint(0, 1000, (2, 40), generator=torch.Generator().manual_seed(0))
    want, got = peer(token_BT).logits, ours.logits(token_BT)
    assert (want - got).abs().max() <= TOLERANCE * want.abs().max()
    for name, tensor in load_model_state(tmp_path / "in")[1].items():
        assert torch.equal(tensor, load_model_state(exported)[1][name]), name


@torch.no_grad()
def test_the_model_in_fp8_is_the_exported_one_but_for_its_activations(run: Path, exported: Path):
    """Inputs of products are off by 2.6 % (rms), weights not at all; a block has six products in a row."""
    token_BT = torch.randint(0, 1000, (2, 40), generator=torch.Generator().manual_seed(0))
    read = load_model(exported, dtype=torch.float32)(token_BT)
    trained = loaded_in_fp8(*load_model_state(run)).eval()
    again = trained(token_BT, choices=[routing.expert_NK for routing in read.routing])
    off = (again.hidden_BTD - read.hidden_BTD).norm() / read.hidden_BTD.norm()
    assert 0.01 < off < 0.15, f"{off:.3f} of the states"


def test_the_checkpoint_is_an_ordinary_one(run: Path, exported: Path, capsys: pytest.CaptureFixture[str]):
    """The engine reads the run, its export and nothing of FP8 in the checkpoint's own files."""
    assert {t.dtype for t in contents(latest(run)).values()} == {torch.float32}
    capsys.readouterr()
    for model in (run, exported):
        command = ["generate", "--model", str(model), "--prompt", "Mia", "--max-tokens", "8", "--json"]
        assert main([*command, "--temperature", "0", "--ignore-eos"]) == 0
        assert len(json.loads(capsys.readouterr().out)["tokens"]) == 8
