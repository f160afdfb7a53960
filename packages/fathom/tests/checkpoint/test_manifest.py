"""A byte that changes is found, and named by file and tensor; what was never hashed loads as before."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fathom.checkpoint import TrainingState, load_checkpoint, load_model, save_checkpoint, save_model
from fathom.checkpoint import save as save_module
from fathom.checkpoint.find import latest, problem, prune, step_folders
from fathom.checkpoint.manifest import MANIFEST, PIECE, check_sizes, read_manifest, verify, write_manifest
from fathom.checkpoint.newest import load_newest
from fathom.checkpoint.tensors import read_header, write_tensors
from fathom.config.errors import DataError, DiskError
from fathom.config.model import ModelConfig
from fathom.model.transformer import Transformer

Make = Callable[[int], TrainingState]
Save = Callable[[int], Path]


@pytest.fixture
def save(
    tmp_path: Path, config: ModelConfig, state: dict[str, Tensor], tokenizer: Path, training: Make
) -> Save:
    def write(step: int) -> Path:
        return save_checkpoint(
            tmp_path, step, state=state, config=config, tokenizer=tokenizer, training=training(step)
        )

    return write


def flip(path: Path, at: int) -> None:
    """Change one bit of the byte `at`."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        act()
    text = str(caught.value)
    assert "Fix: " in text and "\n" not in text and len(text) < 500
    return text


def test_the_manifest_names_every_file_and_every_tensor(save: Save):
    folder = save(1)
    files = read_manifest(folder)
    assert files is not None
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files.keys() == there - {MANIFEST} and len(files) == 10
    for name, entry in files.items():
        data = (folder / name).read_bytes()
        assert entry["size"] == len(data) and entry["sha256"] == hashlib.sha256(data).hexdigest()
        if name.endswith(".safetensors"):
            tensors = load_file(folder / name)
            assert entry["tensors"].keys() == tensors.keys()
            for tensor, digest in entry["tensors"].items():
                assert hashlib.sha256(tensors[tensor].numpy().tobytes()).hexdigest() == digest
    assert verify(folder)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "state/optimizer.safetensors", "state/ema.safetensors"]
)
def test_an_altered_byte_is_named_by_its_tensor(save: Save, file: str):
    """Whichever byte of the data it is: the first and last of the file, and some between."""
    folder = save(1)
    path, rng = folder / file, random.Random(file)
    spans = {name: (s.start, s.start + t.nbytes) for (name, s), t in _with_data(path)}
    begin, end = min(start for start, _ in spans.values()), path.stat().st_size
    for at in (begin, end - 1, *(rng.randrange(begin, end) for _ in range(12))):
        flip(path, at)
        (hit,) = (name for name, (start, stop) in spans.items() if start <= at < stop)
        text = refused(lambda: load_checkpoint(folder))
        assert f"{path} is damaged: {hit} has changed" in text
        flip(path, at)
    load_checkpoint(folder)


def _with_data(path: Path) -> list:
    tensors = load_file(path)
    return [((name, stored), tensors[name]) for name, stored in read_header(path).items()]


def test_every_file_is_watched(save: Save):
    """Any single bit of any file: loading a checkpoint refuses in one line that names the file."""
    folder, rng = save(1), random.Random(0)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    for path in files:
        at = rng.randrange(path.stat().st_size)
        flip(path, at)
        text = refused(lambda: load_checkpoint(folder))
        assert path.name in text or "config.json" in text  # a changed network disagrees with every file
        flip(path, at)
    load_checkpoint(folder)


def test_an_altered_header_is_called_one(save: Save):
    path = save(1) / "state" / "ema.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"pt"', b'"tp"', 1))
    assert "its header has changed" in refused(lambda: load_checkpoint(path.parents[1]))
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])
    assert "its header cannot be read" in refused(lambda: verify(path.parents[1]))


def test_a_cut_is_named_by_the_tensor_it_goes_through(save: Save):
    folder = save(1)
    path = folder / "model.safetensors"
    last = max(read_header(path).items(), key=lambda item: item[1].start)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert f"{path} is truncated in {last}: " in refused(lambda: verify(folder))
    path.write_bytes(whole[:100])
    assert f"{path} is truncated in its header: 100 bytes" in refused(lambda: verify(folder))
    path.write_bytes(whole + b"x")
    assert "is too long: " in refused(lambda: verify(folder))
    path.unlink()
    assert "is missing" in refused(lambda: verify(folder))


