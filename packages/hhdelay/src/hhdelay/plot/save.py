"""Figures on disk: the same bytes for the same figure, and never half a file."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from hhdelay.config.errors import ConfigError, need, plain

DPI = 300
# What would change from one day or version to the next is left out of each file.
METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
}
SUFFIXES = tuple(METADATA)
ELSEWHERE = "give a file in a folder that you may write to"

_one_at_a_time = Lock()     # the salt of SVG names can only be given by a global setting


def check_out(path: Path) -> None:
    """Raise ConfigError unless a figure can be written there by its suffix; before the work, not after it."""
    need(path.suffix.lower() in METADATA, f"--out {plain(str(path))} is no picture that can be written",
         fix=f"end it in {', '.join(SUFFIXES)}, such as {plain(path.stem or 'figure')}.png")  # fmt: skip
    need(path.parent.is_dir() and not path.is_dir(), f"cannot write {plain(str(path))}", fix=ELSEWHERE)


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as the suffix says: .png at 300 dpi, .svg with text as outlines, .pdf with its fonts.

    The file appears whole or not at all; an older one stays until then. Equal figures give equal bytes with
    one version of matplotlib. Raises ConfigError.
    """
    check_out(path)
    suffix = path.suffix.lower()
    part = path.with_name(f".{path.stem}.part{suffix}")
    settings = {"svg.hashsalt": "hhdelay", "svg.fonttype": "path", "pdf.fonttype": 42}
    try:
        with _one_at_a_time, mpl.rc_context(settings):  # type: ignore[arg-type]
            figure.savefig(part, format=suffix[1:], dpi=DPI, metadata=METADATA[suffix])
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        why = error.strerror or str(error)
        raise ConfigError(f"cannot write {plain(str(path))} ({why}). Fix: {ELSEWHERE}") from None
