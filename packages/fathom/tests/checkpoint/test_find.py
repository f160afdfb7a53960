"""Which folder a path means, and which checkpoints stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fathom.checkpoint import check_tokenizer, latest, prune, resolve, save_checkpoint, save_model
from fathom.checkpoint.find import problem, step_folder, step_folders
from fathom.checkpoint.training import TrainingState
from fathom.config.errors import DataError
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.model.transformer import Transformer

CONFIG = ModelConfig(
    vocab_size=8, hidden_size=4, num_layers=1, dense_layers=1, dense_size=4, mtp=MTPConfig(depth=0),
    attention=AttentionConfig(num_heads=1, q_rank=0, kv_rank=2, nope_head=2, rope_head=2, value_head=2),
    moe=MoEConfig(num_experts=2, experts_per_token=1, num_groups=1, groups_per_token=1, expert_size=2),
)  # fmt: skip


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return Transformer(CONFIG).state_dict()


def save(run: Path, step: int, weights: dict[str, Tensor]) -> Path:
    training = TrainingState(
        step=step,
        tokens=0,
        elapsed_s=0,
        loader={},
        recipe={},
        optimizer={"exp_avg.norm.weight": torch.ones(4)},
    )
    return save_checkpoint(run, step, state=weights, config=CONFIG, tokenizer=None, training=training)


def steps(run: Path) -> list[int]:
    return [step for step, _ in step_folders(run / "checkpoints")]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def test_the_latest_is_the_highest_step(tmp_path: Path, weights: dict[str, Tensor]):
    assert latest(tmp_path) is None
    for step in (900, 1_000_000, 30, 999_999):
        save(tmp_path, step, weights)
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step-1000000"
    assert steps(tmp_path) == [30, 900, 999_999, 1_000_000]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / "model.safetensors"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_text("{}", encoding="utf-8"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, weights: dict[str, Tensor], damage):
    first, second = save(tmp_path, 1, weights), save(tmp_path, 2, weights)
    damage(second)
    assert latest(tmp_path) == resolve(tmp_path) == first
    damage(first)
    with pytest.raises(DataError, match=r"no checkpoint in .* is sound; the newest: .*step-000002.* Fix: "):
        latest(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: cut(state / "optimizer.safetensors"),
        lambda state: (state / "trainer.json").unlink(),
        lambda state: (state / "trainer.json").write_text('{"step": "1"}', encoding="utf-8"),
        lambda state: state.rename(state.with_name("away")),
    ],
)
def test_a_damaged_state_matters_only_for_resuming(tmp_path: Path, weights: dict[str, Tensor], damage):
    first, second = save(tmp_path, 1, weights), save(tmp_path, 2, weights)
    damage(second / "state")
    assert latest(tmp_path) == second and latest(tmp_path, resumable=True) == first
    assert problem(second) is None and "Fix: " in (problem(second, resumable=True) or "")


def test_other_folders_are_no_checkpoints(tmp_path: Path, weights: dict[str, Tensor]):
    folder = save(tmp_path, 1, weights)
    for name in (".step-000009.0a1b2c3d.new", "step-9", "step-000009.bak", "step-00000x"):
        (folder.parent / name).mkdir()
    (folder.parent / "step-000009").touch()
    assert latest(tmp_path) == folder and steps(tmp_path) == [1]


def test_every_way_to_name_a_model(tmp_path: Path, weights: dict[str, Tensor]):
    newest = [save(tmp_path / "run", step, weights) for step in (1, 2)][-1]
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoints", newest, str(newest)):
        assert resolve(path) == newest
    first = step_folder(tmp_path / "run", 1)
    assert resolve(first) == first
    plain = save_model(tmp_path / "plain", weights, CONFIG)
    assert resolve(plain) == plain


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        resolve(path)
    text = str(caught.value)
    assert str(path) in text and "Fix: " in text and "\n" not in text
    return text


def test_what_is_no_model_names_the_nearest(tmp_path: Path, weights: dict[str, Tensor]):
    folder = save(tmp_path / "run-a", 1, weights)
    for name in ("other", "zebra"):
        save_model(tmp_path / name, weights, CONFIG)
    text = refused(tmp_path / "run-b")
    assert f"does not exist. Fix: use {tmp_path / 'run-a'}" in text
    assert f"is a file. Fix: give the folder it is in, {folder}" in refused(folder / "model.safetensors")
    assert f"Fix: use {folder}" in refused(folder / "state")
    (tmp_path / "empty").mkdir()
    assert "no config.json and no checkpoints" in refused(tmp_path / "empty")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").write_text("{}", encoding="utf-8")
    assert "no safetensors weights" in refused(tmp_path / "plain")
    assert "check the path" in refused(tmp_path / "no" / "such")


def test_nothing_nearby_says_what_would_do(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert "a run made by `fathom train`" in refused(tmp_path / "a" / "b")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.pth"])
def test_pickles_are_refused(tmp_path: Path, name: str):
    for files in ([name], [name, "config.json"]):
        folder = tmp_path / str(len(files))
        folder.mkdir()
        for file in files:
            (folder / file).write_bytes(b"{}")
        text = refused(folder)
        assert name in text and "can run code" in text


def test_only_the_newest_are_kept(tmp_path: Path, weights: dict[str, Tensor]):
    folders = {step: save(tmp_path, step, weights) for step in (1, 2, 3, 4)}
    assert prune(tmp_path, 2) == [folders[2], folders[1]]
    assert steps(tmp_path) == [3, 4]
    assert prune(tmp_path, 5) == [] and steps(tmp_path) == [3, 4]
    assert sorted(path.name for path in folders[4].parent.iterdir()) == ["step-000003", "step-000004"]


def test_what_was_just_written_is_never_deleted(tmp_path: Path, weights: dict[str, Tensor]):
    """A run that went back to step 1 writes step 2 beside the 3 and 4 of its former life."""
    for step in (3, 4):
        save(tmp_path, step, weights)
    written = save(tmp_path, 2, weights)
    prune(tmp_path, 1, written=written)
    assert steps(tmp_path) == [2]


def test_a_damaged_checkpoint_is_not_counted_as_kept(tmp_path: Path, weights: dict[str, Tensor]):
    folders = {step: save(tmp_path, step, weights) for step in (1, 2, 3)}
    cut(folders[3] / "model.safetensors")
    prune(tmp_path, 1)
    assert steps(tmp_path) == [2, 3] and latest(tmp_path) == folders[2]


def test_a_tokenizer_larger_than_the_model_is_refused():
    check_tokenizer(8, CONFIG)
    check_tokenizer(5, CONFIG)
    with pytest.raises(DataError, match=r"9 ids, but the model has rows for 8\. Fix: "):
        check_tokenizer(9, CONFIG)
