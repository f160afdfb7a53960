"""Our safetensors files are everybody's; damaged ones are named, whatever the damage."""

from __future__ import annotations

import json
import random
import resource
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fathom.checkpoint.tensors import (
    DTYPES,
    MAX_HEADER,
    Kind,
    Reader,
    Stored,
    Writer,
    read_header,
    read_tensors,
    write_tensors,
)
from fathom.config.errors import DataError


def samples() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {str(dtype): (torch.rand(3, 5, generator=generator) * 9).to(dtype) for dtype in DTYPES}
    whole = torch.rand(4, 6, 2, generator=generator)
    return tensors | {
        "a view": whole[2],
        "strided": whole[:, ::2].transpose(0, 2),
        "expanded": torch.ones(1).expand(7),
        "nothing": torch.empty(0, 3),
        "one number": torch.tensor(1.5),
        "trained": torch.ones(2, requires_grad=True),
        "名前": torch.ones(1),
    }


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_the_library_reads_what_we_write(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, samples())
    for read in (load_file(path), read_tensors(path)):
        assert read.keys() == samples().keys()
        for name, tensor in samples().items():
            assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
            assert bits(read[name]) == bits(tensor)
    assert {n: s.shape for n, s in read_header(path).items()} == {
        n: tuple(t.shape) for n, t in samples().items()
    }


def test_we_read_what_the_library_writes(tmp_path: Path):
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in samples().items()}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    read = read_tensors(tmp_path / "x.safetensors")
    assert all(bits(read[name]) == bits(tensor) for name, tensor in tensors.items())


def test_what_is_read_outlives_its_file(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(1000)})
    read = read_tensors(path)
    path.write_bytes(b"")
    assert torch.equal(read["a"], torch.ones(1000))


def test_precision_changes_on_the_way(tmp_path: Path):
    tensors = {"a": torch.tensor([1.0, 1 / 3]), "b": torch.tensor([1 / 3])}
    write_tensors(tmp_path / "x.safetensors", tensors, {"a": torch.bfloat16})
    read = read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(read["a"], tensors["a"].bfloat16()) and torch.equal(read["b"], tensors["b"])


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_header(path)
    text = str(caught.value)
    assert str(path) in text and "Fix: " in text and "\n" not in text
    return text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "too short"),
        (b"\x10\0\0", "too short"),
        (struct.pack("<Q", 10**12) + b"{}", "too short for its header"),
        (b"PK\x03\x04" + b"\0" * 100, "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (struct.pack("<Q", 2) + b"[]", "header is damaged"),
        (struct.pack("<Q", 2) + b"\xff\xfe", "header is damaged"),
        (struct.pack("<Q", 9) + b'{"a": {}}', "header is damaged"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "header is damaged"),
        (struct.pack("<Q", 2) + b"{}!", "too long"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, said: str):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert said in refused(path)


def file_of(path: Path, header: object, data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "entries",
    [
        {"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [4, 12])},  # overlapping
        {"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [0, 8])},  # the same place
        {"a": ("F32", [2], [4, 12])},  # a gap before
        {"a": ("F32", [1], [0, 4]), "b": ("F32", [1], [8, 12])},  # a gap between
        {"a": ("F32", [4], [0, 16])},  # beyond the end
        {"a": ("F32", [3], [12, 0])},  # backwards
        {"a": ("F32", [3], [-12, 0])},
        {"a": ("F32", [-1, -3], [0, 12])},  # a product that fits
        {"a": ("F32", [3.0], [0, 12])},
        {"a": ("F32", [3], [0.0, 12.0])},
        {"a": ("F32", [True, 3], [0, 12])},
        {"a": ("F32", [2], [0, 12])},  # fewer numbers than bytes
        {"a": ("F32", 3, [0, 12])},
        {"a": ("F32", [3], [0])},
        {"a": (["F32"], [3], [0, 12])},
        {"a": (None, [3], [0, 12])},
        {"a": ("F32", [0, 2**70], [0, 0]), "b": ("F32", [3], [0, 12])},  # empty, and wider than any machine
    ],
)
def test_a_header_that_lies_about_places_is_refused(tmp_path: Path, entries: dict[str, tuple]):
    header = {n: {"dtype": d, "shape": s, "data_offsets": o} for n, (d, s, o) in entries.items()}
    refused(file_of(tmp_path / "x.safetensors", header, b"\0" * 12))


def test_a_dtype_of_the_future_is_listed_but_not_read(tmp_path: Path):
    entry = {"dtype": "F4", "shape": [6], "data_offsets": [0, 3]}
    path = file_of(tmp_path / "x.safetensors", {"a": entry}, b"abc")
    assert read_header(path)["a"].shape == (6,)
    with pytest.raises(DataError, match=r"a is F4, which is not read\. Fix: "):
        read_tensors(path)


def test_rows_are_a_part_of_the_whole(tmp_path: Path):
    tensors = {"a": torch.rand(7, 3, 2), "b": torch.rand(9).bfloat16(), "c": torch.rand(4, 5)}
    write_tensors(tmp_path / "x.safetensors", tensors)
    stored = read_header(tmp_path / "x.safetensors")
    with Reader(stored) as reader:
        for name, tensor in tensors.items():
            for first in range(len(tensor)):
                for last in range(first, len(tensor) + 1):
                    assert torch.equal(reader.rows(name, first, last), tensor[first:last])


def test_a_file_cut_after_its_header_was_read_is_named(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(1000)})
    with Reader(read_header(path)) as reader:
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DataError, match="ends inside a: it has changed"):
            reader.read("a")
        path.unlink()
    with Reader({"a": Stored("F32", (1000,), path, 100)}) as reader, pytest.raises(DataError, match="cannot"):
        reader.read("a")


def test_more_files_than_a_process_may_open(tmp_path: Path):
    """A model in thousands of files needs one open at a time."""
    stored = {}
    for i in range(60):
        write_tensors(tmp_path / f"{i}.safetensors", {f"t{i}": torch.full((2,), float(i))})
        stored |= read_header(tmp_path / f"{i}.safetensors")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Reader(stored) as reader:
        open_now = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 40
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 20, hard))
        try:
            assert all(reader.read(f"t{i}")[0] == i for i in range(60))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_writer_given_less_than_announced_is_a_bug(tmp_path: Path):
    writer = Writer(tmp_path / "x.safetensors", {"a": Kind("F32", (3, 2))})
    with pytest.raises(AssertionError, match="announced"), writer:
        writer.put("a", torch.ones(2, 2))