def test_talking_needs_the_weights_and_their_config_only(save: Save):
    folder = save(1)
    moments = folder / "state" / "optimizer.safetensors"
    flip(moments, moments.stat().st_size - 1)
    load_model(folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"rope_theta": 10000.0', '"rope_theta": 10001.0'))
    assert f"{config} is damaged" in refused(lambda: load_model(folder))


def test_weights_that_the_manifest_does_not_know_are_refused(save: Save):
    folder = save(1)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "other.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "other.safetensors is not in manifest.json" in refused(lambda: load_model(folder))
    (folder / MANIFEST).unlink()
    load_model(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b'{"format": 2, "files": {}}', b'{"format": 1, "files": []}',
        b'{"format": 1, "files": {"../x": {"size": 1, "sha256": ""}}}',
        b'{"format": 1, "files": {"x": {"size": "1", "sha256": ""}}}',
        b'{"format": 1, "files": {"x": {"size": 1}}}', b'{"format": 1, "files": {"/etc/passwd": []}}',
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_one_line(save: Save, content: bytes):
    folder = save(1)
    (folder / MANIFEST).write_bytes(content)
    assert "manifest.json" in refused(lambda: load_checkpoint(folder))
    assert "manifest.json" in (problem(folder, resumable=True) or "")


def test_no_random_damage_to_a_manifest_is_more_than_one_line(save: Save):
    folder, rng = save(1), random.Random(1)
    whole = (folder / MANIFEST).read_bytes()
    for _ in range(60):
        at = rng.randrange(len(whole))
        damaged = rng.choice([whole[:at], whole[:at] + rng.randbytes(3) + whole[at + 3 :]])
        (folder / MANIFEST).write_bytes(damaged)
        try:
            verify(folder)
        except DataError as error:
            assert "Fix: " in str(error) and "\n" not in str(error)


def test_folders_without_a_manifest_load_and_a_runs_own_says_so(
    save: Save, tmp_path: Path, model: Transformer, caplog: pytest.LogCaptureFixture
):
    plain = save_model(tmp_path / "plain", model.state_dict(), model.config)
    assert not (plain / MANIFEST).exists() and not verify(plain)
    load_model(plain)
    assert caplog.text == ""
    old = save(1)
    (old / MANIFEST).unlink()
    load_checkpoint(old)
    assert f"{old} has no manifest.json" in caplog.text


def test_lengths_are_checked_wherever_a_checkpoint_is_chosen(save: Save, tmp_path: Path):
    first, second = save(1), save(2)
    with (second / "tokenizer.json").open("a") as file:
        file.write(" ")
    assert "tokenizer.json is too long" in (problem(second, resumable=True) or "")
    assert latest(tmp_path, resumable=True) == first
    check_sizes(first)


def test_the_newest_intact_one_is_loaded_and_the_damaged_said(
    save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    assert load_newest(tmp_path) is None
    folders = [save(step) for step in (1, 2, 3)]
    for folder in folders[1:]:
        flip(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1)
    assert latest(tmp_path, resumable=True) == folders[2], "by its headers it is sound"
    found = load_newest(tmp_path)
    assert found is not None and found.folder == folders[0] and found.training.step == 1
    assert list(found.passed_over) == [folders[2], folders[1]]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "step-000003" in said[0] and "has changed" in said[0]
    flip(folders[0] / "state" / "trainer.json", 5)
    assert "no checkpoint in " in refused(lambda: load_newest(tmp_path))


def test_a_checkpoint_known_to_be_damaged_does_not_push_out_a_good_one(save: Save, tmp_path: Path):
    folders = {step: save(step) for step in (1, 2, 3)}
    with (folders[2] / "state" / "ema.safetensors").open("ab") as file:
        file.write(b"x")  # seen by its length
    prune(tmp_path, 1, written=folders[3], damaged={folders[3]})
    assert [step for step, _ in step_folders(tmp_path / "checkpoints")] == [1, 2, 3]
    prune(tmp_path, 1, written=folders[3])
    assert [step for step, _ in step_folders(tmp_path / "checkpoints")] == [3]


def test_hashing_holds_a_few_pieces_and_no_file(tmp_path: Path):
    """Neither writing the manifest nor checking it: 40 MB of tensors, a few pieces in memory."""
    write_tensors(tmp_path / "a.safetensors", {"big": torch.ones(5, 1 << 20), "bigger": torch.ones(5 << 20)})
    tracemalloc.start()
    write_manifest(tmp_path)
    assert verify(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * PIECE


def test_odd_tensors_have_hashes_too(tmp_path: Path):
    given = {"none": torch.ones(0, 3), "one": torch.tensor(1.5), "é/x": torch.ones(2, dtype=torch.int8)}
    save_file(given, tmp_path / "a.safetensors")
    write_manifest(tmp_path)
    files = read_manifest(tmp_path)
    assert files is not None and files["a.safetensors"]["tensors"].keys() == given.keys()
    assert files["a.safetensors"]["tensors"]["none"] == hashlib.sha256().hexdigest() and verify(tmp_path)


@pytest.mark.parametrize("where", ["_write", "write_training", "write_manifest"])
def test_a_disk_that_is_full_at_any_part_of_a_save_leaves_the_last_one(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    first = save(1)
    done = getattr(save_module, where)

    def full(folder: Path, *rest: object) -> None:
        done(folder, *rest)
        (folder / "last").symlink_to("/dev/full")
        (folder / "last").write_bytes(b"x" * 100_000)

    with monkeypatch.context() as patch, pytest.raises(DiskError, match=r"step-000002 .* free there.* Fix: "):
        patch.setattr(save_module, where, full)
        save(2)
    assert [path.name for path in first.parent.iterdir()] == ["step-000001"]
    found = load_newest(tmp_path)
    assert found is not None and found.folder == first and not found.passed_over


@pytest.mark.parametrize("lost", ["state/optimizer.safetensors", "tokenizer.json", "config.json"])
def test_a_manifest_that_names_too_little_is_damage(save: Save, lost: str):
    folder = save(1)
    path = folder / MANIFEST
    table = json.loads(path.read_text())
    del table["files"][lost]
    path.write_text(json.dumps(table))
    assert lost in refused(lambda: load_checkpoint(folder))
