"""Cross-entropy of a head without holding the logits of a whole batch.

Axes:  N positions   D width   V vocabulary
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fathom.ops.matmul import add_matmul, matmul, matmul_into
from fathom.ops.norm import wide

IGNORE = -100  # the label of a position that has no loss
CHUNK = 1024  # positions whose logits are held at a time
WARM = 1 << 19  # logits that become their gradient at a time, 2 MB in fp32: they stay near the processor
LEAST = 16  # positions of such a piece


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
        grad_hidden, grad_head = torch.empty_like(hidden_ND), torch.zeros_like(head)
        for start in range(0, hidden_ND.shape[0], chunk):
            part = slice(start, start + chunk)
            logit_nV = matmul(hidden_ND[part], head.T)
            few = chunk if logit_nV.is_cuda else max(WARM // logit_nV.shape[1], LEAST)
            for first in range(0, logit_nV.shape[0], few):
                rows = slice(first, first + few)
                total += _turn_into_gradient(logit_nV[rows], label_N[part][rows])
            matmul_into(grad_hidden[part], logit_nV, head)
            add_matmul(grad_head, logit_nV.T, hidden_ND[part])
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.head_VD = head_VD  # as it is, because its gradient is added to in place
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        scale, into_VD = grad[0], ctx.head_VD.grad
        grad_hidden = grad_hidden * scale  # a number without axes: the product keeps the dtype, unrounded
        if not ctx.needs_input_grad[1]:
            return grad_hidden, None, None, None
        if into_VD is None or into_VD.dtype != grad_head.dtype:
            return grad_hidden, (grad_head * scale).to(ctx.head_VD.dtype), None, None
        if into_VD.is_cuda:
            into_VD.add_(grad_head * scale)  # a Python number would make the GPU wait
        else:
            into_VD.add_(grad_head, alpha=scale.item())
        return grad_hidden, None, None, None


def _turn_into_gradient(logit_nV: Tensor, label_n: Tensor) -> Tensor:
    """The summed loss of a few rows; their logits are overwritten by its gradient, softmax - one_hot."""
    ignored_n = label_n == IGNORE
    index_n1 = label_n.clamp(min=0)[:, None]
    log_prob_nV = wide(logit_nV).log_softmax(-1)
    loss = -log_prob_nV.gather(1, index_n1)[:, 0].masked_fill(ignored_n, 0.0).sum()
    grad_nV = log_prob_nV.exp_()
    grad_nV.scatter_add_(1, index_n1, grad_nV.new_full((), -1.0).expand_as(index_n1))
    grad_nV.masked_fill_(ignored_n[:, None], 0.0)
    logit_nV.copy_(grad_nV)
    return loss


def cross_entropy(hidden_ND: Tensor, head_VD: Tensor, label_N: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """`plain_cross_entropy` holding `chunk` x V logits at most. -> scalar, fp32."""
    if not torch.is_grad_enabled():
        parts = zip(hidden_ND.split(chunk), label_N.split(chunk), strict=True)
        return torch.stack([plain_cross_entropy(h, head_VD, y) for h, y in parts]).sum()
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden_ND, head_VD, label_N, chunk)
    return loss
