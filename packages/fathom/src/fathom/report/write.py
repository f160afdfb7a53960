"""The page as a file: whole, or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fathom.config.errors import ConfigError, need, plain
from fathom.report.build import build_report
from fathom.report.run import check_run

REPORT = "report.html"
MARK = b'<meta name="generator" content="fathom report">'  # in the page's first bytes
HEAD = 400  # bytes in which it stands
READABLE = 0o644  # a temporary file is private; a report is to be shown around


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page about the runs in `folders` and return its path; RUN/report.html if `out` is not given.

    guarantee   a file that is no report is never overwritten, and no moment shows half a page
    errors      ConfigError, DataError in one line
    """
    for folder in folders:
        check_run(folder)
    need(out is not None or len(folders) == 1, "several runs have no folder in common", fix="add --out FILE")
    place = out if out is not None else folders[0] / REPORT
    _check_place(place)
    _put(build_report(folders).encode("utf-8"), place)
    return place


def _check_place(place: Path) -> None:
    """Before any work: a folder that is there, and no file of somebody else's."""
    name, above = plain(str(place)), place.parent
    try:
        there = above.is_dir()
        need(there, f"--out {name}: no folder {plain(str(above))}", fix="make it first, or name another")
        need(not place.is_dir(), f"--out {name} is a folder", fix=f"give a file, such as {place / REPORT}")
        if place.exists():
            with place.open("rb") as file:
                ours = MARK in file.read(HEAD)
            need(ours, f"--out {name} is a file that is no report", fix="give another name, or move it away")
    except (OSError, ValueError) as error:
        raise _refused(place, error) from None


def _put(page: bytes, place: Path) -> None:
    try:
        handle, temp = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(page)
            os.chmod(temp, READABLE)
            os.replace(temp, place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temp)
            raise
    except OSError as error:
        raise _refused(place, error) from None


def _refused(place: Path, error: Exception) -> ConfigError:
    why = getattr(error, "strerror", None) or str(error)
    return ConfigError(f"cannot write {plain(str(place))} ({why}). Fix: give --out a place you may write to")
