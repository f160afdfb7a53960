"""A corpus holds every text once, does not depend on the workers, and is there whole or not at all."""

from __future__ import annotations

import errno
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fathom.cli.data import app
from fathom.config.data import DataConfig
from fathom.config.errors import DataError, DiskError
from fathom.data import build as build_module
from fathom.data import smallworld
from fathom.data.build import build_corpus
from fathom.data.corpus import SPLITS, CorpusMeta
from fathom.data.survey import Sample, Survey
from fathom.data.tokenizer import Tokenizer

NAMES = ("Mia", "Leo", "Zoë", "美咲")


def write_texts(path: Path, count: int, seed: int = 0) -> list[str]:
    """A .jsonl file of `count` different little texts."""
    rng = random.Random(seed)
    texts = [
        f"{rng.choice(NAMES)} counted {n} {rng.choice(['kites', 'boats'])}.\n" * rng.randint(1, 4)
        for n in range(count)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return texts


def config_of(*sources: Path | str, **more: Any) -> DataConfig:
    return DataConfig(**{"sources": tuple(map(str, sources)), "vocab_size": 300, "workers": 1, **more})


def texts_of(corpus: Path, split: str, source: int = 0) -> list[str]:
    """Every document of a split, decoded; each is checked to stand between BOS and EOS."""
    tokenizer, meta = Tokenizer.load(corpus), CorpusMeta.load(corpus)
    series = meta.series(corpus, split)[source]
    documents = [series.piece(d, 0, int(n)).tolist() for d, n in enumerate(series.length_D)]
    assert all(ids[0] == meta.bos and ids[-1] == meta.eos for ids in documents)
    return [tokenizer.decode(ids) for ids in documents]


def contents(corpus: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in corpus.iterdir()}


def test_every_text_is_in_one_split_once_and_the_report_counts_it(tmp_path: Path):
    texts = write_texts(tmp_path / "a.jsonl", 400)
    report = build_corpus(config_of(tmp_path / "a.jsonl", held_out=0.05), tmp_path / "corpus")
    train, held_out = (texts_of(tmp_path / "corpus", split) for split in ("train", "held_out"))
    assert sorted(train + held_out) == sorted(texts)
    assert [t for t in texts if t in set(train)] == train, "the order of the source"
    assert 5 <= len(held_out) <= 45
    meta = CorpusMeta.load(tmp_path / "corpus")
    for row, expected in zip(report.sources, (train, held_out), strict=True):
        series = meta.series(tmp_path / "corpus", row.split)[0]
        assert row.documents == len(expected) == len(series.length_D)
        assert row.bytes == sum(len(text.encode()) for text in expected)
        assert row.tokens == series.tokens == report.tokens(row.split)
        assert row.bytes_per_token == row.bytes / row.tokens
    saved = json.loads((tmp_path / "corpus" / "report.json").read_text(encoding="utf-8"))
    assert [(r["split"], r["documents"]) for r in saved["sources"]] == [
        ("train", len(train)),
        ("held_out", len(held_out)),
    ]


def test_a_document_has_the_same_fate_in_every_corpus(tmp_path: Path):
    texts = write_texts(tmp_path / "a.jsonl", 300)
    write_texts(tmp_path / "b.jsonl", 100, seed=1)
    more = {"held_out": 0.1}
    build_corpus(config_of(tmp_path / "a.jsonl", **more), tmp_path / "one")
    build_corpus(config_of(tmp_path / "b.jsonl", tmp_path / "a.jsonl", seed=5, **more), tmp_path / "two")
    held_out = texts_of(tmp_path / "one", "held_out")
    assert held_out
    assert held_out == texts_of(tmp_path / "two", "held_out", source=1)
    assert set(held_out) < set(texts)


def test_the_number_of_workers_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build_module, "CHUNK", 500)
    write_texts(tmp_path / "a.jsonl", 120)
    write_texts(tmp_path / "b.jsonl", 50, seed=1)
    for workers in (1, 2):
        config = config_of(
            tmp_path / "a.jsonl", tmp_path / "b.jsonl", workers=workers, fim_rate=0.5, held_out=0.1, seed=3
        )
        build_corpus(config, tmp_path / f"corpus{workers}")
    assert contents(tmp_path / "corpus1") == contents(tmp_path / "corpus2")


