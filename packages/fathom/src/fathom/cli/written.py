"""A file that a command makes: whole, or not there."""

from __future__ import annotations

import os
from pathlib import Path

from fathom.config.errors import need, plain
from fathom.config.folder import disk_errors


def write_whole(path: Path, content: bytes) -> None:
    """Or leave the file that is there as it was. Raises ConfigError or DataError in one line."""
    folder = path.parent
    need(folder.is_dir(), f"there is no folder {plain(str(folder))}", fix="make it, or choose another")
    need(not path.is_dir(), f"{plain(str(path))} is a folder", fix="name a file in it")
    temp = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        try:
            with temp.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
