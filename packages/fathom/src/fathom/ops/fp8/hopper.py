"""FP8 on a GPU: quantisation by Triton, products by Triton or, where it is right, by torch's scaled_mm.

Tensor cores take FP8 with the summed axis last in memory from both sides. Fprop finds its operands so. Wgrad
finds them so because columns are written transposed. Dgrad sums over W's rows: its bytes are transposed once
for every quantisation of W, which changes no number, as a block of 128 x 128 has one scale either way (the
published trace of DeepSeek-V3's training does the same).

Axes:  N rows   X width in   Y width out   R rows sorted by expert   E experts   F inner width
       C = A B^T of A [M, K] and B [N, K]   G runs of K, ceil(K/128)
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fathom.ops.fp8 import triton_gemm, triton_quantize
from fathom.ops.fp8.reference import Reference
from fathom.ops.fp8.tiles import BLOCK, Quantized

NATIVE_E4M3 = 8, 9  # the first compute capability with E4M3 in its tensor cores
BLOCKWISE = 9, 0  # the one whose cuBLASLt multiplies 1 x 128 tiles (12.9 and newer)
ALIGNED = 16  # numbers: scaled_mm refuses other widths
TRUSTED = 2.0**-8  # of the largest number: sums of 14 bits stay far below, scales in wrong places do not


def why_not() -> str:
    """What keeps `Hopper` from running here, as a phrase; empty where nothing does."""
    if triton_quantize.triton is None:
        return "triton cannot be imported"
    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    capability = torch.cuda.get_device_capability()
    if capability < NATIVE_E4M3:
        return "E4M3 needs compute capability {}.{}, not {}.{}".format(*NATIVE_E4M3, *capability)
    return ""


def available() -> bool:
    """Whether `Hopper` runs here."""
    return not why_not()


class Hopper:
    """A `Backend` for CUDA devices that multiply E4M3; nothing in it waits for the device.

    Numbers in columns lie in memory as [D, N]. Scales are contiguous.
    """

    def __init__(self, *, scaled_mm: bool | None = None) -> None:
        """`scaled_mm`: whether dense products may go there; by default if a trial gives the right numbers."""
        self.scaled_mm = scaled_mm_works() if scaled_mm is None else scaled_mm
        self.name = "FP8 in Triton and scaled_mm" if self.scaled_mm else "FP8 in Triton"
        self._transposed = WeakTensorKeyDictionary()  # bytes of weights -> (their version, them transposed)

    def tiles(self, x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
        """As `Backend`."""
        return triton_quantize.tiles(x_ND, power_of_two=power_of_two)

    def columns(self, x_ND: Tensor, *, power_of_two: bool = False) -> Quantized:
        """As `Backend`."""
        return triton_quantize.columns(x_ND, power_of_two=power_of_two)

    def tiles_to_columns(self, x: Quantized, *, power_of_two: bool = False) -> Quantized:
        """As `Backend`."""
        return triton_quantize.tiles_to_columns(x, power_of_two=power_of_two)

    def blocks(self, w: Tensor) -> Quantized:
        """As `Backend`."""
        return triton_quantize.blocks(w)

    def dequantize(self, x: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return triton_quantize.dequantize(x, dtype)

    def swiglu(
        self, g_RF: Tensor, u_RF: Tensor, weight_R: Tensor | None
    ) -> tuple[Quantized, Quantized, Quantized]:
        """As `Backend`."""
        return triton_quantize.swiglu(g_RF, u_RF, weight_R)

    def forward(self, x: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return self._product(x, w, dtype)

    def backward(self, dy: Quantized, w: Quantized, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return self._product(dy, self._across(w), dtype)

    def add_outer(self, into_YX: Tensor, dy: Quantized, x: Quantized) -> None:
        """As `Backend`."""
        a, b = transpose(dy), transpose(x)
        if self.scaled_mm and scaled_mm_takes(a, b):
            into_YX += scaled_product(a, b, torch.float32, in_blocks=False)
        else:
            triton_gemm.add_product(into_YX, a, b)

    def grouped_forward(self, x: Quantized, w: Quantized, count_E: Tensor, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return triton_gemm.product_of_rows(x, w, count_E, dtype)

    def grouped_backward(self, dy: Quantized, w: Quantized, count_E: Tensor, dtype: torch.dtype) -> Tensor:
        """As `Backend`."""
        return triton_gemm.product_of_rows(dy, self._across(w), count_E, dtype)

    def add_grouped_outer(self, into_EYX: Tensor, dy: Quantized, x: Quantized, count_E: Tensor) -> None:
        """As `Backend`."""
        triton_gemm.add_product_of_sums(into_EYX, transpose(dy), transpose(x), count_E)

    def _product(self, a: Quantized, b: Quantized, dtype: torch.dtype) -> Tensor:
        if self.scaled_mm and scaled_mm_takes(a, b):
            return scaled_product(a, b, dtype, in_blocks=True)
        return triton_gemm.product(a, b, dtype)

    def _across(self, w: Quantized) -> Quantized:
        """W^T with its bytes moved, made anew only if W was written to since."""
        version, q_T = self._transposed.get(w.q, (None, None))
        if version != w.q._version:
            q_T = w.q.view(torch.uint8).mT.contiguous().view(w.q.dtype)
            self._transposed[w.q] = w.q._version, q_T
        return Quantized(q_T, w.scale.mT)


def transpose(x: Quantized) -> Quantized:
    """The transpose of one matrix or of each, as a view."""
    return Quantized(x.q.mT, x.scale.mT)


def scaled_mm_takes(a: Quantized, b: Quantized) -> bool:
    """Whether scaled_mm is trusted with A B^T: no ragged run, more than one run, aligned sizes."""
    (M, K), N = a.q.shape, len(b.q)
    fits = K % BLOCK == 0 and K > BLOCK and M % ALIGNED == 0 and N % ALIGNED == 0 and M * N > 0
    return fits and a.q.is_contiguous() and b.q.is_contiguous()


def scaled_product(a: Quantized, b: Quantized, dtype: torch.dtype, *, in_blocks: bool) -> Tensor:
    """A B^T by `torch.nn.functional.scaled_mm`. -> [M, N] in `dtype`.

    a, b       A in 1 x 128 tiles, B in 128 x 128 blocks if `in_blocks`, else in 1 x 128 tiles
    layouts    scales of tiles are wanted with strides (1, M); scales of blocks with G filled up to a multiple
               of 4 and as [G, N/128] with strides (1, G) (cuBLAS, "1D and 128x128 2D block scaling")
    """
    kind = F.ScalingType
    scale_GM = a.scale.T.contiguous()
    if in_blocks:
        scale_b = F.pad(b.scale, (0, -b.scale.shape[1] % 4)).contiguous().T
    else:
        scale_b = b.scale.T.contiguous().T
    return F.scaled_mm(
        a.q,
        b.q.T,
        scale_GM.T,
        kind.BlockWise1x128,
        scale_b,
        kind.BlockWise128x128 if in_blocks else kind.BlockWise1x128,
        output_dtype=dtype,
    )


@cache
def scaled_mm_works() -> bool:
    """Whether scaled_mm multiplies tiles and blocks here as the reference does; tried once in a process."""
    return available() and torch.cuda.get_device_capability() == BLOCKWISE and trial("cuda")


def trial(device: str) -> bool:
    """Whether scaled_mm gives the reference's numbers for small matrices with ragged blocks."""
    reference, generator = Reference(), torch.Generator().manual_seed(0)
    a_MK, b_NK = (torch.randn(rows, 640, generator=generator).pow(3).to(device) for rows in (144, 336))
    a, b_blocks, b_tiles = reference.tiles(a_MK), reference.blocks(b_NK), reference.tiles(b_NK)
    sums_MN = torch.zeros(144, 336, device=device)
    reference.add_outer(sums_MN, transpose(a), transpose(b_tiles))
    wanted = (
        (b_blocks, True, torch.bfloat16, reference.forward(a, b_blocks, torch.float32)),
        (b_blocks, True, torch.float32, reference.forward(a, b_blocks, torch.float32)),
        (b_tiles, False, torch.float32, sums_MN),
    )
    try:
        return all(near(scaled_product(a, b, dtype, in_blocks=in_b), want) for b, in_b, dtype, want in wanted)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False  # another torch, another cuBLAS


def near(got: Tensor, want: Tensor) -> bool:
    """Whether `got` is what tensor cores may make of `want`; a NaN is not."""
    return bool((got.float() - want).abs().max() <= TRUSTED * want.abs().max())