def test_the_seed_moves_only_what_is_random(tmp_path: Path):
    write_texts(tmp_path / "a.jsonl", 60)
    for seed in (0, 1):
        build_corpus(config_of(tmp_path / "a.jsonl", fim_rate=0.5, seed=seed), tmp_path / f"fim{seed}")
    marks = [CorpusMeta.load(tmp_path / f"fim{seed}").fingerprint for seed in (0, 1)]
    assert marks[0] != marks[1]
    assert (tmp_path / "fim0" / "tokenizer.json").read_bytes() == (
        tmp_path / "fim1" / "tokenizer.json"
    ).read_bytes()


def test_fim_rearranges_training_text_only(tmp_path: Path):
    write_texts(tmp_path / "a.jsonl", 100)
    build_corpus(config_of(tmp_path / "a.jsonl", fim_rate=1.0, held_out=0.2), tmp_path / "corpus")
    begin = Tokenizer.load(tmp_path / "corpus").special("fim_begin")
    meta = CorpusMeta.load(tmp_path / "corpus")
    for split, expected in (("train", True), ("held_out", False)):
        series = meta.series(tmp_path / "corpus", split)[0]
        found = {begin in series.piece(d, 0, int(n)) for d, n in enumerate(series.length_D)}
        assert found == {expected}


def test_one_book_holds_out_its_end(tmp_path: Path):
    book = "".join(f"Chapter {n}. It rained on the boats.\n" for n in range(300)).strip()
    (tmp_path / "book.txt").write_text(book, encoding="utf-8")
    build_corpus(config_of(tmp_path / "book.txt", held_out=0.1), tmp_path / "corpus")
    (train,), (held_out,) = (texts_of(tmp_path / "corpus", split) for split in ("train", "held_out"))
    assert train + held_out == book
    assert 0.1 * len(book) - 40 < len(held_out) <= 0.1 * len(book)
    assert train[-1].isspace(), "the cut falls between words"


@given(
    texts=st.lists(st.text(alphabet="ab \n", max_size=80).filter(str.strip), min_size=1, max_size=12),
    share=st.sampled_from([0.0, 0.01, 0.2, 0.5]),
)
@settings(max_examples=150, deadline=None)
def test_a_split_keeps_every_character_and_always_leaves_text_to_train_on(texts: list[str], share: float):
    survey = Survey(share)
    for text in texts:
        survey.see(text)
    parts = [part for text in texts for part in survey.split(text)]
    letters = "".join("".join(texts).split())
    assert sorted("".join("".join(part.text for part in parts).split())) == sorted(letters)
    train, held_out = ("".join(p.text for p in parts if p.split == split) for split in ("train", "held_out"))
    assert train.strip()
    assert share > 0 or not held_out


