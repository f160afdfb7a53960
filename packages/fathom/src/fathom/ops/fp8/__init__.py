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

from fathom.ops.fp8.tiles import (
    BLOCK,
    E4M3,
    E4M3_MAX,
    SMALLEST_SCALE,
    Quantized,
    dequantize_blocks,
    dequantize_columns,
    dequantize_tiles,
    quantize_blocks,
    quantize_columns,
    quantize_tiles,
    scale_shape,
    tiles_to_columns,
)

__all__ = [
    "BLOCK",
    "E4M3",
    "E4M3_MAX",
    "SMALLEST_SCALE",
    "Quantized",
    "dequantize_blocks",
    "dequantize_columns",
    "dequantize_tiles",
    "quantize_blocks",
    "quantize_columns",
    "quantize_tiles",
    "scale_shape",
    "tiles_to_columns",
]
