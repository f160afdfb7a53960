"""A person's own files: what each kind gives, in which order, and what bad ones say."""

from __future__ import annotations

import gzip
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fathom.config.data import DataConfig
from fathom.config.errors import DataError
from fathom.data import text_file
from fathom.data.sources import open_source
from fathom.data.text_file import DOCUMENT_CHARS, decoded, documents, lines

pyarrow = pytest.importorskip("pyarrow", reason="the extra `data` reads parquet")
zstandard = pytest.importorskip("zstandard", reason="the extra `data` reads zstandard")


def texts(name, **settings):
    return [document.text for document in open_source(str(name), DataConfig(**settings))]


def refused(name, **settings):
    """The one line that says why `name` cannot be used."""
    with pytest.raises(DataError) as caught:
        texts(name, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert "Fix: " in message
    return message


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path, columns):
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


# ---- which files


def test_a_folder_is_read_in_order_without_hidden_and_unknown_files(tmp_path):
    for name in ("b.txt", "a/z.md", "a/b.txt", ".git/c.txt", "d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert texts(tmp_path) == ["a/b.txt", "a/z.md", "b.txt"]


def test_a_glob_is_read_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "deep/c.txt", "d.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert texts(f"{tmp_path}/*.txt") == ["a.txt", "b.txt"]
    assert texts(f"{tmp_path}/**/*.txt") == ["a.txt", "b.txt", "deep/c.txt"]


def test_a_file_with_a_pattern_in_its_name_is_that_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("this")
    (tmp_path / "a1.txt").write_text("not this")
    assert texts(tmp_path / "a[1].txt") == ["this"]


def test_wrong_names_are_refused_at_once(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, says in {
        "missing.txt": "neither a generator nor a file",
        "*.jsonl": "no file matches",
        "a.docx": "of no kind that can be read",
        "*.docx": "of no kind that can be read",
        "folder": "holds no .txt",
    }.items():
        with pytest.raises(DataError, match=says):
            open_source(str(tmp_path / name), DataConfig())


def test_missing_extras_name_the_command(tmp_path, monkeypatch):
    for suffix, module in ((".parquet", "pyarrow.parquet"), (".jsonl.zst", "zstandard")):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"x")
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(DataError, match=r"not installed. Fix: pip install 'fathom-lm\[data\]'$"):
            open_source(str(path), DataConfig())


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_a_source_without_text_is_refused(tmp_path, content):
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert "holds no text" in refused(tmp_path / name)
    assert "holds no text" in refused(tmp_path)
    assert "holds no text" in refused(write_parquet(tmp_path / "a.parquet", {"text": ["", None]}))


def test_an_empty_file_among_others_is_passed_over(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("text")
    assert texts(tmp_path) == ["text"]


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "a.txt cannot be read: Permission denied" in refused(tmp_path / "a.txt")


# ---- text


def test_a_text_file_is_one_document_with_plain_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\r\ntwo\rthree\n".encode())
    assert texts(tmp_path / "a.txt") == ["one\n\ntwo\nthree"]


def test_a_long_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    paragraphs = [f"{n} " + "word " * 99 for n in range(200)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    found = texts(tmp_path / "a.txt")
    assert len(found) > 5
    assert "\n\n".join(found) == "\n\n".join(paragraphs)
    assert all(DOCUMENT_CHARS <= len(text) < DOCUMENT_CHARS + 600 for text in found[:-1])


@pytest.mark.parametrize("between", [" ", "\n", ""])
def test_a_long_text_without_blank_lines_is_cut_too(between):
    text = between.join(["abcdefghi"] * 20_000)
    found = list(documents([text]))
    assert all(len(part) <= 2 * DOCUMENT_CHARS for part in found)
    assert "".join("".join(found).split()) == "".join(text.split())


@given(st.text(st.sampled_from("aé\u20ac\U0001f600\r\n "), max_size=40), st.integers(1, 7))
def test_parts_of_any_size_give_the_same_lines(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(text.encode())
    whole = "".join(decoded(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "CHUNK_BYTES", size)
        assert "".join(decoded(path)) == whole == text.replace("\r\n", "\n").replace("\r", "\n")
        assert list(lines(decoded(path))) == whole.removesuffix("\n").split("\n")[: None if whole else 0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"ab\x00c", "byte 2 is NUL"),
        (b"ab\xffc", "byte 2 (invalid start byte)"),
        ("é" * 5 + "x", None),
        ("é".encode() + b"\xc3", "byte 2 (unexpected end of data)"),
        ("text".encode("utf-16"), "byte 0 (invalid start byte)"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_the_byte_that_is_no_text_is_named(tmp_path, monkeypatch, content, says, size):
    monkeypatch.setattr(text_file, "CHUNK_BYTES", size)
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    if says is None:
        assert texts(path) == [content]
    else:
        message = refused(path)
        assert str(path) in message
        assert says in message or (size > 1 and "NUL" in message)  # a NUL anywhere in a part is seen first


# ---- rows


ROWS = [{"text": "one", "n": 1}, {"text": ""}, {"text": None}, {"text": "two\nlines €"}]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_rows_plain_and_compressed(tmp_path, suffix):
    content = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
    frames = [
        content[:50],
        content[50:],
    ]  # zstandard files may hold several frames, gzip files several members
    packed = {
        ".jsonl": content,
        ".jsonl.gz": b"".join(map(gzip.compress, frames)),
        ".jsonl.zst": b"".join(map(zstandard.compress, frames)),
    }
    path = tmp_path / f"a{suffix}"
    path.write_bytes(packed[suffix])
    assert texts(path) == ["one", "two\nlines €"]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut", "none"])
def test_a_damaged_archive_is_refused(tmp_path, suffix, damage):
    content = b"\n".join(json.dumps({"text": str(n)}).encode() for n in range(1000))
    packed = gzip.compress(content) if suffix.endswith("gz") else zstandard.compress(content)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(packed[:-20] if damage == "cut" else content)
    assert f"{path} cannot be read" in refused(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "a.jsonl:2 is not valid JSON (Expecting property name"),
        ("plain text", "a.jsonl:2 is not valid JSON"),
        ("[" * 100_000, "a.jsonl:2 is not valid JSON"),
        ("9" * 5000, "a.jsonl:2 is not valid JSON"),
        ('["text"]', "a.jsonl:2 is a JSON list, not an object"),
        ("3", "a.jsonl:2 is a JSON number, not an object"),
        ("null", "a.jsonl:2 is a JSON null, not an object"),
        (
            '{"body": "b", "id": 3}',
            "a.jsonl:2 has no 'text'; it has 'body', 'id'. Fix: set data.text_field to 'body'",
        ),
        ("{}", "a.jsonl:2 has no 'text'; it has no keys"),
        ('{"messages": []}', "a.jsonl:2 has no 'text'; it has 'messages'. Fix: this is a chat"),
        ('{"text": ["a"]}', "a.jsonl:2: 'text' is a JSON list, not text"),
        ('{"text": "a\\ud800"}', "a.jsonl:2: 'text' holds half a surrogate pair at character 1"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, says):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    assert says in refused(tmp_path / "a.jsonl")


def test_the_field_can_be_chosen(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "no", "story": "yes"}])
    assert texts(path, text_field="story") == ["yes"]
    path = write_parquet(tmp_path / "a.parquet", {"text": ["no"], "story": ["yes"]})
    assert texts(path, text_field="story") == ["yes"]


def test_parquet_gives_its_column_in_order(tmp_path):
    column = [str(n) for n in range(1000)]
    assert texts(write_parquet(tmp_path / "a.parquet", {"text": column, "n": list(range(1000))})) == column


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
def test_parquet_text_of_every_kind(tmp_path, kind):
    plain = pyarrow.array(["a", None, "b", "a"])
    column = plain.dictionary_encode() if kind == "dictionary" else plain.cast(getattr(pyarrow, kind)())
    assert texts(write_parquet(tmp_path / "a.parquet", {"text": column})) == ["a", "b", "a"]


def test_bad_parquet_is_refused(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"body": ["b"], "n": [1]})
    assert "has no column 'text'; it has 'body', 'n'. Fix: set data.text_field to 'body'" in refused(path)
    assert "column 'n' is not text. Fix: set data.text_field to 'body'" in refused(path, text_field="n")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(path.read_bytes()[:-30])
    assert "cannot be read as parquet" in refused(cut)
    cut.write_bytes(b"")
    assert "cannot be read as parquet" in refused(cut)
