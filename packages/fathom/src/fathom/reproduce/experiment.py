"""The folder of an experiment of several runs: experiment.json says which, so that it can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fathom.config.dump import to_flat
from fathom.config.errors import ConfigError, need, plain
from fathom.config.folder import check_folder, disk_errors, write_file
from fathom.config.recipe import Recipe
from fathom.train.stop import only_run_in

EXPERIMENT = "experiment.json"
HIDDEN = "."  # what our own locks and half-written files begin with
ANOTHER = "give another --out"


@contextmanager
def experiment_in(out: Path, command: str, runs: Mapping[str, Recipe]) -> Iterator[None]:
    """Hold `out` for this process and these runs.

    command   what makes it, such as "fathom reproduce fp8 --quick"
    raises    ConfigError where `out` holds something else, or the same of another recipe
    """
    check_folder(out)
    there = out / EXPERIMENT
    if there.exists():
        _check_same(out, _read(there), command, runs)
    elif out.exists():
        strange = sorted(path.name for path in out.iterdir() if not path.name.startswith(HIDDEN))
        what = f"{plain(str(out))} holds something else ({plain(strange[0]) if strange else ''})"
        need(not strange, what, fix=ANOTHER)
    with only_run_in(out):
        if not there.exists():
            stated = {"command": command, "runs": {name: to_flat(recipe) for name, recipe in runs.items()}}
            write_file(there, json.dumps(stated, indent=1) + "\n")
        yield


def _check_same(out: Path, stated: Mapping[str, Any], command: str, runs: Mapping[str, Recipe]) -> None:
    folder = plain(str(out))
    made = stated.get("command")
    what = f"{folder} holds what `{made}` makes, not `{command}`"
    need(made == command, what, fix=f"{ANOTHER}, or call that")
    before, now = stated.get("runs"), {name: to_flat(recipe) for name, recipe in runs.items()}
    if before == json.loads(json.dumps(now)):
        return
    other = _first_difference(before, now)
    need(False, f"{folder} was begun with another recipe ({other})", fix=f"{ANOTHER}, or delete that folder")


def _first_difference(before: Any, now: Mapping[str, Mapping[str, Any]]) -> str:
    if not isinstance(before, dict) or set(before) != set(now):
        return "other runs"
    for name, settings in now.items():
        for key, value in settings.items():
            if before[name].get(key) != value:
                return f"{name}: {key} was {before[name].get(key)!r}, is {value!r}"
    return "other settings"


def _read(path: Path) -> dict[str, Any]:
    try:
        with disk_errors(path):
            stated = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        stated = None
    if not isinstance(stated, dict):
        raise ConfigError(f"{plain(str(path))} is damaged. Fix: {ANOTHER}")
    return stated
