"""Which pieces of which documents fill which row of tokens.

Best fit (Ding et al. 2024, arXiv 2404.10830, which report section 4.1 follows): documents longer than a row
are cut into rows first, then the longest piece left goes to the row in which it leaves the least room.
Stream: documents are concatenated and cut every `row` tokens.

Axes:  D documents   P pieces   R rows
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as runs of pieces: row r holds pieces first_R1[r] to first_R1[r + 1]. All arrays int64."""

    document_P: np.ndarray
    start_P: np.ndarray  # offset of the piece in its document, tokens
    length_P: np.ndarray  # tokens
    first_R1: np.ndarray

    def __len__(self) -> int:
        return len(self.first_R1) - 1

    def tokens(self) -> np.ndarray:
        """Tokens in each row, int64 [R]; never more than the row holds."""
        total_P1 = np.concatenate([[0], np.cumsum(self.length_P)])
        return np.diff(total_P1[self.first_R1])

    def row(self, index: int) -> list[tuple[int, int, int]]:
        """The (document, start, length) of every piece of one row."""
        part = slice(self.first_R1[index], self.first_R1[index + 1])
        columns = (column[part].tolist() for column in (self.document_P, self.start_P, self.length_P))
        return list(zip(*columns, strict=True))


def pack(length_D: np.ndarray, row: int, packing: str) -> Rows:
    """Fill rows of `row` tokens by "best_fit" or "stream". Every token is in exactly one row."""
    return {"best_fit": best_fit, "stream": stream}[packing](length_D, row)


def stream(length_D: np.ndarray, row: int) -> Rows:
    """Concatenate and cut; every row but the last is full. O(D + R)."""
    end_D = np.cumsum(length_D, dtype=np.int64)
    total = int(end_D[-1]) if len(end_D) else 0
    cut_P = np.unique(np.concatenate([end_D - length_D, np.arange(0, total, row)]))
    cut_P = cut_P[cut_P < total]  # empty documents at the end
    length_P = np.diff(np.append(cut_P, total))
    document_P = np.searchsorted(end_D, cut_P, side="right")
    start_P = cut_P - (end_D - length_D)[document_P]
    first_R1 = np.searchsorted(cut_P, np.append(np.arange(0, total, row), total))
    return Rows(document_P, start_P, length_P, first_R1)


def best_fit(length_D: np.ndarray, row: int) -> Rows:
    """Best fit, longest first: at most 11/9 of the fewest rows possible, plus 4 (Johnson et al. 1974).

    Pieces keep the order of their documents inside a row. Cost O(P log P): pieces of one length are placed
    together, and the tightest row is found with one bit per possible room.
    """
    document_P, start_P, length_P = _cut(length_D, row)
    by_length = np.argsort(-length_P, kind="stable")
    lengths, counts = np.unique(-length_P, return_counts=True)
    row_P = np.empty(len(length_P), dtype=np.int64)
    rooms = _Rooms(row)
    done = 0
    for length, count in zip((-lengths).tolist(), counts.tolist(), strict=True):
        row_P[by_length[done : done + count]] = rooms.place(length, count)
        done += count
    order = np.argsort(row_P, kind="stable")
    first_R1 = np.searchsorted(row_P[order], np.arange(rooms.rows + 1))
    return Rows(document_P[order], start_P[order], length_P[order], first_R1)


class _Rooms:
    """Rows by the room they have left; bit r of `open` is set when some row has r tokens of room."""

    def __init__(self, row: int) -> None:
        self.row, self.rows, self.open = row, 0, 0
        self.with_room: dict[int, list[int]] = {}

    def place(self, length: int, count: int) -> np.ndarray:
        """Best fit of `count` pieces of one length: the row of each.

        After a piece, its row has the least room that may still hold the next one, so it takes all that fit.
        """
        placed: list[np.ndarray] = []
        while count:
            above = self.open >> length
            room = length + (above & -above).bit_length() - 1 if above else self.row
            each = room // length
            wanted = -(-count // each)
            rows = self._take(room, wanted) if above else self._new(wanted)
            full, rest = min(len(rows), count // each), 0
            if full < len(rows):
                rest = count - full * each
                self._give(rows[full:], room - rest * length)
            self._give(rows[:full], room - each * length)
            placed += [np.repeat(np.array(rows[:full], dtype=np.int64), each), np.array(rows[full:] * rest)]
            count -= full * each + rest
        return np.concatenate(placed).astype(np.int64)

    def _new(self, wanted: int) -> list[int]:
        self.rows += wanted
        return list(range(self.rows - wanted, self.rows))

    def _take(self, room: int, wanted: int) -> list[int]:
        rows = self.with_room[room]
        taken = rows[-wanted:]
        del rows[-wanted:]
        if not rows:
            self.open &= ~(1 << room)
        return taken

    def _give(self, rows: list[int], room: int) -> None:
        if rows and room:
            self.with_room.setdefault(room, []).extend(rows)
            self.open |= 1 << room


def _cut(length_D: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pieces of at most `row` tokens: document_P, start_P, length_P."""
    pieces_D = -(-length_D.astype(np.int64) // row)
    document_P = np.repeat(np.arange(len(length_D)), pieces_D)
    nth_P = np.arange(len(document_P)) - np.repeat(np.cumsum(pieces_D) - pieces_D, pieces_D)
    start_P = nth_P * row
    return document_P, start_P, np.minimum(length_D[document_P] - start_P, row)
