"""One optimizer step's losses and gradients over micro-batches (report eq 17-25).

Axes:  B rows   T positions   N = B*T   L MoE layers   E experts
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fathom.data.batch import Batch
from fathom.model.mtp import shift
from fathom.model.transformer import Transformer
from fathom.ops.loss import IGNORE, cross_entropy


class Weights(NamedTuple):
    """What the parts of the loss count."""

    mtp: float  # lambda
    sequence: float  # alpha


class Losses(NamedTuple):
    """Means over the batch, and where its tokens went."""

    main: float  # nats per token
    mtp: float  # nats per token, mean over depths; 0 without MTP
    sequence: float  # sum_i f_i P_i, mean over layers; 1 is balanced
    count_LE: Tensor  # int64
    tokens: int  # positions read, without padding


def labels(batch: Batch, depth: int, *, stop_at_borders: bool) -> list[Tensor]:
    """Targets of the trunk and of MTP modules 1..depth, each [B, T]; IGNORE where there is none.

    Module k predicts token i+k+1 at position i, so its targets are the trunk's moved by k; the last k
    positions of a row have none. Padding has none, nor has what `mask_BT1` leaves out; `stop_at_borders`
    drops targets of MTP that lie in another document than the position.
    """
    target_BT, segment_BT = batch.token_BT1[:, 1:], batch.segment_BT1[:, 1:]
    kept_BT = segment_BT >= 0
    if batch.mask_BT1 is not None:
        kept_BT = kept_BT & batch.mask_BT1[:, 1:]
    main_BT = target_BT.masked_fill(~kept_BT, IGNORE)
    moved = [main_BT]
    for k in range(1, depth + 1):
        label_BT, exists_BT = shift(main_BT, k)
        if stop_at_borders:
            there_BT = shift(segment_BT, k)[0]
            exists_BT = exists_BT & (there_BT == batch.segment_BT1[:, :-1])
        moved.append(label_BT.masked_fill(~exists_BT, IGNORE))
    return moved


def micro_batches(batch: Batch, rows: int) -> Iterator[Batch]:
    """Cut a batch into parts of `rows` rows (0 = all at once)."""
    rows = rows or len(batch)
    for start in range(0, len(batch), rows):
        yield batch.take(slice(start, start + rows))


def backward(
    model: Transformer,
    batch: Batch,
    weights: Weights,
    *,
    micro_rows: int = 0,
    dtype: torch.dtype | None = None,
    mask_documents: bool = False,
    accumulate: Callable[[], None] = lambda: None,
) -> Losses:
    """Add the gradients of the mean loss of `batch` to the parameters, one micro-batch at a time.

    Every part is normalised by the whole batch, so the cut into micro-batches changes nothing but rounding:
    token losses by the batch's targets (eq 24 divides MTP's by the same T), the balance loss by its rows.

    accumulate   called after the backward pass of every micro-batch: `Optimizer.accumulate`
    """
    stop = mask_documents or model.config.mtp.mask_borders
    targets = int((labels(batch, 0, stop_at_borders=stop)[0] != IGNORE).sum())
    sums = torch.zeros(3, dtype=torch.float64)
    count_LE: Tensor | None = None
    for part in micro_batches(batch, micro_rows):
        wanted = labels(part, model.config.mtp.depth, stop_at_borders=stop)
        out = model(
            part.token_BT1[:, :-1],
            segment_BT=part.segment_BT1[:, :-1],
            mask_documents=mask_documents,
            mtp=True,
            dtype=dtype,
        )
        states = (out.hidden_BTD, *out.mtp_BTD)
        each = [
            cross_entropy(h.flatten(0, 1), model.head_weight, y.flatten())
            for h, y in zip(states, wanted, strict=True)
        ]
        main, mtp = each[0] / max(targets, 1), _mean(each[1:]) / max(targets, 1)
        sequence = _mean([r.sequence_loss for r in out.routing]) * (len(part) / len(batch))
        layers = len(out.routing)
        (main + weights.mtp * mtp + weights.sequence * layers * sequence).backward()
        accumulate()
        sums += torch.stack([x.detach().cpu().double() for x in (main, mtp, sequence)])
        part_LE = _stack([r.count_E for r in out.routing])
        count_LE = part_LE if count_LE is None else count_LE + part_LE
    assert count_LE is not None, "a batch without rows"
    main_loss, mtp_loss, sequence_loss = sums.tolist()
    read = int((batch.segment_BT1[:, :-1] >= 0).sum())
    return Losses(main_loss, mtp_loss, sequence_loss, count_LE, read)


def _stack(counts: list[Tensor]) -> Tensor:
    return torch.stack(counts) if counts else torch.zeros(0, 0, dtype=torch.long)


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean() if losses else torch.zeros(())
