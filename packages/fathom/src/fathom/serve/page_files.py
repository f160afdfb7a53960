"""The chat page, read once at start: what is served is a fixed list, and no request names a file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
FIRST = "index.html"
MISSING = b"This server was installed without its chat page. Its API is at /v1.\n"


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file."""

    content: bytes
    kind: str


def read_page(folder: Traversable | None = None) -> dict[str, PageFile]:
    """Every file by the path it is served at; "/" says so where the page is missing."""
    folder = folder or resources.files("fathom.serve") / "page"
    found = {}
    if folder.is_dir():
        for file in folder.iterdir():
            kind = TYPES.get("." + file.name.rpartition(".")[2])
            if kind is not None and file.is_file():
                path = "/" if file.name == FIRST else f"/page/{file.name}"
                found[path] = PageFile(file.read_bytes(), kind)
    return {"/": PageFile(MISSING, TYPES[".txt"])} | found
