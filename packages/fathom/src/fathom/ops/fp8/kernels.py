"""The kernels of `train.precision = "fp8"`, handed to the model like any others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fathom.ops.fp8.backend import Backend
from fathom.ops.fp8.experts import Fp8Experts
from fathom.ops.fp8.linear import Fp8Linear
from fathom.ops.fp8.shared import Gradients, Shared
from fathom.ops.fp8.swiglu import Fp8SwiGLU
from fathom.ops.fp8.tiles import BLOCK
from fathom.ops.kernels import FastKernels, Precision
from fathom.ops.permute import Copies


class Fp8Kernels(FastKernels):
    """Linear maps, feed-forwards and experts in FP8; norms, attention and rotation are those of bf16.

    Maps that need full precision (the head, the projection of MTP) multiply in bf16; the embedding and the
    router are no kernels (report section 3.3.1).
    """

    def __init__(self, backend: Backend, device: str = "cpu", gradients: Gradients = "tiles") -> None:
        super().__init__(torch.bfloat16, device)
        self.row_multiple = BLOCK  # an expert's rows are whole tiles of 128 x 1
        self.shared = Shared(backend, self.weight_gradients, gradients)

    def linear(self, width_in: int, width_out: int, precision: Precision = "low") -> nn.Module:
        """An `Fp8Linear` where the map bears it."""
        if precision == "full":
            return super().linear(width_in, width_out)
        return Fp8Linear(width_in, width_out, self.shared, finer=precision == "finer")

    def swiglu(self, width: int, inner: int) -> nn.Module:
        """An `Fp8SwiGLU`."""
        return Fp8SwiGLU(width, inner, self.shared)

    def experts(self, num_experts: int, width: int, inner: int) -> nn.Module:
        """`Fp8Experts`."""
        return Fp8Experts(num_experts, width, inner, self.shared)

    def spread(self, x_ND: Tensor, token_R: Tensor, row_NK: Tensor) -> Copies:
        """Nothing yet: experts quantise each token once, and copy FP8."""
        return Copies(x_ND, token_R, row_NK)
