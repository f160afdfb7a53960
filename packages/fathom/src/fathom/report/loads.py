"""Tokens per expert over time, as the bytes of a heat map.

Axes:  L MoE layers, MTP's last   E experts   C columns: equal stretches of time
"""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import add
from pathlib import Path
from typing import Any

from fathom.report.jsonl import Lines, is_step

LOADS = "loads.jsonl"
MOST_CELLS = 1_000_000  # of all heat maps of one page: 1.3 MB as base64
MOST_COLUMNS = 240  # finer than this nothing more is seen
EVEN = 128  # the byte of an expert with exactly its even share; 0 = the layer saw no token
PER_OCTAVE = 32  # bytes for a factor of 2: one byte is 2.2%, and 1 to 255 spans 1/15.7 to 15.7


@dataclass
class Loads:
    """RUN/loads.jsonl in `most` to 2 `most` columns, each the sum over equally many lines."""

    most: int  # half of the columns held; beyond twice as many, neighbours are added up
    shape: tuple[int, int] = (0, 0)  # L, E
    steps: array[int] = field(default_factory=lambda: array("q"))  # the last step of each column
    counts: list[array[float]] = field(default_factory=list)  # [C][L*E]
    damaged: int = 0  # lines left out: cut short, or of another shape
    stride: int = 1  # lines that make a full column
    _open: int = 0  # lines in the last column

    def add(self, step: int, flat: Sequence[float]) -> None:
        """One line. An earlier step than the last begins a second attempt there."""
        while self.steps and step <= self.steps[-1]:
            self.steps.pop()
            self.counts.pop()
            self._open = self.stride
        if self.steps and self._open < self.stride:
            self.steps[-1] = step
            self.counts[-1] = array("d", map(add, self.counts[-1], flat))
            self._open += 1
            return
        if len(self.steps) == 2 * self.most:
            self._halve()
        self.steps.append(step)
        self.counts.append(array("d", flat))
        self._open = 1

    def _halve(self) -> None:
        pairs = zip(self.counts[::2], self.counts[1::2], strict=True)
        self.counts = [array("d", map(add, a, b)) for a, b in pairs]
        self.steps = self.steps[1::2]
        self.stride *= 2

    def level_bytes(self) -> bytes:
        """One byte per cell, layer by layer, in a layer expert by expert, C columns each: [L, E, C]."""
        L, E = self.shape
        levels = bytearray(L * E * len(self.counts))
        for c, flat in enumerate(self.counts):
            for layer in range(L):
                part = flat[layer * E : (layer + 1) * E]
                mean = sum(part) / E
                for e, count in enumerate(part):
                    levels[(layer * E + e) * len(self.counts) + c] = level(count, mean)
        return bytes(levels)

    def violations(self) -> list[float]:
        """MaxVio of each layer in the last column: (largest load - mean) / mean (arXiv 2408.15664, 4.1)."""
        L, E = self.shape
        parts = [self.counts[-1][layer * E : (layer + 1) * E] for layer in range(L)]
        return [max(part) * E / sum(part) - 1.0 if sum(part) else 0.0 for part in parts]

    def packed(self, labels: Sequence[str]) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "layers": list(labels),
            "experts": self.shape[1],
            "steps": list(self.steps),
            "violations": [round(v, 4) for v in self.violations()],
            "levels": base64.b64encode(self.level_bytes()).decode("ascii"),
        }


def level(count: float, mean: float) -> int:
    """The byte of a load: EVEN + PER_OCTAVE * log2(count / mean), within 1 and 255; 0 without a mean."""
    if mean <= 0.0:
        return 0
    if count <= 0.0:
        return 1
    return min(max(round(EVEN + PER_OCTAVE * math.log2(count / mean)), 1), 255)


def read_loads(run: Path, *, cells: int = MOST_CELLS) -> Loads | None:
    """RUN/loads.jsonl in at most `cells` cells; None where there is no load."""
    lines = Lines(run / LOADS)
    loads: Loads | None = None
    other = 0
    for step, line in lines:
        shape, flat = _counts(line.get("counts"))
        if loads is None and flat:
            columns = max(min(MOST_COLUMNS, cells // len(flat)), 2)
            loads = Loads(most=columns // 2, shape=shape)
        if loads is None or shape != loads.shape:
            other += 1
            continue
        loads.add(step, flat)
    if loads is not None:
        loads.damaged = lines.damaged + other
    return loads


def _counts(rows: Any) -> tuple[tuple[int, int], list[float]]:
    """(L, E) and the counts end to end; (0, 0) and nothing unless they are a table of counts."""
    nothing: tuple[tuple[int, int], list[float]] = (0, 0), []
    if not (isinstance(rows, list) and rows and all(isinstance(row, list) for row in rows)):
        return nothing
    flat = [count for row in rows for count in row]
    even = all(len(row) == len(rows[0]) for row in rows)
    if not (flat and even and all(is_step(count) for count in flat)):
        return nothing
    return (len(rows), len(rows[0])), flat


def layer_labels(layers: int, dense: int | None, trunk: int | None) -> list[str]:
    """Names of the MoE layers: the trunk's by their place in it, counted from 1, MTP's modules after them.

    dense, trunk   dense layers and layers of the trunk; None where a run does not say
    """
    if dense is None or trunk is None or not 0 <= trunk - dense <= layers:
        return [f"MoE layer {i + 1}" for i in range(layers)]
    own = [f"layer {dense + i + 1}" for i in range(trunk - dense)]
    return own + [f"MTP {k + 1}" for k in range(layers - len(own))]
