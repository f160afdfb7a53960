"""Everything that a run's folder says, as far as it says it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fathom.config.errors import ConfigError, DataError, need, plain
from fathom.report.curves import METRICS, Curves, read_curves
from fathom.report.jsonl import Lines, is_step, read_object, unreadable
from fathom.report.loads import MOST_CELLS, Loads, read_loads

RECIPE = "recipe.toml"
NEAREST = 3  # runs that a message names
DEEPEST = 4  # tables within tables that a recipe may have, with room to spare
DEFAULT = "default"  # the origin of a setting that nobody set
UNKNOWN = "not recorded"


class Event(NamedTuple):
    """Something that happened at a step: spike, not finite, rollback, resumed, saved, stopped, diverged."""

    step: int
    kind: str
    detail: str


class Sample(NamedTuple):
    """What the model made of a prompt at a step."""

    step: int
    prompt: str
    text: str


@dataclass
class Run:
    """One run, read."""

    name: str  # unique among those of a page
    folder: Path
    curves: Curves
    loads: Loads | None
    events: list[Event]
    samples: list[Sample]
    about: dict[str, Any]
    settings: dict[str, Any]  # dotted names

    @property
    def origin(self) -> dict[str, str]:
        """Where each setting came from, as far as it is recorded."""
        return {k: v for k, v in table(self.about, "origin").items() if isinstance(v, str)}

    def count(self, *kinds: str) -> int:
        """Events of these kinds."""
        return sum(event.kind in kinds for event in self.events)

    def whole(self, name: str) -> int | None:
        """A setting that is a whole number; None if it is not there."""
        value = self.settings.get(name)
        return value if is_step(value) else None


def read_runs(folders: Sequence[Path], *, cells: int = MOST_CELLS) -> list[Run]:
    """The runs in `folders`, in that order.

    errors   ConfigError for a folder that holds no run or is named twice, DataError for files it cannot read
    """
    seen: dict[Path, Path] = {}
    for folder in folders:
        check_run(folder)
        first = seen.setdefault(folder.resolve(), folder)
        need(
            first is folder,
            f"{plain(str(folder))} is named twice" + ("" if first == folder else f", also as {first}"),
            fix="give each run once",
        )
    names = short_names([folder.resolve() for folder in folders])
    return [_read(folder, name, cells // len(folders)) for folder, name in zip(folders, names, strict=True)]


def check_run(folder: Path) -> None:
    """ConfigError that names the nearest runs unless `folder` holds one."""
    name = plain(str(folder))
    try:
        there, directory, run = folder.exists(), folder.is_dir(), (folder / METRICS).exists()
    except (OSError, ValueError) as error:  # may not be entered; a zero byte; a name of 300 letters
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read {name} ({why}). Fix: give the folder of a run") from None
    need(there, f"{name} does not exist", fix=_instead(folder))
    need(directory, f"{name} is a file", fix=f"give the folder of the run, such as {folder.parent}")
    need(run, f"{name} is no run: it has no {METRICS}", fix=_instead(folder))


def _instead(folder: Path) -> str:
    """Runs in and beside `folder`, those of a similar name first."""
    near: list[Path] = []
    for place in (folder, folder.parent, folder.parent.parent):
        try:
            near += [path for path in sorted(place.iterdir()) if (path / METRICS).is_file()]
        except OSError:
            continue
    alike = difflib.get_close_matches(folder.name, [path.name for path in near], NEAREST)
    near = list(dict.fromkeys(near))
    near.sort(key=lambda path: alike.index(path.name) if path.name in alike else NEAREST)
    if not near:
        return "give the folder of a run, which `fathom train` writes"
    return f"use {' or '.join(plain(str(path)) for path in near[:NEAREST])}"


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, and as many more as tell it from the others."""
    names = [path.name or str(path) for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        twice = {name for name in names if names.count(name) > 1}
        names = [
            "/".join(path.parts[-depth:]) if name in twice else name
            for path, name in zip(paths, names, strict=True)
        ]
    return names


def _read(folder: Path, name: str, cells: int) -> Run:
    curves = read_curves(folder)
    need(
        len(curves) > 0,
        f"{plain(str(folder / METRICS))} holds no step yet",
        fix="wait for the run's first step, or give another run",
        error=DataError,
    )
    about = read_object(folder / "about.json")
    return Run(
        name=name,
        folder=folder,
        curves=curves,
        loads=read_loads(folder, cells=cells),
        events=[
            Event(step, *_texts(line, "kind", "detail"))
            for step, line in Lines(folder / "events.jsonl")
            if isinstance(line.get("kind"), str)
        ],
        samples=[
            Sample(step, *_texts(line, "prompt", "text"))
            for step, line in Lines(folder / "samples.jsonl")
            if isinstance(line.get("text"), str)
        ],
        about=about,
        settings=dict(flatten(table(about, "recipe") or _recipe(folder / RECIPE))),
    )


def _texts(line: Mapping[str, Any], *keys: str) -> tuple[str, str]:
    first, second = (str(line.get(key) or "") for key in keys)
    return first, second


def _recipe(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):  # damaged: the page does without
        return {}
    except OSError as error:
        raise unreadable(path, error) from None


def table(of: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A table inside `of`, empty where there is none."""
    value = of.get(key)
    return value if isinstance(value, dict) else {}


def flatten(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values, in the order of `nested`; below DEEPEST tables a value is shown as it is."""
    found: list[tuple[str, Any]] = []
    for key, value in nested.items():
        inner = isinstance(value, dict) and prefix.count(".") < DEEPEST
        found += flatten(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", value)]
    return found
