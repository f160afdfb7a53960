"""Every token once an epoch, the same rows for any number of ranks, and on from exactly where it stopped."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.config.data import DataConfig
from fathom.config.errors import DataError
from fathom.data.batch import Batch, pack_chats
from fathom.data.build import build_corpus
from fathom.data.corpus import CorpusMeta
from fathom.data.loader import Loader

SIZES = {"a": 240, "b": 60}  # documents


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    for name, count in SIZES.items():
        rows = [json.dumps({"text": f"{name} {n} " + "boat kite tree " * (n % 11)}) for n in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    sources = tuple(str(folder / f"{name}.jsonl") for name in SIZES)
    build_corpus(DataConfig(sources=sources, vocab_size=300, workers=1, held_out=0.05), folder / "corpus")
    return folder / "corpus"


def loader_of(corpus: Path, **more: Any) -> Loader:
    return Loader(corpus, **{"split": "train", "seq_len": 31, "seed": 0, **more})


def rows_of(batch: Batch) -> list[list[int]]:
    return torch.cat([batch.token_BT1, batch.segment_BT1], 1).tolist()


def documents_of(corpus: Path, split: str) -> list[int]:
    series = CorpusMeta.load(corpus).series(corpus, split)
    return [i for s in series for d, n in enumerate(s.length_D) for i in s.piece(d, 0, int(n)).tolist()]


@pytest.mark.parametrize("packing", ["best_fit", "stream"])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_an_epoch_holds_every_token_once(corpus: Path, packing: str, split: str):
    loader = loader_of(corpus, packing=packing, split=split)
    batches = list(loader.epoch(4))
    tokens = torch.cat([batch.token_BT1[batch.segment_BT1 >= 0] for batch in batches])
    assert sorted(tokens.tolist()) == sorted(documents_of(corpus, split))
    assert sum(map(len, batches)) == loader.rows
    assert len(tokens) == loader.tokens
    other = loader_of(corpus, packing=packing, split=split, seed=5)
    assert [rows_of(b) for b in batches] == [rows_of(b) for b in other.epoch(4)], "a fixed order"


@pytest.mark.parametrize("packing", ["best_fit", "stream"])
def test_the_shape_of_a_batch(corpus: Path, packing: str):
    loader = loader_of(corpus, packing=packing)
    batch = loader.next(6)
    assert batch.token_BT1.shape == batch.segment_BT1.shape == (6, 32)
    assert batch.token_BT1.dtype == batch.segment_BT1.dtype == torch.int64
    assert batch.mask_BT1 is None
    assert (batch.token_BT1[batch.segment_BT1 < 0] == loader.meta.pad).all()
    for tokens, segments in zip(batch.token_BT1.tolist(), batch.segment_BT1.tolist(), strict=True):
        real = [s for s in segments if s >= 0]
        assert segments == real + [-1] * (32 - len(real)), "padding stands at the end"
        assert sorted(real) == real and set(real) == set(range(max(real) + 1)), "segments count from 0"
        for i in range(1, len(real)):
            new = real[i] != real[i - 1]
            assert new or tokens[i] != loader.meta.bos, "a document begins with BOS and a segment of its own"
            assert not new or tokens[i] == loader.meta.bos or packing == "best_fit", (
                "or goes on from another row"
            )


def test_each_source_is_drawn_whole_before_it_is_shuffled_anew(corpus: Path):
    only_a = loader_of(corpus, weights=(1.0, 1e-9))
    first: list[list[int]] = []
    while not first or next(iter(only_a.epochs.values())) < 1:
        first += rows_of(only_a.next(1))
    second = [row for _ in range(len(first)) for row in rows_of(only_a.next(1))]
    assert sorted(first) == sorted(second)
    assert first != second


def test_the_seed_is_the_order(corpus: Path):
    one, same, other = (loader_of(corpus, seed=seed).next(40) for seed in (1, 1, 2))
    assert rows_of(one) == rows_of(same)
    assert rows_of(one) != rows_of(other)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_any_number_of_ranks_sees_the_same_global_rows(corpus: Path, world: int):
    alone = loader_of(corpus)
    ranks = [loader_of(corpus, rank=rank, world=world) for rank in range(world)]
    for rows in (12, 5, 4):
        expected = rows_of(alone.next(rows))
        shares = [rows_of(rank.next(rows)) for rank in ranks]
        merged: list[Any] = [None] * rows
        for rank, share in enumerate(shares):
            merged[rank::world] = share
        assert merged == expected
    assert all(rank.state_dict() == alone.state_dict() for rank in ranks)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_an_epoch_in_equal_numbers_of_rows(corpus: Path, world: int):
    alone = [row for batch in loader_of(corpus, split="held_out").epoch(5) for row in rows_of(batch)]
    ranks = [list(loader_of(corpus, split="held_out", rank=r, world=world).epoch(5)) for r in range(world)]
    shapes = [[len(batch) for batch in batches] for batches in ranks]
    assert all(shape == shapes[0] for shape in shapes)
    found = [row for batches in ranks for batch in batches for row in rows_of(batch)]
    padding = [row for row in found if set(row[32:]) == {-1}]
    assert sorted(row for row in found if row not in padding) == sorted(alone)


@given(before=st.lists(st.integers(1, 30), max_size=6), after=st.integers(1, 60))
@settings(max_examples=15, deadline=None)
def test_a_loader_goes_on_exactly_where_it_stopped(corpus: Path, before: list[int], after: int):
    loader = loader_of(corpus)
    for rows in before:
        loader.next(rows)
    state = json.loads(json.dumps(loader.state_dict()))
    assert len(json.dumps(state)) < 500
    resumed = loader_of(corpus)
    resumed.next(3)
    resumed.load_state_dict(state)
    assert rows_of(resumed.next(after)) == rows_of(loader.next(after))
    assert resumed.state_dict() == loader.state_dict()
    assert resumed.epochs == loader.epochs


def test_a_run_may_go_on_with_another_number_of_ranks(corpus: Path):
    alone = loader_of(corpus)
    alone.next(10)
    state = alone.state_dict()
    expected = rows_of(alone.next(4))
    for rank in range(2):
        half = loader_of(corpus, rank=rank, world=2)
        half.load_state_dict(state)
        assert rows_of(half.next(4)) == expected[rank::2]


def test_looking_at_an_epoch_does_not_move_the_order(corpus: Path):
    loader, untouched = loader_of(corpus), loader_of(corpus)
    list(loader.epoch(8))
    assert rows_of(loader.next(8)) == rows_of(untouched.next(8))


@pytest.mark.parametrize("weights", [(3.0, 1.0), (1.0, 1.0), (0.02, 0.98)])
def test_a_mixture_is_exact_to_about_a_row_at_any_moment(corpus: Path, weights: tuple[float, float]):
    loader = loader_of(corpus, weights=weights)
    share = weights[0] / sum(weights)
    for _ in range(200):
        loader.next(1)
        drawn = [tokens for _, tokens in loader.state_dict()["drawn"]]
        assert abs(drawn[0] - share * sum(drawn)) <= 32


def test_without_weights_sources_are_drawn_in_proportion_to_their_size(corpus: Path):
    loader = loader_of(corpus)
    loader.next(loader.rows)
    assert all(0.9 < epochs < 1.1 for epochs in loader.epochs.values())


def test_weights_of_the_build_hold_unless_others_are_given(corpus: Path, tmp_path: Path):
    sources = CorpusMeta.load(corpus).sources
    build_corpus(
        DataConfig(sources=sources, weights=(1.0, 3.0), vocab_size=300, workers=1), tmp_path / "corpus"
    )
    for given_weights, expected in (((), 0.25), ((3.0, 1.0), 0.75)):
        loader = loader_of(tmp_path / "corpus", weights=given_weights)
        loader.next(100)
        drawn = [tokens for _, tokens in loader.state_dict()["drawn"]]
        assert drawn[0] / sum(drawn) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    "changed", [{"seq_len": 15}, {"seed": 9}, {"packing": "stream"}, {"weights": (1.0, 9.0)}]
)
def test_a_position_in_other_rows_is_refused(corpus: Path, changed: dict[str, Any]):
    state = loader_of(corpus).state_dict()
    with pytest.raises(DataError, match=rf"{next(iter(changed))}.*Fix: "):
        loader_of(corpus, **changed).load_state_dict(state)


def test_a_position_of_another_kind_is_refused(corpus: Path):
    with pytest.raises(DataError, match=r"corpus None.*Fix: "):
        loader_of(corpus).load_state_dict({"drawn": 3, "rows": 4})


def test_a_corpus_below_one_row_names_the_length_that_works(corpus: Path):
    tokens = loader_of(corpus).tokens
    with pytest.raises(DataError, match=rf"Fix: set train\.seq_len to {tokens - 1} or less"):
        loader_of(corpus, seq_len=tokens)
    assert loader_of(corpus, seq_len=tokens - 1).next(1).token_BT1.shape == (1, tokens)
    held_out = list(loader_of(corpus, split="held_out", seq_len=tokens).epoch(4))
    assert len(held_out) == 1, "held-out text is padded to a row, however little it is"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "meta.json").unlink(), r"not a corpus \(meta\.json"),
        (lambda folder: (folder / "meta.json").write_text("{", encoding="utf-8"), "meta.json is damaged"),
        (lambda folder: (folder / "meta.json").write_text("[]", encoding="utf-8"), "meta.json is damaged"),
        (lambda folder: (folder / "train-00-00000.tokens").write_bytes(b""), r"train-00-00000\.tokens"),
        (lambda folder: (folder / "train-01-00000.tokens").unlink(), r"train-01-00000\.tokens"),
    ],
)
def test_a_damaged_corpus_is_one_line_with_the_fix(corpus: Path, tmp_path: Path, damage: Any, named: str):
    for path in corpus.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damage(tmp_path)
    with pytest.raises(DataError, match=rf"{named}.*Fix: "):
        loader_of(tmp_path)


def test_wrong_weights_and_a_missing_split_are_named(corpus: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"data\.weights has 3 values for the 2 sources.*Fix: "):
        loader_of(corpus, weights=(1.0, 1.0, 1.0))
    config = DataConfig(sources=CorpusMeta.load(corpus).sources, vocab_size=300, workers=1, held_out=0.0)
    build_corpus(config, tmp_path / "corpus")
    with pytest.raises(DataError, match=r"holds no text out.*Fix: "):
        loader_of(tmp_path / "corpus", split="held_out")


chats = st.lists(
    st.integers(2, 20).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(3, 99), min_size=n, max_size=n),
            st.lists(st.booleans(), min_size=n, max_size=n),
        )
    ),
    min_size=1,
    max_size=12,
)


@given(chats=chats, seq_len=st.integers(4, 24), seed=st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_chats_are_packed_whole_with_their_targets(chats: list[Any], seq_len: int, seed: int):
    logging.getLogger("fathom.data.batch").disabled = True
    row = seq_len + 1
    kept = [(ids[:row], mask[:row]) for ids, mask in chats if any(mask[1:row])]
    if not kept:
        with pytest.raises(DataError, match=r"no conversation has a reply.*Fix: "):
            pack_chats(chats, seq_len, seed=seed, pad=2)
        return
    batch = pack_chats(chats, seq_len, seed=seed, pad=2)
    assert batch.mask_BT1 is not None
    found = []
    for tokens, segments, mask in zip(
        batch.token_BT1.numpy(), batch.segment_BT1.numpy(), batch.mask_BT1.numpy(), strict=True
    ):
        assert (tokens[segments < 0] == 2).all() and not mask[segments < 0].any()
        assert (np.diff(segments[segments >= 0]) >= 0).all()
        for segment in range(segments.max() + 1):
            found.append((tokens[segments == segment].tolist(), mask[segments == segment].tolist()))
    assert sorted(found) == sorted(kept)
    again = pack_chats(chats, seq_len, seed=seed, pad=2)
    assert again.token_BT1.equal(batch.token_BT1)


def test_cut_and_dropped_chats_are_counted(caplog: pytest.LogCaptureFixture):
    logging.getLogger("fathom.data.batch").disabled = False
    kept = ([3, 4, 5, 6, 7], [False, True, True, True, True])
    lost = ([3, 4, 5, 6, 7], [False, False, False, False, True])
    pack_chats([kept, lost], 3, seed=0, pad=2)
    assert "2 of 2 conversations are longer than a row of 4 tokens" in caplog.text
    assert "1 of 2 conversations have no reply in that row" in caplog.text


def test_a_batch_can_be_sliced(corpus: Path):
    batch = loader_of(corpus).next(6)
    part = batch.take(slice(2, 4))
    assert rows_of(part) == rows_of(batch)[2:4] and len(part) == 2
    chat = pack_chats([([3, 4], [False, True])] * 3, 1, seed=0, pad=2).take(torch.tensor([1]))
    assert chat.mask_BT1 is not None and chat.mask_BT1.tolist() == [[False, True]]


def test_a_corpus_cannot_name_files_outside_its_folder(tmp_path):
    folder = tmp_path / "corpus"
    build_corpus(DataConfig(documents=60, held_out=0.1, vocab_size=400, workers=1), folder)
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"]["train"][0][0] = "../elsewhere.tokens"
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=r"meta\.json is damaged.*Fix: "):
        Loader(folder, split="train", seq_len=16, seed=0)
