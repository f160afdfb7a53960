"""Text that every machine with Python has: its documentation (pydocs) and its code (pycode).

pydocs   the topics of Python's own help and the docstrings of the standard library: about 2 MB of English
pycode   the standard library, then the installed packages: up to 100 MB of permissively licensed code

What they hold depends on the Python and the packages at hand; their order does not.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from fathom.data.text_file import documents

DOCSTRING_CHARS = 80  # shorter ones say little more than the name they describe
PYCODE_BYTES = 100_000_000
LARGEST_MODULE_BYTES = 1_000_000  # larger modules are generated tables
TEST_FOLDERS = frozenset({"test", "tests", "testing", "idle_test"})
TEST_FILE = re.compile(r"(test_.*|.*_test|conftest)\.py")
PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})  # a standard library may contain them
PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
CODE = re.compile(r"^\s*(>>>|\.\.\. )", re.MULTILINE)


def pydocs() -> Iterator[str]:
    """Help topics, then docstrings of the standard library by module; no docstring twice."""
    for topic in _topics():
        yield from documents([topic])
    seen: set[str] = set()
    for path in _modules(_folder("stdlib")):
        for text in _docstrings(path):
            if text not in seen:
                seen.add(text)
                yield text


def pycode(limit: int = PYCODE_BYTES) -> Iterator[str]:
    """Modules of the standard library, then of the installed packages; one document each, none twice.

    limit    most bytes of all modules together
    """
    seen: set[bytes] = set()
    for folder in dict.fromkeys(_folder(kind) for kind in ("stdlib", "purelib", "platlib")):
        for path in _modules(folder):
            code = _read(path)
            digest = blake2b(code.encode(), digest_size=16).digest()
            if not code.strip() or digest in seen:
                continue
            seen.add(digest)
            limit -= len(code.encode())
            if limit < 0:
                return
            yield code


def _folder(kind: str) -> Path:
    return Path(sysconfig.get_path(kind))


def _topics() -> Iterator[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some systems package it apart; docstrings remain
        return
    for name in sorted(topics):
        yield topics[name]


def _modules(folder: Path) -> Iterator[Path]:
    """The .py files below `folder`, sorted, without tests and without packages installed inside it."""
    for path in sorted(folder.rglob("*.py")):
        inside = set(path.relative_to(folder).parts[:-1])
        if not inside & (TEST_FOLDERS | PACKAGE_FOLDERS) and not TEST_FILE.fullmatch(path.name):
            yield path


def _read(path: Path) -> str:
    """The code in `path`, "" if it is not UTF-8 or too large."""
    try:
        if path.stat().st_size > LARGEST_MODULE_BYTES:
            return ""
        code = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if "\0" in code else code


def _docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old modules hold invalid escapes
        try:
            tree = ast.parse(_read(path))
        except (SyntaxError, ValueError):  # lib2to3 keeps grammar examples that are no modules
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = _prose(ast.get_docstring(node) or "")
            if len(text) > DOCSTRING_CHARS:
                yield text


def _prose(docstring: str) -> str:
    """`docstring` without its paragraphs of example code."""
    return "\n\n".join(p for p in PARAGRAPH_BREAK.split(docstring) if not CODE.search(p)).strip()
