"""Rows of tokens for training: seeded, resumable to the row, and the same for any number of ranks.

Each source is packed into rows when the loader opens and shuffled anew in each epoch of its own. For every
next row the source is chosen that is furthest behind its weight, so a mixture is exact to about a row at any
moment, and the rows and tokens drawn from each source are all that is needed to go on from there.

Axes:  B rows of this rank   T1 seq_len + 1 tokens, from which T inputs and T targets are cut
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fathom.config.errors import DataError, need, plain
from fathom.data.batch import Batch as Batch  # what `next` gives, under the name of the module that gives it
from fathom.data.batch import empty_batch
from fathom.data.corpus import SPLITS, CorpusMeta
from fathom.data.pack import Rows, pack
from fathom.data.shards import Series


@dataclass(slots=True)
class _Source:
    """One source, packed; `order_R` is the shuffled order of its epoch `epoch`."""

    number: int
    name: str
    series: Series
    rows: Rows
    tokens_R: np.ndarray
    weight: float
    epoch: int = -1
    order_R: np.ndarray | None = None
    drawn_rows: int = 0
    drawn_tokens: int = 0

    def draw(self, seed: int) -> int:
        """The next row."""
        epoch, position = divmod(self.drawn_rows, len(self.rows))
        if epoch != self.epoch or self.order_R is None:
            rng = np.random.Generator(np.random.PCG64([seed, self.number, epoch]))
            self.epoch, self.order_R = epoch, rng.permutation(len(self.rows))
        row = int(self.order_R[position])
        self.drawn_rows += 1
        self.drawn_tokens += int(self.tokens_R[row])
        return row


class Loader:
    """The rows of one split of a corpus folder, drawn without end by `next` or once by `epoch`."""

    def __init__(
        self,
        corpus: str | Path,
        *,
        split: str,
        seq_len: int,
        seed: int,
        weights: Sequence[float] = (),
        packing: str = "best_fit",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Open a corpus and pack it.

        weights   share of tokens from each source; empty = those the corpus was built with, or else its sizes
        rank      of `world`: gets the rows rank, rank + world, ... of every batch
        Raises DataError when a shard is damaged or the split holds less than one row of seq_len + 1 tokens.
        """
        assert split in SPLITS, f"split {split!r} is not one of {SPLITS}"
        assert 0 <= rank < world, f"rank {rank} is not below world {world}"
        folder = Path(corpus)
        self.meta = CorpusMeta.load(folder)
        self.seq_len, self._seed, self._rank, self._world = seq_len, seed, rank, world
        self._sources = _open(self.meta, folder, split, seq_len + 1, packing, tuple(weights))
        self.tokens = sum(source.series.tokens for source in self._sources)
        _need_text(folder, split, self.tokens, seq_len + 1)
        self._identity: dict[str, Any] = {
            "corpus": self.meta.fingerprint,
            "split": split,
            "seq_len": seq_len,
            "seed": seed,
            "packing": packing,
            "weights": [source.weight for source in self._sources],
        }

    @property
    def rows(self) -> int:
        """Rows that hold every token of the split once."""
        return sum(len(source.rows) for source in self._sources)

    @property
    def epochs(self) -> dict[str, float]:
        """How often each source has been drawn, by name."""
        return {source.name: source.drawn_rows / len(source.rows) for source in self._sources}

    def next(self, rows: int) -> Batch:
        """The next `rows` rows of the global order; this rank's share of them, the rows rank::world."""
        assert rows >= self._world, f"{rows} rows cannot be shared by {self._world} ranks"
        return self._batch([self._draw() for _ in range(rows)][self._rank :: self._world])

    def epoch(self, rows: int) -> Iterator[Batch]:
        """Every row once, `rows` at a time, in an order that no seed changes; `next` is not moved.

        The order is mixed, so the first batches stand for all sources. The last batch is smaller; rows of
        padding fill it until every rank has as many rows as the others.
        """
        assert rows >= self._world, f"{rows} rows cannot be shared by {self._world} ranks"
        every = [(source, row) for source in self._sources for row in range(len(source.rows))]
        mixed = np.random.Generator(np.random.PCG64(0)).permutation(len(every)).tolist()
        for start in range(0, len(every), rows):
            chosen: list[tuple[_Source, int] | None] = [every[i] for i in mixed[start : start + rows]]
            chosen += [None] * (-len(chosen) % self._world)
            yield self._batch(chosen[self._rank :: self._world])

    def state_dict(self) -> dict[str, Any]:
        """Where `next` stands, as JSON; the number of ranks is no part of it."""
        drawn = [[source.drawn_rows, source.drawn_tokens] for source in self._sources]
        return {"identity": self._identity, "drawn": drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`: the next row will be the one due then. DataError if it is of other data."""
        for name, value in self._identity.items():
            saved = state.get("identity", {}).get(name)
            need(
                saved == value,
                f"the saved position in the data has {name} {saved}, this run {value}",
                fix="resume with the corpus and the settings of the saved run, or start a new run",
                error=DataError,
            )
        for source, (rows, tokens) in zip(self._sources, state["drawn"], strict=True):
            source.drawn_rows, source.drawn_tokens = rows, tokens

    def _draw(self) -> tuple[_Source, int]:
        """The row of the source that is furthest behind, counted with half a row more (Webster's rule)."""
        half = (self.seq_len + 1) / 2
        source = min(self._sources, key=lambda s: ((s.drawn_tokens + half) / s.weight, s.number))
        return source, source.draw(self._seed)

    def _batch(self, chosen: Sequence[tuple[_Source, int] | None]) -> Batch:
        batch = empty_batch(len(chosen), self.seq_len, self.meta.pad)
        token_BT1, segment_BT1 = batch.token_BT1.numpy(), batch.segment_BT1.numpy()
        for b, one in enumerate(chosen):
            at = 0
            for segment, (document, start, length) in enumerate(one[0].rows.row(one[1]) if one else ()):
                assert one is not None
                token_BT1[b, at : at + length] = one[0].series.piece(document, start, length)
                segment_BT1[b, at : at + length] = segment
                at += length
        return batch


def _open(
    meta: CorpusMeta, folder: Path, split: str, row: int, packing: str, weights: tuple[float, ...]
) -> list[_Source]:
    """Pack every source that has text in this split."""
    need(
        not weights or len(weights) == len(meta.sources),
        f"data.weights has {len(weights)} values for the {len(meta.sources)} sources of {plain(str(folder))}",
        fix=f"give one for each of {', '.join(meta.sources)}, or leave it empty",
        error=DataError,
    )
    all_series = meta.series(folder, split)
    chosen = weights or meta.weights or [float(series.tokens) for series in all_series]
    total = sum(chosen)
    sources = []
    for number, (name, series, weight) in enumerate(zip(meta.sources, all_series, chosen, strict=True)):
        if series.tokens:
            rows = pack(series.length_D, row, packing)
            sources.append(_Source(number, name, series, rows, rows.tokens(), weight / total))
    return sources


def _need_text(folder: Path, split: str, tokens: int, row: int) -> None:
    if split == "train":
        need(
            tokens >= row,
            f"{plain(str(folder))} has {tokens:,} tokens, less than one row of {row:,}",
            fix=f"set train.seq_len to {max(1, tokens - 1)} or less, or build a larger corpus",
            error=DataError,
        )
    need(
        tokens > 0,
        f"{plain(str(folder))} holds no text out",
        fix="build it again with data.held_out above 0",
        error=DataError,
    )
