"""Shards give back the documents that were written, and a damaged one is never read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.errors import DataError
from fathom.data.shards import HEADER, HEADER_BYTES, Series, SeriesWriter, Shard, ShardWriter, token_dtype

documents = st.lists(st.lists(st.integers(0, 70_000), max_size=9), max_size=12)


def write(path: Path, texts: list[list[int]], vocab_size: int) -> Path:
    with ShardWriter(path, vocab_size) as writer:
        for ids in texts:
            writer.add(ids)
    return path


def read(series: Series) -> list[list[int]]:
    return [series.piece(d, 0, int(n)).tolist() for d, n in enumerate(series.length_D)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


@given(texts=documents, wide=st.booleans())
@settings(max_examples=60, deadline=None)
def test_documents_come_back(folder: Path, texts: list[list[int]], wide: bool):
    texts = texts if wide else [[i % 65_536 for i in ids] for ids in texts]
    shard = Shard.open(write(folder / "a.tokens", texts, 70_001 if wide else 65_536))
    assert shard.token_N.dtype == (np.uint32 if wide else np.uint16)
    assert shard.border_D1.tolist() == np.cumsum([0, *map(len, texts)]).tolist()
    assert read(Series([shard])) == texts


@given(texts=documents, limit=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_a_series_of_shards_reads_as_one(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[int]], limit: int
):
    folder = tmp_path_factory.mktemp("series")
    writer = SeriesWriter(folder, "train-00", 70_001, shard_tokens=limit)
    for ids in texts:
        writer.add(ids)
    writer.close()
    shards = [Shard.open(folder / name) for name in writer.files]
    series = Series(shards)
    assert read(series) == texts
    assert (writer.documents, writer.tokens, series.tokens) == (len(texts), *[sum(map(len, texts))] * 2)
    assert all(len(s.token_N) <= max(limit, max(map(len, texts))) for s in shards)
    for d, ids in enumerate(texts):
        assert series.piece(d, len(ids) // 2, len(ids) - len(ids) // 2).tolist() == ids[len(ids) // 2 :]


@pytest.mark.parametrize(
    ("vocab_size", "bytes_per_token"), [(300, 2), (65_536, 2), (65_537, 4), (129_280, 4)]
)
def test_ids_take_two_bytes_where_the_vocabulary_fits(vocab_size: int, bytes_per_token: int):
    assert token_dtype(vocab_size).itemsize == bytes_per_token
    assert np.iinfo(token_dtype(vocab_size)).max >= vocab_size - 1


@pytest.mark.parametrize("keep", [0, 8, HEADER_BYTES, HEADER_BYTES + 3, -8, -1])
def test_a_truncated_shard_is_named(tmp_path: Path, keep: int):
    path = write(tmp_path / "cut.tokens", [[1, 2, 3], [4]], 300)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut\.tokens.*Fix: ") as caught:
        Shard.open(path)
    assert "\n" not in str(caught.value)


def test_every_flipped_byte_that_matters_is_noticed(tmp_path: Path):
    path = write(tmp_path / "flip.tokens", [[1, 2, 3], [4]], 300)
    whole = path.read_bytes()
    for at in [*range(HEADER.size), *range(HEADER_BYTES, len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"flip\.tokens.*Fix: "):
            Shard.open(path)


def test_a_large_shard_skips_the_tokens_checksum_unless_asked(tmp_path: Path):
    path = write(tmp_path / "large.tokens", [[1, 2, 3, 4]], 300)
    whole = bytearray(path.read_bytes())
    whole[HEADER_BYTES] ^= 1
    path.write_bytes(whole)
    assert Shard.open(path, full=False).token_N[0] == 0
    with pytest.raises(DataError, match="damaged"):
        Shard.open(path, full=True)


def test_a_missing_file_and_a_stranger_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.tokens.*Fix: "):
        Shard.open(tmp_path / "gone.tokens")
    (tmp_path / "stranger.tokens").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"stranger\.tokens.*Fix: "):
        Shard.open(tmp_path / "stranger.tokens")


def test_an_unfinished_shard_is_no_shard(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "half.tokens", 300) as writer:
        writer.add([1, 2, 3])
        raise KeyboardInterrupt
    with pytest.raises(DataError, match="not a finished shard"):
        Shard.open(tmp_path / "half.tokens")
