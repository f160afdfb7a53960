"""From `train.precision` and `train.ops` to the kernels that a model is built of."""

from __future__ import annotations

import torch
from torch import nn

from fathom.config.train import OptimConfig, TrainConfig
from fathom.ops.fp8.choose import choose_backend
from fathom.ops.fp8.experts import Fp8Experts
from fathom.ops.fp8.kernels import Fp8Kernels
from fathom.ops.fp8.linear import Fp8Linear
from fathom.ops.fp8.shared import NotFinite
from fathom.ops.kernels import Kernels, choose_kernels
from fathom.train.machine import Machine


def kernels_for(config: TrainConfig, machine: Machine) -> Kernels:
    """Those of a run on this machine; `ops = "plain"` takes the reference products in FP8 too."""
    device = machine.device.type
    if machine.fp8:
        gradients = config.fp8.gradients
        return Fp8Kernels(choose_backend(config.ops, device), device, gradients)  # type: ignore[arg-type]
    return choose_kernels(config.ops, machine.dtype, device)


def with_products(machine: Machine, kernels: Kernels) -> Machine:
    """The machine with the name of what multiplies FP8 on it, for the record."""
    return machine._replace(products=kernels.shared.backend.name if isinstance(kernels, Fp8Kernels) else "")


def moments_of(config: OptimConfig, machine: Machine) -> torch.dtype:
    """What AdamW's moments are kept in."""
    narrow = machine.fp8 and config.bears_bf16 if config.moments == "auto" else config.moments == "bf16"
    return torch.bfloat16 if narrow else torch.float32


def lookouts(model: nn.Module) -> list[NotFinite]:
    """What layers of `model` tell of NaN and infinity: one for all FP8 layers, none without them."""
    found = {id(m.shared): m.shared for m in model.modules() if isinstance(m, Fp8Linear | Fp8Experts)}
    return [shared.not_finite for shared in found.values()]
