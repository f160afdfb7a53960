"""Our safetensors files are everybody's; damaged ones are named, whatever the damage."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fathom.checkpoint.tensors import DTYPES, MAX_HEADER, read_header, read_tensors, write_tensors
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