def test_pieces_in_any_order_make_the_same_file(tmp_path: Path):
    tensors = {"a": torch.rand(4, 3), "b": torch.rand(5).bfloat16(), "c": torch.rand(2, 2)}
    write_tensors(tmp_path / "whole.safetensors", tensors)
    kinds = {name: Kind(DTYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}
    with Writer(tmp_path / "pieces.safetensors", kinds) as writer:
        for name, first in [("b", 0), ("a", 0), ("c", 0), ("a", 2), ("b", 2), ("b", 4)]:
            writer.put(name, tensors[name][first : first + 2])
    assert (tmp_path / "pieces.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_header_beyond_the_formats_ceiling_is_refused(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER + 1))
        file.truncate(MAX_HEADER + 100)  # sparse
    assert "header is too large" in refused(path)


def test_a_missing_file_is_named(tmp_path: Path):
    assert "is missing" in refused(tmp_path / "x.safetensors")
    assert "cannot be read" in refused(tmp_path)


def test_every_truncation_is_seen(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(3, 4), "b": torch.ones(2, dtype=torch.bfloat16)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)


def test_no_altered_header_is_more_than_one_line(tmp_path: Path):
    """Flipped bytes are either refused in one line or leave a file of the right size."""
    path, rng = tmp_path / "x.safetensors", random.Random(0)
    write_tensors(path, {"a": torch.ones(3, 4), "b": torch.ones(2, dtype=torch.bfloat16)})
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    caught = 0
    for _ in range(500):
        altered = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            altered[rng.randrange(header)] = rng.randrange(256)
        path.write_bytes(altered)
        try:
            read_header(path)
        except DataError as error:
            caught += 1
            assert "Fix: " in str(error) and "\n" not in str(error)
    assert caught > 300
