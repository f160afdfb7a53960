"""Sources by name: generators, what a wrong name says, empty sources, Hugging Face names."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

from fathom.config.data import DataConfig
from fathom.config.errors import DataError
from fathom.data import smallworld
from fathom.data.python_text import pycode
from fathom.data.sources import GENERATORS, Document, open_source, source_bytes


def texts(name, **settings):
    return [document.text for document in open_source(str(name), DataConfig(**settings))]


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert "Fix: " in message
    return message


def test_smallworld_gives_the_configured_documents():
    config = DataConfig(documents=30, seed=4, held_out=0.1)
    assert [d.text for d in open_source("smallworld", config)] == list(smallworld.documents(4, 30))
    assert {d.source for d in open_source("smallworld", config)} == {"smallworld"}


def test_smallworld_knows_its_held_out_part():
    config = DataConfig(documents=30, seed=4, held_out=0.1)
    kept = [d.text for d in open_source("smallworld", config, held_out=True)]
    assert kept == list(smallworld.documents(4, 3, held_out=True))
    assert list(open_source("smallworld", DataConfig(held_out=0.0), held_out=True)) == []


def test_other_sources_are_split_elsewhere():
    with pytest.raises(AssertionError, match="pydocs is split by document"):
        open_source("pydocs", DataConfig(), held_out=True)


def test_pydocs_is_english_that_every_machine_has():
    found = texts("pydocs", documents=400)
    assert len(found) == 400
    assert any("Identifiers" in text for text in found)
    docstrings = found[-200:]
    assert len(set(docstrings)) == len(docstrings)
    assert all(len(text) > 80 and ">>>" not in text for text in docstrings)


def test_pycode_stays_below_its_limit_and_begins_the_same():
    few, more = list(pycode(limit=50_000)), list(pycode(limit=300_000))
    assert 0 < sum(len(code.encode()) for code in few) <= 50_000
    assert sum(len(code.encode()) for code in more) <= 300_000
    assert few == more[: len(few)]
    assert len(set(more)) == len(more) > len(few)
    assert texts("pycode", documents=3) == more[:3]


def test_pycode_reads_standard_library_then_packages(tmp_path, monkeypatch):
    files = {
        "stdlib/a.py": "a = 1\n",
        "stdlib/test/b.py": "b = 1\n",
        "stdlib/site-packages/c.py": "c = 1\n",
        "stdlib/latin.py": "é = 1\n".encode("latin-1"),
        "packages/d/test_d.py": "d = 1\n",
        "packages/d/conftest.py": "d = 1\n",
        "packages/d/core.py": "d = 1\n",
        "packages/d/copy.py": "a = 1\n",
        "packages/d/empty.py": "\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    folder = {"stdlib": "stdlib", "purelib": "packages", "platlib": "packages"}
    monkeypatch.setattr("sysconfig.get_path", lambda kind: str(tmp_path / folder[kind]))
    assert list(pycode()) == ["a = 1\n", "d = 1\n"]


@pytest.mark.parametrize(
    ("name", "guess"), [("smalworld", "smallworld"), ("pydoc", "pydocs"), ("PyCode", "pycode"), ("", "")]
)
def test_a_misspelt_generator_is_named(name, guess, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        open_source(name, DataConfig())
    message = one_line(caught)
    assert (f"did you mean {guess}?" in message) == bool(guess)
    assert all(generator in message for generator in GENERATORS)


def test_a_misspelt_path_names_its_neighbour(tmp_path):
    (tmp_path / "stories.txt").write_text("x")
    with pytest.raises(DataError, match=r"did you mean .*stories\.txt\?"):
        open_source(str(tmp_path / "storys.txt"), DataConfig())


def test_source_bytes_are_those_on_disk(tmp_path):
    (tmp_path / "a.txt").write_text("four")
    (tmp_path / "b.md").write_text("é")
    assert source_bytes(str(tmp_path)) == 6
    assert [source_bytes(name) for name in ("smallworld", "hf:x")] == [None, None]


# ---- hf:NAME


def stub_datasets(monkeypatch, load_dataset):
    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.mark.parametrize(
    ("name", "split", "streaming"),
    [("hf:a/b", "train", True), ("hf:a/b:test", "test", True), ("hf:a/b:train[:1%]", "train[:1%]", False)],
)
def test_hub_names_mean_a_dataset_and_a_split(monkeypatch, name, split, streaming):
    asked = []

    def load_dataset(path, **options):
        asked.append((path, options))
        return iter([{"text": "one"}, {"text": None}, {"text": "two"}])

    stub_datasets(monkeypatch, load_dataset)
    assert list(open_source(name, DataConfig())) == [Document("one", name), Document("two", name)]
    assert asked == [("a/b", {"split": split, "streaming": streaming})]


def test_hub_without_the_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'fathom-lm\[hf\]'") as caught:
        open_source("hf:a/b", DataConfig())
    one_line(caught)


def test_hub_offline_is_one_line(monkeypatch):
    def load_dataset(path, **options):
        raise ConnectionError("Couldn't reach 'a/b' on the Hub\n(offline mode is enabled)")

    stub_datasets(monkeypatch, load_dataset)
    with pytest.raises(DataError, match=r"Couldn't reach.*network") as caught:
        open_source("hf:a/b", DataConfig())
    one_line(caught)


def test_hub_that_fails_at_a_later_row_is_one_line(monkeypatch):
    def rows():
        yield {"text": "one"}
        raise RuntimeError("timed out")

    stub_datasets(monkeypatch, lambda path, **options: rows())
    with pytest.raises(DataError, match="timed out") as caught:
        texts("hf:a/b")
    one_line(caught)


def test_hub_row_without_the_field_names_its_keys(monkeypatch):
    stub_datasets(monkeypatch, lambda path, **options: iter([{"id": 1, "body": "b"}]))
    with pytest.raises(DataError, match="hf:a/b, row 1 has no 'text'; it has 'id', 'body'"):
        texts("hf:a/b")
    assert texts("hf:a/b", text_field="body") == ["b"]


def test_hub_needs_a_name():
    with pytest.raises(DataError, match="names no dataset"):
        open_source("hf:", DataConfig())


def test_the_datasets_library_reads_a_local_folder(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    rows = [json.dumps({"text": text}) for text in ("one", "two")]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    assert texts(f"hf:{tmp_path}") == ["one", "two"]
