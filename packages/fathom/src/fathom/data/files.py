"""A person's own text: which files a path, a glob or a folder means, and the reader for each kind of file."""

from __future__ import annotations

from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path

from fathom.config.errors import DataError, need
from fathom.data.rows import json_texts, parquet_texts
from fathom.data.text_file import decoded, documents

SUFFIXES = (".txt", ".md", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_KINDS = ", ".join(SUFFIXES)


def find_files(name: str) -> list[Path]:
    """The files that `name` means, sorted; [] if there is nothing of that name.

    name     a file; a folder, meaning all its files of a known kind at any depth, hidden ones left out;
             or a glob (`**` goes into folders)
    errors   DataError for a folder or glob without a readable file, an unknown kind, or a missing extra
    """
    path = Path(name).expanduser()
    if path.is_dir():
        files = [p for p in path.rglob("*") if p.is_file() and _is_known(p) and not _is_hidden(p, path)]
        need(
            bool(files), f"the folder {path} holds no {_KINDS} file", fix="put text into it", error=DataError
        )
    elif path.exists():
        files = [path]
    elif has_magic(name):
        files = [p for p in map(Path, glob(str(path), recursive=True)) if p.is_file()]
        need(bool(files), f"no file matches {name}", fix="check the folder and the pattern", error=DataError)
    else:
        files = []
    for file in files:
        _check_readable(file)
    return sorted(files)


def read_texts(files: list[Path], text_field: str) -> Iterator[str]:
    """The documents of `files` in order: rows of .jsonl and .parquet; other files whole, or cut if long."""
    for file in files:
        if file.suffix == ".parquet":
            yield from parquet_texts(file, text_field)
        elif _is_rows(file):
            yield from json_texts(file, text_field)
        else:
            yield from documents(decoded(file))


def _is_known(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def _is_rows(path: Path) -> bool:
    return path.name.removesuffix(".gz").removesuffix(".zst").endswith(".jsonl")


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _check_readable(path: Path) -> None:
    fix = f"make it one of {_KINDS}; plain text of another name can be renamed to .txt"
    need(_is_known(path), f"{path} is of no kind that can be read", fix=fix, error=DataError)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet  # noqa: F401
        elif path.suffix == ".zst":
            import zstandard  # noqa: F401
    except ImportError as error:
        needed = "pyarrow" if path.suffix == ".parquet" else "zstandard"
        raise DataError(
            f"{path} needs {needed}, which is not installed. Fix: pip install 'fathom-lm[data]'"
        ) from error
