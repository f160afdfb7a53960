"""The model card: what the hub reads, what a person asks first, and nothing that is nobody's business."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fathom.checkpoint import TrainingState, load_model_state, save_checkpoint
from fathom.checkpoint.card import About, model_card
from fathom.checkpoint.exchange import export_hf
from fathom.checkpoint.hf import to_hf
from fathom.config.errors import DataError
from fathom.config.model import ModelConfig

hub = pytest.importorskip("huggingface_hub")

TRAINER = {
    "step": 14_800,
    "tokens": 12_345_678,
    "elapsed_s": 5400.0,
    "recipe": {
        "train": {"batch_size": 15360, "seq_len": 4096, "lr": 2.2e-4},
        "data": {"sources": ["smallworld", "/srv/someone/private/diary|1.txt", "hf:org/set"]},
    },
}


def front(card: str) -> dict[str, Any]:
    return hub.ModelCard(card).data.to_dict()


def test_the_hub_reads_the_front_matter():
    plain = front(model_card(ModelConfig(), About(name="v3", weights="bf16", nbytes=10**9)))
    assert plain["library_name"] == "transformers" and plain["pipeline_tag"] == "text-generation"
    assert "license" not in plain, "a licence is not ours to choose"
    fp8 = front(model_card(ModelConfig(), About(name="v3", weights="fp8", nbytes=1, chats=True)))
    assert set(fp8["tags"]) - set(plain["tags"]) == {"fp8", "conversational"}


def test_the_card_states_the_published_sizes():
    card = model_card(ModelConfig(), About(name="v3", weights="fp8", nbytes=688_574_839_360))
    for figure in ("671B", "36.6B", "11.6B", "688.57 GB", "671,026,419,200", "35,136", "129,280", "163,840"):
        assert figure in card, figure
    assert "256 routed and 1 shared, of width 2,048" in card and "from layer 61 on" in card
    assert "weight_scale_inv" in card and "## Licence" in card


def test_its_python_is_python(tmp_path: Path):
    for chats in (False, True):
        card = model_card(ModelConfig(), About(name="v3", weights="bf16", nbytes=1, chats=chats))
        code = re.findall(r"```python\n(.*?)```", card, re.S)
        assert len(code) == 1
        compile(code[0], "card", "exec")
        assert ("apply_chat_template" in code[0]) == chats == ("fathom chat --model" in card)


def test_what_the_run_knows_is_told_without_folders_of_the_machine():
    card = model_card(ModelConfig(), About(name="m", weights="bf16", nbytes=1, trainer=TRAINER))
    figures = ("14,800", "12,345,678", "| hours | 1.5 |", "15,360", "4,096", "0.00022")
    for said in (*figures, "`smallworld`", "`hf:org/set`"):
        assert said in card, said
    assert "diary\\|1.txt" in card and "someone" not in card


@pytest.mark.parametrize(
    "trainer",
    [
        None,
        {},
        {"step": "many", "tokens": None, "elapsed_s": [], "recipe": 3},
        {"recipe": {"train": [], "data": {"sources": "x"}}, "extra": 1},
        {"recipe": {"train": {"lr": float("nan")}, "data": {"sources": []}}},
    ],
)
def test_a_run_that_says_nothing_makes_a_shorter_card(trainer: Any):
    card = model_card(ModelConfig(), About(name="a|b\n# c`", weights="bf16", nbytes=1, trainer=trainer))
    assert "# a\\|b # c'" in card and "None" not in card
    front(card)


@pytest.fixture
def checkpoint(
    tmp_path: Path, config: ModelConfig, state: dict[str, Tensor], training: Callable[[int], TrainingState],
    tokenizer: Path,
) -> Path:  # fmt: skip
    saved = replace(training(20), recipe=TRAINER["recipe"], extra={"base": "/srv/someone/base"})
    return save_checkpoint(
        tmp_path / "run", 20, state=state, config=config, tokenizer=tokenizer, training=saved
    )


def test_a_runs_export_has_its_card(tmp_path: Path, checkpoint: Path):
    export_hf(tmp_path / "run", tmp_path / "my-model")
    card = (tmp_path / "my-model/README.md").read_text(encoding="utf-8")
    assert "# my-model" in card and "| steps | 20 |" in card and "20,000" in card
    assert "conversations, after pre-training" in card and "someone" not in card
    assert "conversational" in front(card)["tags"], "its tokenizer has a chat template"
    assert not (tmp_path / "my-model/state").exists()


def test_the_average_can_be_exported_instead(
    tmp_path: Path, checkpoint: Path, config: ModelConfig, state: dict[str, Tensor]
):
    """Every tensor, stacked experts too; the fixture's average is the weights plus the step."""
    export_hf(checkpoint, tmp_path / "out", average=True)
    found = load_file(next((tmp_path / "out").glob("*.safetensors")))
    for name, tensor in to_hf(state, config, mtp_copies=True):
        exact = name.endswith("bias")
        want = tensor + 20
        assert torch.equal(found[name], want if exact else want.bfloat16()), name
    assert "moving average" in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    export_hf(checkpoint, tmp_path / "plain")
    _, plain = load_model_state(tmp_path / "plain")
    assert torch.equal(plain["head.weight"], state["head.weight"].bfloat16())


def test_without_an_average_the_way_out_is_named(
    tmp_path: Path, config: ModelConfig, state: dict[str, Tensor], training: Callable[[int], TrainingState]
):
    saved = replace(training(5), ema=None)
    folder = save_checkpoint(tmp_path, 5, state=state, config=config, tokenizer=None, training=saved)
    with pytest.raises(DataError, match=r"keeps no average of its weights\. Fix: leave out --average"):
        export_hf(folder, tmp_path / "out", average=True)
    assert not (tmp_path / "out").exists()


def test_a_damaged_trainer_json_only_costs_the_section(tmp_path: Path, checkpoint: Path):
    (checkpoint / "state/trainer.json").write_text("{", encoding="utf-8")
    export_hf(checkpoint, tmp_path / "out")
    assert "## Training" not in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_a_checkpoint_whose_bytes_changed_is_not_passed_on(tmp_path: Path, checkpoint: Path):
    path = checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="model.safetensors"):
        export_hf(checkpoint, tmp_path / "out")
    assert json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
