"""Softmax attention over given queries, keys and values; the plain form and PyTorch's fused one.

Axes:  B batch   H heads   T queries   S keys   K query and key channels   V value channels
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.ops.norm import wide


def causal_mask(
    T: int, S: int, document_BT: Tensor | None = None, *, device: torch.device | None = None
) -> Tensor:
    """True where a query may look: the last query sees all S keys; with documents, only its own document.

    returns   [T, S], or [B, 1, T, T] with `document_BT` (then S must equal T)
    """
    mask_TS = torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)
    if document_BT is None:
        return mask_TS
    assert S == T, f"documents are masked over whole rows only, but T={T} and S={S}"
    return (document_BT[:, None, :, None] == document_BT[:, None, None, :]) & mask_TS


def plain_attention(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, scale: float, mask: Tensor) -> Tensor:
    """softmax(scale * q k^T) v where `mask` is True; fp32 softmax (report eq 10). -> [B, H, T, V]."""
    score_BHTS = wide(q_BHTK @ k_BHSK.transpose(-1, -2)) * scale
    prob_BHTS = score_BHTS.masked_fill(~mask, -torch.inf).softmax(-1)
    return prob_BHTS.to(v_BHSV.dtype) @ v_BHSV


def fused_attention(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, scale: float, mask: Tensor | None
) -> Tensor:
    """The same through scaled_dot_product_attention; `mask` None means causal with T = S.

    Values are padded to the query's width, because the fused kernels want one width for all three.
    """
    V, K = v_BHSV.shape[-1], q_BHTK.shape[-1]
    v_BHSK = F.pad(v_BHSV, (0, K - V)) if V < K else v_BHSV
    o_BHTK = F.scaled_dot_product_attention(
        q_BHTK, k_BHSK, v_BHSK, attn_mask=mask, is_causal=mask is None, scale=scale
    )
    return o_BHTK[..., :V]


def attention(
    q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, scale: float, document_BT: Tensor | None = None
) -> Tensor:
    """Causal attention of whole rows (T = S), fused on a GPU and plain on a CPU. -> [B, H, T, V].

    On a CPU without AMX the fused bf16 kernel is slower than two matrix products and a softmax.
    """
    T, S = q_BHTK.shape[-2], k_BHSK.shape[-2]
    if q_BHTK.is_cuda:
        mask = None if document_BT is None else causal_mask(T, S, document_BT, device=q_BHTK.device)
        return fused_attention(q_BHTK, k_BHSK, v_BHSV, scale, mask)
    mask = causal_mask(T, S, document_BT, device=q_BHTK.device)
    return plain_attention(q_BHTK, k_BHSK, v_BHSV, scale, mask)
