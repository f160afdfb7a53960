"""Cross-entropy of a head without holding the logits of a whole batch.

Axes:  N positions   D width   V vocabulary
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.ops.norm import wide

IGNORE = -100  # the label of a position that has no loss
CHUNK = 2048  # positions whose logits are held at a time


def plain_cross_entropy(hidden_ND: Tensor, head_VD: Tensor, label_N: Tensor) -> Tensor:
    """Sum over positions of -log softmax(head h)[label]; positions labelled IGNORE give 0. The oracle."""
    logit_NV = wide(F.linear(hidden_ND, head_VD.to(hidden_ND.dtype)))
    return F.cross_entropy(logit_NV, label_N, ignore_index=IGNORE, reduction="sum")


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradient is made in the forward pass, chunk by chunk, while the logits are warm."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, label_N: Tensor, chunk: int) -> Tensor:
        head = head_VD.to(hidden_ND.dtype)
        total = torch.zeros((), dtype=wide(hidden_ND[:0]).dtype, device=hidden_ND.device)
        grad_hidden, grad_head = torch.empty_like(hidden_ND), torch.zeros_like(head_VD)
        for start in range(0, hidden_ND.shape[0], chunk):
            part = slice(start, start + chunk)
            loss, grad_nV = _loss_and_grad(wide(F.linear(hidden_ND[part], head)), label_N[part])
            total += loss
            grad_nV = grad_nV.to(hidden_ND.dtype)
            grad_hidden[part] = grad_nV @ head
            grad_head += grad_nV.T @ hidden_ND[part]
        ctx.save_for_backward(grad_hidden, grad_head)
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        scale = grad[0]
        return grad_hidden * scale.to(grad_hidden.dtype), grad_head * scale.to(grad_head.dtype), None, None


def _loss_and_grad(logit_nV: Tensor, label_n: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss of a chunk and its gradient for the logits, which are overwritten."""
    kept_n = label_n != IGNORE
    index_n1 = label_n.clamp(min=0)[:, None]
    log_norm_n = logit_nV.logsumexp(-1)
    loss = ((log_norm_n - logit_nV.gather(1, index_n1)[:, 0]) * kept_n).sum()
    grad_nV = logit_nV.sub_(log_norm_n[:, None]).exp_()
    grad_nV.scatter_add_(1, index_n1, grad_nV.new_full((), -1.0).expand_as(index_n1))
    return loss, grad_nV.mul_(kept_n[:, None])


def cross_entropy(hidden_ND: Tensor, head_VD: Tensor, label_N: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """`plain_cross_entropy` holding `chunk` x V logits at most. -> scalar, fp32."""
    if not torch.is_grad_enabled():
        parts = zip(hidden_ND.split(chunk), label_N.split(chunk), strict=True)
        return torch.stack([plain_cross_entropy(h, head_VD, y) for h, y in parts]).sum()
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden_ND, head_VD, label_N, chunk)
    return loss
