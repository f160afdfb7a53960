"""Where text comes from: three generators that need no download, files, and Hugging Face datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from math import ceil
from pathlib import Path

from fathom.config.data import DataConfig
from fathom.config.errors import DataError
from fathom.data import smallworld
from fathom.data.files import find_files, read_texts
from fathom.data.hub import PREFIX, hub_texts
from fathom.data.python_text import pycode, pydocs

PYTHON_TEXT: dict[str, Callable[[], Iterator[str]]] = {"pydocs": pydocs, "pycode": pycode}
GENERATORS = ("smallworld", *PYTHON_TEXT)
SPLITS_ITSELF = frozenset(
    {"smallworld"}
)  # it knows its held-out part; others are split by document in `build`


@dataclass(frozen=True, slots=True)
class Document:
    """One text, never empty, and the name of the source it came from, as `data.sources` has it."""

    text: str
    source: str


def open_source(name: str, config: DataConfig, *, held_out: bool = False) -> Iterator[Document]:
    """The documents of one source, always in the same order, read as they are consumed.

    name       a generator, a file, a glob, a folder, or hf:NAME[:SPLIT]
    config     `documents` (the most a generator gives), `seed`, `text_field`, `held_out`
    held_out   for the names in SPLITS_ITSELF: the part never trained on, documents * held_out of it
    errors     DataError: a name that means nothing or a missing extra at once; bad contents, and a source
               without any text, when they are reached
    """
    assert not held_out or name in SPLITS_ITSELF, f"{name} is split by document in build, not by open_source"
    if name == "smallworld":
        count = ceil(config.documents * config.held_out) if held_out else config.documents
        return (Document(text, name) for text in smallworld.documents(config.seed, count, held_out=held_out))
    if name in PYTHON_TEXT:
        texts: Iterator[str] = islice(PYTHON_TEXT[name](), config.documents)
    elif name.startswith(PREFIX):
        texts = hub_texts(name, config.text_field)
    else:
        texts = read_texts(_files(name), config.text_field)
    return _documents(texts, name)


def source_bytes(name: str) -> int | None:
    """Bytes on disk of a source made of files, None of any other: what a progress bar can start from."""
    if name in GENERATORS or name.startswith(PREFIX):
        return None
    return sum(path.stat().st_size for path in _files(name))


def _documents(texts: Iterator[str], name: str) -> Iterator[Document]:
    empty = True
    for text in texts:
        if text.strip():
            empty = False
            yield Document(text, name)
    if empty:
        raise DataError(
            f"data source {name} holds no text. Fix: put text into it, or drop it from data.sources"
        )


def _files(name: str) -> list[Path]:
    if name and (files := find_files(name)):
        return files
    path = Path(name).expanduser()
    beside = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(name, GENERATORS, 1) or get_close_matches(str(path), beside, 1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise DataError(
        f"data source {name!r} is neither a generator nor a file or folder. "
        f"Fix: {guess}Use {', '.join(GENERATORS)}, hf:NAME, or a path that exists"
    )
