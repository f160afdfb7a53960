"""`fathom import hf` and `fathom export hf`: what they print and refuse, and that others read it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from fathom.cli.exchange import export_app, import_app, shard_bytes
from fathom.config.errors import ConfigError, FathomError


def run(*arguments: str) -> Result:
    """As `fathom` runs them: a FathomError is its own result."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.add_typer(import_app, name="import")
    app.add_typer(export_app, name="export")
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, (FathomError, SystemExit)), result.output
    return result


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from fathom.checkpoint import save_model
    from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig
    from fathom.data.tokenizer import Tokenizer
    from fathom.model.transformer import Transformer

    root = tmp_path_factory.mktemp("models")
    (root / "words").mkdir()
    Tokenizer.train(["Mia has a red kite. The kite flies."] * 50, 300).save(root / "words")
    config = ModelConfig(
        name="toy", vocab_size=320, hidden_size=32, num_layers=2, dense_layers=1, dense_size=48,
        max_positions=64,
        attention=AttentionConfig(num_heads=2, q_rank=24, kv_rank=16, nope_head=8, rope_head=4, value_head=8),
        moe=MoEConfig(num_experts=4, experts_per_token=2, num_groups=2, groups_per_token=1, expert_size=16),
    )  # fmt: skip
    state = Transformer(config, seed=1).state_dict()
    assert state["embed.weight"].dtype == torch.float32
    return save_model(root / "toy", state, config, tokenizer=root / "words")


def test_out_in_fp8_and_in_again(tmp_path: Path, model: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    result = run("export", "hf", str(model), str(out), "--weights", "fp8", "--shard-size", "20KB")
    assert result.exit_code == 0
    files = len(list(out.glob("*.safetensors")))
    assert files > 3 and f"{out}: " in result.stdout and f"tensors in {files} files" in result.stdout
    assert result.stdout.count("\n") == 1 and result.stdout.endswith("GB in fp8\n")
    assert "quantization_config" in json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (out / "README.md").is_file()
    result = run("import", "hf", str(out), str(back))
    assert result.exit_code == 0 and "in 1 file," in result.stdout and "GB in bfloat16" in result.stdout


@pytest.mark.parametrize("weights", ["bf16", "fp8"])
def test_what_comes_out_can_be_talked_to_and_tuned(tmp_path: Path, model: Path, weights: str) -> None:
    """Every reader of models takes the folder, FP8 or not."""
    import torch

    from fathom.checkpoint import check_tokenizer, load_model
    from fathom.cli.speak import Speaker
    from fathom.config.load import load_recipe
    from fathom.engine import Request, SamplingParams
    from fathom.posttrain.sft import start_sft

    run("export", "hf", str(model), str(tmp_path / "out"), "--weights", weights)
    speaker = Speaker.load(tmp_path / "out")
    request = Request(text="Mia has", sampling=SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True))
    spoken = [speaker.speak(request, lambda _: None).result.completions[0].tokens for _ in range(2)]
    assert spoken[0] == spoken[1] and len(spoken[0]) == 4
    check_tokenizer(speaker.tokenizer.size, load_model(tmp_path / "out").config)
    short = ["train.steps=1", "train.minutes=0", "train.seq_len=64", "train.batch_size=2", "data.documents=4"]
    recipe = load_recipe("sft", short).recipe
    trainer = start_sft(recipe, tmp_path / "out", tmp_path / "run", quiet=True)
    assert trainer.model.embed.weight.dtype == torch.float32, "masters"


def test_the_average_needs_a_run_that_keeps_one(tmp_path: Path, model: Path) -> None:
    result = run("export", "hf", str(model), str(tmp_path / "out"), "--average")
    assert "keeps no average of its weights. Fix: leave out --average" in str(result.exception)
    assert isinstance(result.exception, FathomError) and result.exception.exit_code == 2


@pytest.mark.parametrize("way", ["import", "export"])
@pytest.mark.parametrize("damage", ["missing", "nothing", "pickled", "truncated", "taken"])
def test_bad_folders_are_one_line_and_status_2(tmp_path: Path, model: Path, way: str, damage: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    if damage != "missing":
        shutil.copytree(model, source)
    path = source / "model.safetensors"
    if damage == "nothing":
        shutil.rmtree(source)
        source.mkdir()
    elif damage == "pickled":
        path.rename(source / "pytorch_model.bin")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "taken":
        out.mkdir()
        (out / "mine.txt").write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    result = run(way, "hf", str(source), str(out))
    assert isinstance(result.exception, FathomError) and result.exception.exit_code == 2
    assert "Fix: " in str(result.exception) and "\n" not in str(result.exception)
    assert sorted(tmp_path.rglob("*")) == before and result.stdout == ""


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500MB", 5 * 10**8), ("4GiB", 2**32), ("1.5 kb", 1500), ("7B", 7), ("2TiB", 2**41)],
)
def test_sizes_of_files(text: str, size: int) -> None:
    assert shard_bytes(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "-5GB", "0GB", "0.1B", "5XB", "5 G B", "1e9B", "9" * 5000])
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--shard-size .* is no size\. Fix: give one such") as caught:
        shard_bytes(text)
    assert len(str(caught.value)) < 200


def test_weights_are_of_two_kinds(tmp_path: Path, model: Path) -> None:
    result = run("export", "hf", str(model), str(tmp_path / "out"), "--weights", "int4")
    assert str(result.exception) == "--weights int4 is not known. Fix: give bf16 or fp8"


@pytest.mark.parametrize("command", [("import",), ("export",), ("import", "hf"), ("export", "hf")])
def test_help_shows_how(command: tuple[str, ...]) -> None:
    text = run(*command, "--help").output
    assert "hf" in text
    if len(command) == 2:
        assert f"fathom {command[0]} hf " in text and "--shard-size" in text
