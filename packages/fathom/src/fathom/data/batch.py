"""What a training step reads: rows of tokens, the documents in them, and for chats which tokens count.

Axes:  B rows   T1 seq_len + 1 tokens, from which T inputs and T targets are cut
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fathom.config.errors import DataError, need
from fathom.data.pack import best_fit

log = logging.getLogger(__name__)
PADDING = -1  # the segment of what is no document


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of documents.

    token_BT1     int64; the padding token where there is no document
    segment_BT1   int64; 0, 1, ... for the documents of a row, -1 for padding
    mask_BT1      bool: this token, as a target, counts in the loss; None = every token of a document does
    """

    token_BT1: Tensor
    segment_BT1: Tensor
    mask_BT1: Tensor | None = None

    def __len__(self) -> int:
        return len(self.token_BT1)

    def take(self, rows: slice | Tensor) -> Batch:
        """Some of the rows."""
        mask_BT1 = None if self.mask_BT1 is None else self.mask_BT1[rows]
        return Batch(self.token_BT1[rows], self.segment_BT1[rows], mask_BT1)

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        mask_BT1 = None if self.mask_BT1 is None else self.mask_BT1.to(device)
        return Batch(self.token_BT1.to(device), self.segment_BT1.to(device), mask_BT1)


def empty_batch(rows: int, seq_len: int, pad: int) -> Batch:
    """Rows of padding to write into, without a mask."""
    token_BT1 = torch.full((rows, seq_len + 1), pad, dtype=torch.int64)
    return Batch(token_BT1, torch.full_like(token_BT1, PADDING))


def pack_chats(
    chats: Sequence[tuple[Sequence[int], Sequence[bool]]], seq_len: int, *, seed: int, pad: int
) -> Batch:
    """All rows of some conversations, best fit, shuffled by `seed`, with their segments and targets.

    chats      (ids, is_target) of each, as `encode_chat` returns them
    A conversation longer than a row loses its end, since a second row would lack the beginning that it
    answers; one that then holds no target is left out; both are counted in a warning. Samples of a row must
    not see each other (report section 5.1).
    """
    row = seq_len + 1
    kept = [(ids[:row], is_target[:row]) for ids, is_target in chats if any(is_target[1:row])]
    need(
        len(kept) > 0,
        f"no conversation has a reply within its first {row:,} tokens",
        fix="raise train.seq_len, or give conversations with assistant messages",
        error=DataError,
    )
    if cut := sum(len(ids) > row for ids, _ in chats):
        log.warning(
            "%d of %d conversations are longer than a row of %d tokens: end lost", cut, len(chats), row
        )
    if left_out := len(chats) - len(kept):
        log.warning("%d of %d conversations have no reply in that row: left out", left_out, len(chats))
    rng = np.random.Generator(np.random.PCG64(seed))
    kept = [kept[i] for i in rng.permutation(len(kept))]
    rows = best_fit(np.array([len(ids) for ids, _ in kept]), row)
    blank = empty_batch(len(rows), seq_len, pad)
    batch = Batch(blank.token_BT1, blank.segment_BT1, torch.zeros_like(blank.token_BT1, dtype=torch.bool))
    assert batch.mask_BT1 is not None
    for b, r in enumerate(rng.permutation(len(rows)).tolist()):
        at = 0
        for segment, (chat, _, length) in enumerate(rows.row(r)):
            ids, is_target = kept[chat]
            batch.token_BT1[b, at : at + length] = torch.as_tensor(ids)
            batch.segment_BT1[b, at : at + length] = segment
            batch.mask_BT1[b, at : at + length] = torch.as_tensor(is_target)
            at += length
    return batch
