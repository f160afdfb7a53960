"""Initial weights: matrices from one normal distribution, norms 1, routing biases 0 (report 4.2)."""

from __future__ import annotations

import torch
from torch import nn

from fathom.ops.norm import RMSNorm


@torch.no_grad()
def initialise(model: nn.Module, std: float, generator: torch.Generator) -> None:
    """Fill every parameter of `model` in place, in the order of its names, so a seed names one model."""
    norms = {id(m.weight) for m in model.modules() if isinstance(m, RMSNorm)}
    for _, parameter in sorted(model.named_parameters()):
        if id(parameter) in norms:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, std, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("router.bias"):
            buffer.zero_()