@given(texts=st.lists(st.text(alphabet="abc", min_size=1, max_size=9), max_size=20), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_sample_does_not_depend_on_the_order(texts: list[str], seed: int):
    shuffled = random.Random(seed).sample(texts, len(texts))
    drawn = []
    for order in (texts, shuffled):
        survey, sample = Survey(0.0), Sample(20)
        for text in order:
            sample.offer(text, survey.see(text))
        drawn.append(list(sample.texts(survey)))
    assert drawn[0] == drawn[1]
    assert sum(map(len, drawn[0])) <= 20
    assert sum(map(len, texts)) > 20 or sorted(drawn[0]) == sorted(texts)


def test_the_tokenizer_never_sees_what_is_held_out():
    for texts in ([" ".join(map(str, range(20_000)))], [f"text {n}" for n in range(500)]):
        survey, sample = Survey(0.1), Sample(10**6)
        for text in texts:
            sample.offer(text, survey.see(text))
        parts = [part for text in texts for part in survey.split(text)]
        train, held_out = (Counter("\n".join(p.text for p in parts if p.split == s).split()) for s in SPLITS)
        seen = Counter(word for scrap in sample.texts(survey) for word in scrap.split())
        assert held_out and sum(seen.values()) >= 0.99 * sum(train.values())
        assert len(texts) == 1 or seen == train
        assert len(texts) > 1 or not (seen - train).keys() & held_out.keys()


def test_smallworld_holds_out_its_own_worlds(tmp_path: Path):
    config = config_of("smallworld", documents=200, held_out=0.05, vocab_size=400)
    build_corpus(config, tmp_path / "corpus")
    assert texts_of(tmp_path / "corpus", "train") == list(smallworld.documents(0, 200))
    assert texts_of(tmp_path / "corpus", "held_out") == list(smallworld.documents(0, 10, held_out=True))


def test_a_given_tokenizer_is_used_and_must_fit_the_model(tmp_path: Path):
    texts = write_texts(tmp_path / "a.jsonl", 40)
    Tokenizer.train(["kites and boats " * 9], 290).save(tmp_path / "tokenizer")
    config = config_of(tmp_path / "a.jsonl", tokenizer=str(tmp_path / "tokenizer"))
    build_corpus(config, tmp_path / "corpus", vocab_size=300)
    given_file = (tmp_path / "tokenizer" / "tokenizer.json").read_bytes()
    assert (tmp_path / "corpus" / "tokenizer.json").read_bytes() == given_file
    assert set(texts_of(tmp_path / "corpus", "train")) <= set(texts)
    with pytest.raises(DataError, match=r"has \d+ tokens, the model 280.*Fix: "):
        build_corpus(config, tmp_path / "other", vocab_size=280)
    assert not (tmp_path / "other").exists()


def test_a_large_source_is_read_again_in_place_of_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_texts(tmp_path / "a.jsonl", 80)
    build_corpus(config_of(tmp_path / "a.jsonl"), tmp_path / "remembered")
    monkeypatch.setattr("fathom.data.survey.REMEMBERED", 100)
    build_corpus(config_of(tmp_path / "a.jsonl"), tmp_path / "again")
    assert contents(tmp_path / "remembered") == contents(tmp_path / "again")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "where",
    ["fathom.data.shards.ShardWriter.add", "fathom.data.tokenizer._write", "fathom.data.corpus._write_json"],
)
@pytest.mark.parametrize(("accident", "error"), [(full_disk, DiskError), (interrupt, KeyboardInterrupt)])
def test_nothing_half_written_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    accident: Callable[..., None],
    error: type[BaseException],
):
    write_texts(tmp_path / "a.jsonl", 30)
    monkeypatch.setattr(where, accident)
    with pytest.raises(error) as caught:
        build_corpus(config_of(tmp_path / "a.jsonl"), tmp_path / "corpus")
    assert error is KeyboardInterrupt or "Fix: " in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_sources_without_text_are_named_and_leave_nothing(tmp_path: Path):
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(DataError, match=r"empty\.txt.*Fix: "):
        build_corpus(config_of(tmp_path / "empty.txt"), tmp_path / "corpus")
    (tmp_path / "tiny.txt").write_text("a", encoding="utf-8")
    with pytest.raises(DataError, match=r"too small to hold any text out.*Fix: "):
        build_corpus(config_of(tmp_path / "tiny.txt"), tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()
    build_corpus(config_of(tmp_path / "tiny.txt", held_out=0.0), tmp_path / "corpus")
    assert texts_of(tmp_path / "corpus", "train") == ["a"]


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path):
    write_texts(tmp_path / "a.jsonl", 30)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"exists.*Fix: "):
        build_corpus(config_of(tmp_path / "a.jsonl"), tmp_path / "corpus")
    assert contents(tmp_path / "corpus") == {"mine": b"mine"}
    (tmp_path / "free").mkdir()
    build_corpus(config_of(tmp_path / "a.jsonl"), tmp_path / "free")
    assert (tmp_path / "free" / "meta.json").exists(), "an empty folder is free"
    with pytest.raises(DiskError, match=r"Fix: choose another folder"):
        build_corpus(config_of(tmp_path / "a.jsonl"), tmp_path / "a.jsonl" / "corpus")
    with pytest.raises(DiskError, match=r"Fix: choose another folder"):
        build_corpus(config_of(tmp_path / "a.jsonl"), tmp_path / ("long" * 100))


def test_the_command_builds_and_shows_a_corpus(tmp_path: Path):
    write_texts(tmp_path / "a.jsonl", 60)
    settings_ = [f"data.sources={tmp_path / 'a.jsonl'}", "data.vocab_size=300", "data.workers=1"]
    corpus = str(tmp_path / "corpus")
    built = CliRunner().invoke(app, ["build", "tiny", *settings_, "--out", corpus], catch_exceptions=False)
    assert built.exit_code == 0 and "bytes/token" in built.stdout and "held-out" in built.stdout
    shown = CliRunner().invoke(
        app, ["preview", corpus, "--rows", "2", "--seq-len", "30"], catch_exceptions=False
    )
    assert "row 1" in shown.stdout and "<｜begin▁of▁sentence｜>" in shown.stdout and "│" in shown.stdout
    held_out = CliRunner().invoke(app, ["preview", corpus, "--held-out"], catch_exceptions=False)
    assert "tokens of padding" in held_out.stdout
    chats = CliRunner().invoke(app, ["preview", corpus, "--chats", "--rows", "4"], catch_exceptions=False)
    assert "<｜Assistant｜>⟦" in chats.stdout and "<｜end▁of▁sentence｜>⟧" in chats.stdout
