"""Packing loses nothing, repeats nothing, overflows nowhere, and is really the best fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fathom.data.pack import Rows, best_fit, pack, stream

lengths = st.lists(st.integers(0, 60), max_size=60)
row_sizes = st.integers(1, 25)
modest = settings(max_examples=150, deadline=None)


def first_fit(pieces: list[int], row: int) -> int:
    rooms: list[int] = []
    for piece in pieces:
        for i, room in enumerate(rooms):
            if room >= piece:
                rooms[i] -= piece
                break
        else:
            rooms.append(row - piece)
    return len(rooms)


def tightest_fit(pieces: list[int], row: int) -> list[int]:
    """The textbook form: one piece after the other, longest first, each to the fullest row that has room."""
    rooms: list[int] = []
    for piece in sorted(pieces, reverse=True):
        fitting = [room for room in rooms if room >= piece]
        if fitting:
            rooms[rooms.index(min(fitting))] -= piece
        else:
            rooms.append(row - piece)
    return rooms


def cut(document_lengths: list[int], row: int) -> list[int]:
    return [min(row, n - start) for n in document_lengths for start in range(0, n, row)]


def tokens_of(rows: Rows) -> list[tuple[int, int]]:
    return [
        (d, start + i) for r in range(len(rows)) for d, start, length in rows.row(r) for i in range(length)
    ]


@pytest.mark.parametrize("packing", ["best_fit", "stream"])
@given(lengths=lengths, row=row_sizes)
@example(lengths=[], row=3)
@example(lengths=[0, 0], row=3)
@example(lengths=[6, 0, 3], row=3)
@modest
def test_every_token_is_in_exactly_one_row_and_no_row_overflows(packing: str, lengths: list[int], row: int):
    rows = pack(np.array(lengths, dtype=np.int64), row, packing)
    assert sorted(tokens_of(rows)) == [(d, i) for d, n in enumerate(lengths) for i in range(n)]
    sizes = [sum(length for _, _, length in rows.row(r)) for r in range(len(rows))]
    assert sizes == rows.tokens().tolist()
    assert all(0 < size <= row for size in sizes)
    assert all(length > 0 for r in range(len(rows)) for _, _, length in rows.row(r))


@given(lengths=lengths, row=row_sizes)
@modest
def test_best_fit_is_the_textbook_best_fit(lengths: list[int], row: int):
    rows = best_fit(np.array(lengths, dtype=np.int64), row)
    rooms = tightest_fit(cut(lengths, row), row)
    assert sorted(row - rows.tokens()) == sorted(rooms)


@given(lengths=lengths, row=row_sizes)
@modest
def test_best_fit_keeps_the_bounds(lengths: list[int], row: int):
    pieces = cut(lengths, row)
    used = len(best_fit(np.array(lengths, dtype=np.int64), row))
    assert used <= 11 / 9 * first_fit(pieces, row) + 4, "first fit uses no fewer rows than the best possible"
    assert -(-sum(pieces) // row) <= used <= 2 * sum(pieces) / row + 1, "at most one row is half empty"


@given(lengths=lengths, row=row_sizes)
@modest
def test_a_long_document_is_cut_only_at_full_rows(lengths: list[int], row: int):
    rows = best_fit(np.array(lengths, dtype=np.int64), row)
    for r in range(len(rows)):
        for document, start, length in rows.row(r):
            assert start % row == 0
            assert length == min(row, lengths[document] - start)


@given(lengths=lengths, row=row_sizes)
@modest
def test_a_stream_is_in_order_and_full_but_for_its_end(lengths: list[int], row: int):
    rows = stream(np.array(lengths, dtype=np.int64), row)
    assert tokens_of(rows) == [(d, i) for d, n in enumerate(lengths) for i in range(n)]
    assert len(rows) == -(-sum(lengths) // row)
    assert (rows.tokens()[:-1] == row).all()


def test_documents_keep_their_order_inside_a_row():
    rows = best_fit(np.array([2, 5, 3]), 10)
    assert rows.row(0) == [(0, 0, 2), (1, 0, 5), (2, 0, 3)]


def test_a_million_documents():
    lengths = np.random.Generator(np.random.PCG64(0)).integers(2, 3000, 1_000_000)
    rows = best_fit(lengths, 4097)
    assert rows.tokens().sum() == lengths.sum()
    assert rows.tokens().mean() > 0.999 * 4097
