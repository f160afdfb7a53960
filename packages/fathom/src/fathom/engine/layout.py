"""From a plan of positions to the index tensors of one pass.

Axes:  R rows   J (row, page) pairs   S positions of a page
"""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np
import torch
from torch import Tensor

from fathom.engine.attention import Chunk, Pairs
from fathom.engine.forward import Rows
from fathom.engine.scheduler import Work
from fathom.ops.rope import Rotation


def in_row_order(works: Many[Work]) -> list[Work]:
    """Decoded and replayed positions first, chunks of prompts behind them: the order of a pass's rows."""
    return sorted(works, key=lambda work: work.kind == "prefill")


def lay_out(works: Many[Work], page_size: int, turn: Rotation) -> Rows:
    """The rows of these works, which are in row order; `turn` is of every position a model may have."""
    device, S = turn.cos.device, page_size
    position = np.concatenate([np.arange(w.start, w.start + w.count) for w in works])
    slot = np.concatenate([_slots(w, S) for w in works])
    position_R = torch.from_numpy(position).to(device)
    decoded = [w for w in works if w.kind != "prefill"]
    num_decoded = sum(w.count for w in decoded)
    return Rows(
        position_R,
        torch.from_numpy(slot).to(device),
        Rotation(*(t.index_select(0, position_R)[:, None] for t in turn)),
        num_decoded,
        _pairs(decoded, S, device) if decoded else None,
        list(_chunks(works[len(decoded) :], num_decoded, S, device)),
    )


def fresh_pages(works: Many[Work], page_size: int) -> list[int]:
    """Pages whose first position is among these: they may hold what an earlier request left."""
    S = page_size
    return [
        w.sequence.pages[p // S] for w in works for p in range(-(-w.start // S) * S, w.start + w.count, S)
    ]


def _slots(work: Work, S: int) -> np.ndarray:
    position = np.arange(work.start, work.start + work.count)
    first = work.start // S
    page = np.asarray(work.sequence.pages[first : (work.start + work.count - 1) // S + 1], dtype=np.int64)
    slot: np.ndarray = page[position // S - first] * S + position % S
    return slot


def _pairs(works: Many[Work], S: int, device: torch.device) -> Pairs:
    """Row r at position p looks at pages 0 to p // S, of the last at what is not after p."""
    counts: list[int] = []
    pages: list[np.ndarray] = []
    for work in works:
        held = np.asarray(work.sequence.pages, dtype=np.int64)
        for p in range(work.start, work.start + work.count):
            counts.append(p // S + 1)
            pages.append(held[: p // S + 1])
    count_R = np.asarray(counts)
    start_R = np.cumsum(count_R) - count_R
    seen_J = np.full(int(count_R.sum()), S)
    seen_J[start_R + count_R - 1] = [p % S + 1 for w in works for p in range(w.start, w.start + w.count)]
    hidden_J1S = np.arange(S) >= seen_J[:, None, None]
    row_J = np.repeat(np.arange(len(count_R)), count_R)
    row, page, hidden, start = (
        _to(x, device) for x in (row_J, np.concatenate(pages), hidden_J1S, start_R)
    )
    return Pairs(row, page, hidden, start, counts)


def _chunks(works: Many[Work], first: int, S: int, device: torch.device) -> list[Chunk]:
    chunks = []
    for work in works:
        assert work.start % S == 0, f"a chunk of a prompt begins at {work.start}, inside a page of {S}"
        pages = work.sequence.pages[: (work.start + work.count - 1) // S + 1]
        page_A = _to(np.asarray(pages, dtype=np.int64), device)
        chunks.append(Chunk(first, work.count, page_A, work.start // S))
        first += work.count
    return chunks


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
