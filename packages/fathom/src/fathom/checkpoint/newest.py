"""The newest checkpoint of a run whose every byte is what was written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fathom.checkpoint.find import CHECKPOINTS, problem, step_folders
from fathom.checkpoint.load import load_checkpoint
from fathom.checkpoint.training import TrainingState
from fathom.config.errors import DataError
from fathom.config.model import ModelConfig

log = logging.getLogger(__name__)


class Saved(NamedTuple):
    """A checkpoint in memory, and those that were newer but damaged."""

    folder: Path
    config: ModelConfig
    state: dict[str, Tensor]
    training: TrainingState
    passed_over: dict[Path, str]  # what is wrong with each


def load_newest(run: Path) -> Saved | None:
    """The newest intact checkpoint of `run` that it can go on from; None if `run` has none at all.

    Each damaged one that is passed over is said in one line.
    errors   DataError if there are some and none is intact: starting anew would hide that
    """
    wrong: dict[Path, str] = {}
    for _, folder in reversed(step_folders(Path(run) / CHECKPOINTS)):
        found = _load(folder)
        if not isinstance(found, str):
            return Saved(folder, *found, wrong)
        wrong[folder] = found
        log.warning("passed over a damaged checkpoint: %s", found)
    if wrong:
        first_problem = next(iter(wrong.values()))
        raise DataError(f"no checkpoint in {Path(run) / CHECKPOINTS} is intact; the newest: {first_problem}")
    return None


def _load(folder: Path) -> tuple[ModelConfig, dict[str, Tensor], TrainingState] | str:
    """What is in the checkpoint, or what is wrong with it."""
    unsound = problem(folder, resumable=True)
    if unsound is not None:
        return unsound
    try:
        return load_checkpoint(folder)
    except DataError as error:
        return str(error)
