"""What the model is made of, handed to it as one object: plain kernels, or fast ones that must agree.

Another kind of product (FP8, say) is another such object; the model's pages do not change.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from fathom.ops.attention import attention
from fathom.ops.blocked_attention import blocked_attention
from fathom.ops.deferred import WeightGradients
from fathom.ops.experts import Experts
from fathom.ops.linear import FastLinear, Linear
from fathom.ops.matmul import multiplies_bf16
from fathom.ops.norm import FastRMSNorm, RMSNorm
from fathom.ops.padded_experts import PaddedExperts
from fathom.ops.permute import Copies, spread
from fathom.ops.rope import Rotation, fast_rotate, rotate
from fathom.ops.swiglu import SwiGLU

# What a map bears where products are made in less than bf16 (report section 3.3): "low" = that; "finer" =
# its input is kept in more digits; "full" = none of it.
Precision = Literal["low", "finer", "full"]
ROW_MULTIPLE = 32  # oneDNN compiles a bf16 product anew for every count of rows it has not seen


class Kernels(Protocol):
    """How matrices multiply, rows are normalised and positions attend."""

    row_multiple: int  # rows per expert are filled up to a multiple of this

    def linear(self, width_in: int, width_out: int, precision: Precision = "low") -> nn.Module:
        """A map with a `weight` [width_out, width_in] whose forward takes [..., width_in]."""
        ...

    def swiglu(self, width: int, inner: int) -> nn.Module:
        """A gated feed-forward network with the three maps of `SwiGLU` under their names."""
        ...

    def experts(self, num_experts: int, width: int, inner: int) -> nn.Module:
        """Stacked SwiGLU networks called as `Experts`, with rows as `spread` gives them too."""
        ...

    def spread(self, x_ND: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor | Copies:
        """What `experts` wants of rows on this device: [R, D], or what is needed to make them there."""
        ...

    def norm(self, size: int, eps: float) -> RMSNorm:
        """RMSNorm over the last axis."""
        ...

    def attention(
        self, q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, scale: float, document_BT: Tensor | None
    ) -> Tensor:
        """Causal attention of whole rows. -> [B, H, T, V]."""
        ...

    def rotate(self, x: Tensor, turn: Rotation) -> Tensor:
        """The pairs of `x` [..., T, R], turned."""
        ...


class PlainKernels:
    """PyTorch's own operations and its own backward passes: the oracle."""

    row_multiple = 1

    def linear(self, width_in: int, width_out: int, precision: Precision = "low") -> nn.Module:
        """A `Linear`."""
        return Linear(width_in, width_out)

    def swiglu(self, width: int, inner: int) -> nn.Module:
        """A `SwiGLU` of such maps."""
        return SwiGLU(width, inner, self.linear)

    def experts(self, num_experts: int, width: int, inner: int) -> nn.Module:
        """An `Experts`."""
        return Experts(num_experts, width, inner)

    def spread(self, x_ND: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor | Copies:
        """`spread`."""
        return spread(x_ND, token_R, row_NK)

    def norm(self, size: int, eps: float) -> RMSNorm:
        """An `RMSNorm`."""
        return RMSNorm(size, eps)

    def attention(
        self, q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, scale: float, document_BT: Tensor | None
    ) -> Tensor:
        """`plain_attention`, on a GPU the fused one."""
        return attention(q_BHTK, k_BHSK, v_BHSV, scale, document_BT)

    def rotate(self, x: Tensor, turn: Rotation) -> Tensor:
        """`rotate`."""
        return rotate(x, turn)


class FastKernels:
    """The same with hand-written backward passes where those are faster (docs/results has the figures)."""

    def __init__(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        """`dtype` of the products and where they are made: only bf16 ones on a CPU gain by rows filled up."""
        compiles = dtype == torch.bfloat16 and device == "cpu" and multiplies_bf16()
        self.row_multiple = ROW_MULTIPLE if compiles else 1
        self.weight_gradients = WeightGradients()  # of the matrices; a pipeline may want them later

    def linear(self, width_in: int, width_out: int, precision: Precision = "low") -> nn.Module:
        """A `Linear` that adds its weight's gradient where it belongs."""
        return FastLinear(width_in, width_out, self.weight_gradients)

    def swiglu(self, width: int, inner: int) -> nn.Module:
        """A `SwiGLU` of such maps."""
        return SwiGLU(width, inner, self.linear)

    def experts(self, num_experts: int, width: int, inner: int) -> nn.Module:
        """`Experts` on padded rows."""
        return PaddedExperts(num_experts, width, inner, self.weight_gradients)

    def spread(self, x_ND: Tensor, token_R: Tensor, row_NK: Tensor) -> Tensor | Copies:
        """`spread`."""
        return spread(x_ND, token_R, row_NK)

    def norm(self, size: int, eps: float) -> RMSNorm:
        """An `RMSNorm` of few passes over memory."""
        return FastRMSNorm(size, eps)

    def attention(
        self, q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, scale: float, document_BT: Tensor | None
    ) -> Tensor:
        """Blocked on a CPU, fused on a GPU."""
        form = attention if q_BHTK.is_cuda else blocked_attention
        return form(q_BHTK, k_BHSK, v_BHSV, scale, document_BT)

    def rotate(self, x: Tensor, turn: Rotation) -> Tensor:
        """One complex product."""
        return fast_rotate(x, turn)


def choose_kernels(name: str, dtype: torch.dtype, device: str = "cpu") -> Kernels:
    """The kernels that `train.ops` names, for products in `dtype` on a kind of device."""
    return PlainKernels() if name == "plain" else FastKernels(dtype, device)
