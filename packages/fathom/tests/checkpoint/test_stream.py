"""Conversion streams: bounded memory, room on the disk known before, nothing half-written after."""

from __future__ import annotations

import itertools
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from fathom.checkpoint import save_model
from fathom.checkpoint.exchange import export_hf, import_hf
from fathom.checkpoint.stream import plan_shards
from fathom.checkpoint.tensors import Kind
from fathom.config.errors import DataError, DiskError
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.model.transformer import Transformer

SHARD = 20_000_000  # bytes
# Runs in a process of its own: the peak of its memory over what it takes before the work begins. A small
# model first, so that what torch makes once is made.
MEASURE = """
import contextlib, sys
from pathlib import Path
from fathom.checkpoint.exchange import export_hf, import_hf

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

way, small, large, out, shard = sys.argv[1:]
def work(source, folder):
    if way == "import":
        import_hf(source, folder, shard_bytes=int(shard))
    else:
        export_hf(source, folder, weights=way, shard_bytes=int(shard))

work(small, Path(out) / "small")
with contextlib.suppress(OSError):  # where it is refused, the peak of the past counts too
    Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
work(large, Path(out) / "large")
print(memory("VmHWM") - before)
"""


def network(width: int, experts: int) -> Transformer:
    config = ModelConfig(
        vocab_size=8 * width, hidden_size=width, num_layers=4, dense_layers=1, dense_size=2 * width,
        max_positions=128, init_std=0.02, mtp=MTPConfig(depth=0),
        attention=AttentionConfig(
            num_heads=4, q_rank=64, kv_rank=64, nope_head=32, rope_head=16, value_head=32
        ),
        moe=MoEConfig(
            num_experts=experts, experts_per_token=2, num_groups=1, groups_per_token=1, expert_size=width
        ),
    )  # fmt: skip
    return Transformer(config, seed=0)


class Folders(NamedTuple):
    """A small model and one of several files, in bf16 and in FP8."""

    small: Path
    bf16: Path
    fp8: Path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("models")
    for name, model in (("small", network(32, 4)), ("masters", network(512, 16))):
        save_model(root / name, model.state_dict(), model.config)
    export_hf(root / "small", root / "small-fp8", weights="fp8")
    for weights in ("bf16", "fp8"):
        export_hf(root / "masters", root / weights, weights=weights, shard_bytes=SHARD)  # type: ignore[arg-type]
    shutil.rmtree(root / "masters")
    return Folders(root / "small-fp8", root / "bf16", root / "fp8")


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell peak memory")
@pytest.mark.parametrize("way", ["import", "fp8", "bf16"])
def test_memory_stays_below_twice_the_largest_file(tmp_path: Path, folders: Folders, way: str):
    """FP8 into bf16, bf16 into FP8, and FP8 into bf16 by the other command."""
    large = folders.bf16 if way == "fp8" else folders.fp8
    sizes = [path.stat().st_size for path in large.glob("*.safetensors")]
    assert len(sizes) >= 3 and max(sizes) < 1.1 * SHARD
    command = [sys.executable, "-c", MEASURE, way, str(folders.small), str(large), str(tmp_path), str(SHARD)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout)
    print(f"{way}: {peak / 1e6:.1f} MB over the start, largest file {max(sizes) / 1e6:.1f} MB")
    assert peak < 2 * max(sizes)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 400)), max_size=40), st.integers(1, 5000))
def test_files_hold_everything_once_in_order_and_are_full(shapes: list[tuple[int, int]], most: int):
    kinds = {f"t{i}": Kind("BF16", shape) for i, shape in enumerate(shapes)}
    shards = plan_shards(kinds, most)
    assert [name for shard in shards for name in shard.kinds] == list(kinds)
    assert all(shard.nbytes <= most or len(shard.kinds) == 1 for shard in shards)
    for one, following in itertools.pairwise(shards):
        assert one.nbytes + next(iter(following.kinds.values())).nbytes > most, "there was room for one more"


def test_work_is_told_to_its_end(tmp_path: Path, folders: Folders):
    heard: list[tuple[int, int]] = []
    written = import_hf(folders.small, tmp_path / "in", told=lambda done, total: heard.append((done, total)))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1] == (written.nbytes, written.nbytes)
    files = sum(path.stat().st_size for path in (tmp_path / "in").glob("*.safetensors"))
    assert written.nbytes <= files <= written.nbytes + 200 * (written.tensors + 1), "bytes and a header"


def test_a_disk_without_room_is_said_at_once(
    tmp_path: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    heard: list[int] = []
    with pytest.raises(DiskError, match=r"GB free, and the weights take .* Fix: free some space"):
        import_hf(folders.fp8, tmp_path / "in", told=lambda done, total: heard.append(done))
    assert not heard and not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("weights", ["bf16", "fp8"])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.2.mlp.experts.3.up_proj.weight"])
def test_weights_that_are_no_numbers_are_refused_by_name(
    tmp_path: Path, folders: Folders, value: float, weights: str, name: str
):
    model = network(32, 4)
    folder = save_model(tmp_path / "model", model.state_dict(), model.config)
    edit(folder / "model.safetensors", name, lambda tensor: tensor.view(-1)[-1:].fill_(value))
    with pytest.raises(DataError, match=rf"model.safetensors: {re.escape(name)} holds NaN or inf.* Fix: "):
        export_hf(folder, tmp_path / "out", weights=weights)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing half-written stays"


def test_a_number_too_large_for_bf16_is_refused_not_made_infinite(tmp_path: Path):
    model = network(32, 4)
    folder = save_model(tmp_path / "model", model.state_dict(), model.config)
    edit(folder / "model.safetensors", "lm_head.weight", lambda t: t.view(-1)[:1].fill_(3.4e38))
    for weights in ("bf16", "fp8"):
        with pytest.raises(DataError, match="lm_head.weight holds NaN or infinity as bfloat16"):
            export_hf(folder, tmp_path / "out", weights=weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", ["bf16", "fp8"])
@pytest.mark.parametrize("damage", ["the NaN of E4M3", "its scale"])
def test_fp8_that_is_no_number_is_refused_by_name(
    tmp_path: Path, folders: Folders, weights: str, damage: str
):
    shutil.copytree(folders.small, tmp_path / "model")
    name = "model.layers.1.self_attn.o_proj.weight"
    path = tmp_path / "model/model-00001-of-000001.safetensors"
    if damage == "its scale":
        edit(path, f"{name}_scale_inv", lambda scale: scale.fill_(math.inf))
    else:
        edit(path, name, lambda q: q.view(torch.uint8)[0, :1].fill_(0xFF))
    for work in (
        lambda: export_hf(tmp_path / "model", tmp_path / "out", weights=weights),  # type: ignore[arg-type]
        lambda: import_hf(tmp_path / "model", tmp_path / "out"),
    ):
        with pytest.raises(DataError, match=rf"{re.escape(name)} holds NaN or infinity"):
            work()


@pytest.mark.parametrize("work", [import_hf, export_hf])
def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, folders: Folders, work):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/novel.txt").write_text("Once", encoding="utf-8")
    with pytest.raises(DataError, match="exists already"):
        work(folders.small, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["novel.txt"]


def edit(path: Path, name: str, change) -> None:
    tensors: dict[str, Tensor] = load_file(path)
    change(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})
