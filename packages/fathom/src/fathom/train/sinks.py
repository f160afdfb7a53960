"""Other places that a run's figures go to: TensorBoard and wandb, each where it is installed."""

from __future__ import annotations

import contextlib
import hashlib
import html
import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fathom.config.folder import disk_errors

BINS = 40  # bars of a histogram
PROJECT = "fathom"


class Sink(Protocol):
    """Something that is told what a run measures."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a step, by name."""
        ...

    def text(self, step: int, name: str, text: str) -> None:
        """What the model wrote."""
        ...

    def histogram(self, step: int, name: str, values: Sequence[float]) -> None:
        """How some values are spread."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class TensorBoard:
    """RUN/tensorboard, written event by event: a full disk is then the system's own error, where it hits.

    Raises ImportError where tensorboard is not installed.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        """Continue after `step` steps: TensorBoard forgets what it has of later ones."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self.folder = Event, folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
            self._file = (folder / name).open("ab", buffering=0)
        self._writer = RecordWriter(self._file)
        self._write(step + 1, file_version="brain.Event:2")
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        rows = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step, summary=Summary(value=rows))

    def text(self, step: int, name: str, text: str) -> None:
        """See `Sink`."""
        from torch.utils.tensorboard.summary import text as summary

        self._write(step, summary=summary(name, text))

    def histogram(self, step: int, name: str, values: Sequence[float]) -> None:
        """See `Sink`."""
        import numpy as np
        from torch.utils.tensorboard.summary import histogram as summary

        if values:
            self._write(step, summary=summary(name, np.array(values), BINS))

    def close(self) -> None:
        """See `Sink`."""
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        with disk_errors(self.folder):
            self._writer.write(
                self._event(wall_time=time.time(), step=step, **content).SerializeToString()
            )


class WandB:
    """A run of Weights & Biases. Whatever goes wrong there is one warning, never the end of the training."""

    def __init__(self, wandb: Any, run: Any, say: Callable[[str], None]) -> None:
        self._wandb, self._run, self._say = wandb, run, say

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        self._log(step, lambda: dict(values))

    def text(self, step: int, name: str, text: str) -> None:
        """See `Sink`."""
        self._log(step, lambda: {name: self._wandb.Html(f"<pre>{html.escape(text)}</pre>")})

    def histogram(self, step: int, name: str, values: Sequence[float]) -> None:
        """See `Sink`."""
        self._log(step, lambda: {name: self._wandb.Histogram(list(values))})

    def close(self) -> None:
        """See `Sink`."""
        self._guarded(lambda: self._run.finish())

    def _log(self, step: int, row: Callable[[], dict[str, Any]]) -> None:
        self._guarded(lambda: self._run.log(row(), step=step))

    def _guarded(self, act: Callable[[], None]) -> None:
        if self._run is None:
            return
        try:
            act()
        except Exception as error:  # theirs, of whatever kind
            self._run = None
            self._say(f"wandb is told no more: {_short(error)}")


def open_sinks(
    run: Path, *, step: int, wandb: str, about: Mapping[str, Any], say: Callable[[str], None]
) -> list[Sink]:
    """Those that are installed.

    wandb    the setting train.log.wandb: "auto" or "off"
    about    what about.json says
    """
    sinks: list[Sink] = []
    with contextlib.suppress(ImportError):
        sinks.append(TensorBoard(run / "tensorboard", step=step))
    if wandb == "auto" and importlib.util.find_spec("wandb") is not None:
        try:
            sinks.append(open_wandb(run, about, say))
        except Exception as error:  # theirs, of whatever kind
            say(f"wandb is left out: {_short(error)}")
    return sinks


def open_wandb(run: Path, about: Mapping[str, Any], say: Callable[[str], None]) -> WandB:
    """A wandb run in the mode that the user set; else online if logged in, else offline. Asks nothing."""
    wandb = importlib.import_module("wandb")
    mode = wandb.setup().settings.mode  # it has read WANDB_MODE, and says "online" where nobody said anything
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        mode = "offline"
    name = str(run.resolve())
    identity = hashlib.sha256(f"{name} {about.get('started')}".encode()).hexdigest()[:16]
    started = wandb.init(
        project=PROJECT,
        name=run.name,
        id=identity,
        resume="allow",
        dir=str(run),
        mode=mode,
        config=dict(about.get("recipe", {})),
        settings={"silent": True, "console": "off"},  # the terminal is the live line's
    )
    return WandB(wandb, started, say)


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
