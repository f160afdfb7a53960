"""What a run leaves behind for its report: JSON lines, and the same for TensorBoard and wandb where they are.

RUN/metrics.jsonl   one object a step: losses, rates, load balance, steps left out; null = not finite.
                    An evaluation adds a second object of its step, with "val/bpb" alone
RUN/loads.jsonl     tokens per expert since the last line, [layer][expert]: trunk first, MTP's last
RUN/samples.jsonl   what the model made of the beginning of held-out texts
RUN/events.jsonl    what happened: resumed, saved, skipped a step, went back, stopped

Every line is handed to the system whole and at once, so a killed process leaves at most a half line at the
end; whoever goes on cuts away that and what came after the checkpoint.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fathom.config.folder import disk_errors
from fathom.train.sinks import Sink

METRICS, LOADS, SAMPLES, EVENTS = "metrics.jsonl", "loads.jsonl", "samples.jsonl", "events.jsonl"
BITS_PER_BYTE = "val/bpb"


class Sample(NamedTuple):
    """The beginning of a text, and how the model went on."""

    prompt: str
    text: str


class Lines:
    """A file of JSON objects, one a line, each with its step, in the order of steps."""

    def __init__(self, path: Path, *, step: int) -> None:
        """Continue after `step` steps: lines of later ones, left by a run that died, are cut away."""
        self.path = path
        self.last: list[dict[str, Any]] = []  # what was there of `step` itself
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(self._sound(step))

    def _sound(self, step: int) -> int:
        """Bytes up to the first line that is damaged or of a later step."""
        size = 0
        with self.path.open("rb") as file:
            for text in file:
                line = _parse(text)
                if line is None or line["step"] > step:
                    break
                size += len(text)
                if line["step"] == step:
                    self.last.append(line)
        return size

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One line, given to the system before this returns; DiskError if there is no room for it."""
        left = memoryview((json.dumps({"step": step} | dict(values)) + "\n").encode())
        with disk_errors(self.path):
            while left:
                left = left[self._file.write(left) :]

    def flush(self) -> None:
        """Make the disk hold every line."""
        with disk_errors(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Release the file."""
        self._file.close()


class Journal:
    """The four files of a run, and whoever else listens to it."""

    def __init__(self, run: Path, *, step: int, sinks: Sequence[Sink] = ()) -> None:
        """Continue after `step` steps."""
        self._metrics, self._loads, self._events = (
            Lines(run / name, step=step) for name in (METRICS, LOADS, EVENTS)
        )
        self._sinks = sinks
        done = any(BITS_PER_BYTE in line for line in self._metrics.last)
        self.evaluated = step if done else -1
        self._samples = Lines(run / SAMPLES, step=step if done else step - 1)  # else they are made again

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """The scalars of a step; values that are not finite become null, which JSON knows."""
        self._metrics.write(step, {k: v if math.isfinite(v) else None for k, v in values.items()})
        for sink in self._sinks:
            sink.scalars(step, values)

    def evaluation(self, step: int, bits_per_byte: float, samples: Sequence[Sample]) -> None:
        """Bits per byte of held-out text after `step`, and texts; `evaluated` is the last such step."""
        for number, sample in enumerate(samples):
            self._samples.write(step, sample._asdict())
            for sink in self._sinks:
                sink.text(step, f"samples/{number}", f"{sample.prompt}▸{sample.text}")
        self.metrics(step, {BITS_PER_BYTE: bits_per_byte})
        self.evaluated = step

    def loads(self, step: int, count_LE: Sequence[Sequence[int]]) -> None:
        """Tokens per expert since the last time."""
        self._loads.write(step, {"counts": count_LE})
        shares = [len(counts) * n / max(sum(counts), 1) for counts in count_LE for n in counts]
        for sink in self._sinks:
            sink.histogram(step, "moe/load", shares)  # 1 = the mean of the layer

    def event(self, step: int, kind: str, detail: str) -> None:
        """Something that does not happen at every step."""
        self._events.write(step, {"kind": kind, "detail": detail})

    def flush(self) -> None:
        """Make the disk hold what was written: before a checkpoint, whose past it is."""
        for lines in (self._metrics, self._loads, self._samples, self._events):
            lines.flush()

    def close(self) -> None:
        """Release the files."""
        for lines in (self._metrics, self._loads, self._samples, self._events):
            lines.close()
        for sink in self._sinks:
            sink.close()


def _parse(text: bytes) -> dict[str, Any] | None:
    """A whole line that says its step; None for the one that a killed process was writing."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(line, dict) and isinstance(line.get("step"), int) and text.endswith(b"\n")
    return line if sound else None
