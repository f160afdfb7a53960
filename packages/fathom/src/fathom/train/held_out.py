"""How well a model predicts text it has not seen, in a unit that does not depend on the tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from fathom.data.batch import Batch
from fathom.model.transformer import Transformer
from fathom.ops.loss import IGNORE, cross_entropy
from fathom.train.step import labels


@torch.inference_mode()
def bits_per_byte(
    model: Transformer,
    batches: Iterable[Batch],
    byte_length_V: Tensor,
    *,
    dtype: torch.dtype | None = None,
    mask_documents: bool = False,
) -> float:
    """-log2 p(text) / bytes of text over all targets of `batches`.

    mask_documents  attention stays inside a document, as in a run that was trained so
    byte_length_V   UTF-8 bytes of each token, 0 for special tokens (their cost counts, their bytes do not)
    returns         bits per byte; NaN when there is no text
    """
    nats, size = 0.0, 0
    for batch in batches:
        (label_BT,) = labels(batch, 0, stop_at_borders=False)
        out = model(
            batch.token_BT1[:, :-1],
            segment_BT=batch.segment_BT1[:, :-1],
            mask_documents=mask_documents,
            dtype=dtype,
        )
        nats += cross_entropy(out.hidden_BTD.flatten(0, 1), model.head_weight, label_BT.flatten()).item()
        size += int(byte_length_V[label_BT[label_BT != IGNORE].cpu()].sum())
    return nats / math.log(2) / size if size else math.nan
