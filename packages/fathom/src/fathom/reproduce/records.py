"""What the folder of a run says: how far it is, its losses, the batches it read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fathom.checkpoint.find import CHECKPOINTS, step_folders
from fathom.checkpoint.json_file import read_json
from fathom.checkpoint.training import STATE, TRAINER
from fathom.config.errors import DataError, need
from fathom.config.train import TrainConfig
from fathom.report import columns
from fathom.report.curves import read_curves
from fathom.report.jsonl import Lines, number
from fathom.train.budget import Budget, Position
from fathom.train.log import BITS_PER_BYTE, EVENTS, METRICS

TAIL = 8192  # bytes at the end of metrics.jsonl that hold its last lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A run that has ended; one value per step."""

    losses: Sequence[float]  # nats per token
    tokens: Sequence[int]  # read so far
    seconds: float  # in steps
    bits_per_byte: float  # of held-out text, at the end
    skipped: int  # steps left out because of a spike
    diverged: bool


def read_record(run: Path) -> Record:
    """The record of the run in `run`."""
    curves = read_curves(run)
    return Record(
        losses=list(curves[columns.LOSS]),
        tokens=[int(n) for n in curves[columns.TOKENS]],
        seconds=curves.last(columns.SECONDS),
        bits_per_byte=curves.last(columns.BPB),
        skipped=int(max(curves[columns.SKIPPED], default=0)),
        diverged=has_diverged(run),
    )


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a run that may be going is."""

    at: Position
    loss: float  # NaN before the first step
    evaluated: bool  # at the end


def reached(run: Path) -> Reached:
    """By the last lines of its record."""
    at, loss, evaluated = Position(), float("nan"), False
    for line in _tail(run / METRICS):
        evaluated = evaluated or BITS_PER_BYTE in line
        if columns.LOSS in line:
            at = Position(line["step"], line[columns.TOKENS], line[columns.SECONDS])
            loss, evaluated = number(line[columns.LOSS]), False
    return Reached(at, loss, evaluated)


def is_finished(run: Path, train: TrainConfig) -> bool:
    """Whether a run has spent its budget, saved and measured; or has diverged, which ends it too."""
    if has_diverged(run):
        return True
    last, saved = reached(run), step_folders(run / CHECKPOINTS)
    spent = last.at.step > 0 and Budget(train).progress(last.at) >= 1.0
    return spent and last.evaluated and bool(saved) and saved[-1][0] == last.at.step


def has_diverged(run: Path) -> bool:
    """Whether the last thing that happened in a run is that too many of its steps failed."""
    kind = None
    for _, line in Lines(run / EVENTS):
        kind = line.get("kind")
    return kind == "diverged"


def check_same_batches(run: Path, other: Path) -> None:
    """DataError unless two runs read the same rows in the same order.

    The rows follow from the corpus, its fingerprint included, the seed, the packing and the weights of the
    sources, which every checkpoint states with the rows drawn so far; how many tokens each batch held is in
    the record of every step.
    """
    ours, theirs = _rows(run), _rows(other)
    a, b = read_record(run).tokens, read_record(other).tokens
    both = min(len(a), len(b))  # one may have diverged
    same = a[:both] == b[:both] and ours["identity"] == theirs["identity"]
    if len(a) == len(b):
        same = same and ours == theirs
    need(
        same,
        f"{run} and {other} did not read the same batches",
        fix=f"delete {run.parent} and begin anew",
        error=DataError,
    )


def _rows(run: Path) -> dict[str, Any]:
    saved = step_folders(run / CHECKPOINTS)
    anew = "delete that folder; the same command makes it anew"
    need(bool(saved), f"{run} has no checkpoint", fix=anew, error=DataError)
    rows: dict[str, Any] = read_json(saved[-1][1] / STATE / TRAINER)["loader"]
    return rows


def _tail(path: Path) -> list[dict[str, Any]]:
    """The last whole lines of a record; none where there is no file."""
    try:
        with path.open("rb") as file:
            begin = max(file.seek(0, 2) - TAIL, 0)
            file.seek(begin)
            text = file.read()
    except FileNotFoundError:
        return []
    whole = text.split(b"\n")[1 if begin else 0 : -1]
    return [json.loads(line) for line in whole]
