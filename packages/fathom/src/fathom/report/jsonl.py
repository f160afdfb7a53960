"""Lines of JSON that another process may be writing, or may have been killed while writing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from fathom.config.errors import DataError

MOST_STEPS = 2**53  # what a number in the page can count exactly; a larger step is damage


class Lines:
    """The objects of one .jsonl file in order; `damaged` counts the lines left out, once all are read."""

    def __init__(self, path: Path) -> None:
        self.path, self.damaged = path, 0

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(step, object) of every sound line; none where there is no such file.

        errors   DataError if the file is there and cannot be read
        """
        try:
            with self.path.open("rb") as file:
                for text in file:
                    line = _object(text)
                    step = line.get("step") if line is not None else None
                    if line is not None and is_step(step):
                        yield step, line
                    elif text.strip():
                        self.damaged += 1
        except FileNotFoundError:
            return
        except OSError as error:
            raise unreadable(self.path, error) from None


def is_step(value: Any) -> TypeGuard[int]:
    """Whether `value` counts steps."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_STEPS


def number(value: Any) -> float:
    """A finite float, NaN for anything else: null, text, true, whole numbers beyond the largest float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        found = float(value)
    except OverflowError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def read_object(path: Path) -> dict[str, Any]:
    """The one object of a .json file; empty where there is none, or no sound one."""
    try:
        return _object(path.read_bytes()) or {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that is there and cannot be read."""
    return DataError(f"cannot read {path} ({error.strerror or error}). Fix: make it a file you may read")


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):  # cut short, not UTF-8, numbers of 4301 digits, brackets without end
        return None
    return line if isinstance(line, dict) else None
