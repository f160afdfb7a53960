"""JSON files of a checkpoint: objects, one per file, whose damage is named in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fathom.config.errors import DataError

FIX = "copy the file again from where it came from, or use another checkpoint"


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; DataError if the file is missing, is not JSON, or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Fix: {FIX}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Fix: {FIX}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({' '.join(str(error).split())}). Fix: {FIX}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a JSON {type(value).__name__}, not an object. Fix: {FIX}")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` in the order of its keys; only finite numbers, which every reader takes."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
