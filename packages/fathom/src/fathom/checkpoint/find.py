"""Which checkpoints a run has, and which of them a path means.

RUN/checkpoints/step-000030/{model.safetensors, config.json, tokenizer.json, ..., state/}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from pathlib import Path

from fathom.checkpoint.inventory import CONFIG, has_weights, refuse_pickles, take_inventory
from fathom.checkpoint.manifest import check_sizes
from fathom.checkpoint.training import check_training
from fathom.config.errors import DataError
from fathom.config.folder import delete_folder, disk_errors

CHECKPOINTS = "checkpoints"
STEP = re.compile(r"step-(\d{6,})")
NEAREST = 3  # candidates in a message


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of `step` belongs."""
    return Path(run) / CHECKPOINTS / f"step-{step:06d}"


def step_folders(checkpoints: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint in `checkpoints`, oldest first; unfinished ones have other names."""
    if not checkpoints.is_dir():
        return []
    found = ((STEP.fullmatch(path.name), path) for path in checkpoints.iterdir() if path.is_dir())
    return sorted((int(match[1]), path) for match, path in found if match)


def problem(folder: Path, *, resumable: bool = False) -> str | None:
    """What is wrong with a checkpoint (with `resumable`, also with what only its run reads); None = nothing.

    By names, shapes and lengths; no weight is read. `fathom.checkpoint.manifest.verify` reads them all.
    """
    try:
        config = take_inventory(folder).config
        if resumable:
            check_training(folder, config)
            check_sizes(folder)
    except DataError as error:
        return str(error)
    return None


def latest(run: Path, *, resumable: bool = False) -> Path | None:
    """The newest checkpoint of `run` with nothing wrong; None if it has none at all.

    errors   DataError if it has some and every one is damaged: starting anew would hide that
    """
    return _newest_sound(Path(run) / CHECKPOINTS, resumable)


def resolve(path: Path | str) -> Path:
    """The model folder that `path` means: itself, or the newest sound checkpoint of a run.

    errors   DataError that says what is missing and names the nearest folders that would do
    """
    path = Path(path)
    with disk_errors(path):  # a name that is too long, say
        there = path.exists()
    if not there:
        raise DataError(f"{path} does not exist. Fix: {_instead(path.parent, path.name)}")
    if path.is_file():
        raise DataError(f"{path} is a file. Fix: give the folder it is in, {path.parent}")
    if has_weights(path):
        return path
    for checkpoints in (path / CHECKPOINTS, path):
        found = _newest_sound(checkpoints, resumable=False)
        if found is not None:
            return found
    refuse_pickles(path)
    lacking = "safetensors weights" if (path / CONFIG).is_file() else f"{CONFIG} and no checkpoints"
    raise DataError(f"{path} is no model: it has no {lacking}. Fix: {_instead(path, '')}")


def prune(
    run: Path, keep: int, *, written: Path | None = None, damaged: Collection[Path] = ()
) -> list[Path]:
    """Delete all but the `keep` newest checkpoints of `run`; returns what was deleted.

    Call it after a save: `written`, the folder just saved, counts as the newest whatever its step. A damaged
    checkpoint does not count as kept; one that is newer than the last to keep stays, to be looked at.
    damaged   those whose bytes are known to have changed: only lengths are looked at here
    """
    assert keep >= 1, f"keep={keep} would delete everything"
    folders = [folder for _, folder in reversed(step_folders(Path(run) / CHECKPOINTS))]
    folders.sort(key=lambda folder: folder != written)  # stable: the one just written, then from new to old
    kept = 0
    deleted = []
    for folder in folders:
        if kept < keep:
            kept += folder not in damaged and problem(folder, resumable=True) is None
        else:
            delete_folder(folder)
            deleted.append(folder)
    return deleted


def _newest_sound(checkpoints: Path, resumable: bool) -> Path | None:
    first_problem = None
    for _, folder in reversed(step_folders(checkpoints)):
        wrong = problem(folder, resumable=resumable)
        if wrong is None:
            return folder
        first_problem = first_problem or wrong
    if first_problem is not None:
        raise DataError(f"no checkpoint in {checkpoints} is sound; the newest: {first_problem}")
    return None


def _instead(folder: Path, name: str) -> str:
    """Advice: the models in or just below `folder`, those whose name is like `name` first."""
    if not folder.is_dir():
        return "check the path"
    near = [p for p in (folder, *folder.parents[:1], *_below(folder), *_below(folder.parent)) if _is_model(p)]
    near = list(dict.fromkeys(near))
    alike = difflib.get_close_matches(name, [p.name for p in near], NEAREST)
    near.sort(key=lambda p: alike.index(p.name) if p.name in alike else NEAREST)
    if not near:
        return f"give a folder with {CONFIG} and model.safetensors, or a run made by `fathom train`"
    return f"use {' or '.join(str(p) for p in near[:NEAREST])}"


def _below(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []


def _is_model(folder: Path) -> bool:
    return has_weights(folder) or bool(step_folders(folder / CHECKPOINTS)) or bool(step_folders(folder))
