"""FP8 as DeepSeek-V3 trains in it: fine-grained scales, E4M3 everywhere, sums in fp32 (report section 3.3).

    tiles      matrices as E4M3 numbers with a scale per 1 x 128 tile, 128 x 1 tile or 128 x 128 block
    e5m6       twelve-bit numbers for the one tensor that E4M3 is too coarse for
    backend    what multiplies them, behind one interface: `reference`, `cpu`, `hopper`
    linear, swiglu, experts    layers whose three products are in FP8
    kernels    the object that hands them to the model

One line of it: y = x W^T is made from x in 1 x 128 tiles and W in blocks (Fprop), dx from dy in 1 x 128 tiles
and the same blocks transposed (Dgrad), dW from dy and x in 128 x 1 tiles (Wgrad), because tiles lie along the
axis that is summed over.
"""

from fathom.ops.fp8.e5m6 import pack_e5m6 as pack_e5m6
from fathom.ops.fp8.e5m6 import unpack_e5m6 as unpack_e5m6
from fathom.ops.fp8.tiles import Quantized as Quantized
from fathom.ops.fp8.tiles import dequantize_blocks as dequantize_blocks
from fathom.ops.fp8.tiles import dequantize_columns as dequantize_columns
from fathom.ops.fp8.tiles import dequantize_tiles as dequantize_tiles
from fathom.ops.fp8.tiles import quantize_blocks as quantize_blocks
from fathom.ops.fp8.tiles import quantize_columns as quantize_columns
from fathom.ops.fp8.tiles import quantize_tiles as quantize_tiles
from fathom.ops.fp8.tiles import tiles_to_columns as tiles_to_columns
