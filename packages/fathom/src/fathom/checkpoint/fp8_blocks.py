"""Which tensors the official checkpoint keeps in FP8, under which names, and whether a folder's are sound.

An FP8 weight `NAME` has a float32 tensor `NAME_scale_inv` beside it, one number for each 128 x 128 block,
perhaps in another file. Despite its name the scale multiplies: weight = E4M3 number * scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fathom.checkpoint.names import ROUTING_BIAS, official
from fathom.checkpoint.tensors import TORCH, Kind, Reader, Stored
from fathom.config.errors import DataError, need, plain, quoted
from fathom.config.model import ModelConfig
from fathom.ops.fp8.tiles import BLOCK, dequantize_blocks, scale_shape

Weights = Literal["bf16", "fp8"]
F8 = "F8_E4M3"
FLOATS = ("F64", "F32", "F16", "BF16")
SCALE = "_scale_inv"  # behind the name of its weight
# The linear maps of attention, of dense feed-forwards and of experts; not eh_proj, the gate or the tables.
LINEAR = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)\.(\w+\.)*\w+_proj(_with_mqa)?\.weight")
# What config.json says of an FP8 checkpoint: scales of activations are made while it runs.
QUANTIZATION = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [BLOCK, BLOCK],
}
FIX = "copy the files again from where they came from, or use another checkpoint"


def scale_name(weight: str) -> str:
    """The name of an FP8 weight's scale."""
    return weight + SCALE


def is_scale(name: str) -> bool:
    """Whether `name` is that of a scale."""
    return name.endswith(SCALE)


def in_fp8(name: str) -> bool:
    """Whether the official checkpoint keeps the tensor with this official name in FP8."""
    return LINEAR.fullmatch(name) is not None


def layout(config: ModelConfig, weights: Weights, *, mtp_copies: bool = True) -> dict[str, Kind]:
    """Every tensor of the official checkpoint of `config` with dtype and shape; scales follow their weights.

    mtp_copies   with the embedding and head that it repeats in every MTP layer
    """
    kinds: dict[str, Kind] = {}
    for name, place in official(config, mtp_copies=mtp_copies).items():
        kinds |= kinds_of(name, place.shape, weights, exact=place.ours.endswith(ROUTING_BIAS))
    return kinds


def kinds_of(name: str, shape: tuple[int, ...], weights: Weights, *, exact: bool) -> dict[str, Kind]:
    """One weight as it is written: with its scale if it is in FP8; `exact` = fp32, for the routing bias."""
    if weights == "fp8" and in_fp8(name):
        R, C = shape
        return {name: Kind(F8, shape), scale_name(name): Kind("F32", scale_shape(R, C))}
    return {name: Kind("F32" if exact else "BF16", shape)}


def check_quantization(hf: Mapping[str, Any], where: str) -> None:
    """DataError if a config.json names a quantization other than the official one."""
    said = hf.get("quantization_config")
    if said is None:
        return
    need(
        isinstance(said, Mapping),
        f"{where}: quantization_config={quoted(said)} is not a table",
        fix=FIX,
        error=DataError,
    )
    for key in ("quant_method", "fmt", "weight_block_size"):
        found = said.get(key, QUANTIZATION[key])
        need(
            found == QUANTIZATION[key],
            f"{where}: quantization_config.{key}={quoted(found)} is not read (only {QUANTIZATION[key]!r})",
            fix="use weights in bf16, or in FP8 as DeepSeek-V3 was released",
            error=DataError,
        )


def check_dtypes(stored: Mapping[str, Stored]) -> None:
    """DataError unless every weight is a float, and every FP8 weight has its scale, of the right shape."""
    for name, tensor in stored.items():
        where = f"{tensor.path}: {plain(name)}"
        if is_scale(name):
            weight = stored.get(name.removesuffix(SCALE))
            need(
                weight is not None and weight.dtype == F8,
                f"{where} is the scale of no FP8 weight",
                fix=FIX,
                error=DataError,
            )
        elif tensor.dtype == F8:
            _check_scale(plain(name), tensor, stored.get(scale_name(name)))
        else:
            need(
                tensor.dtype in FLOATS,
                f"{where} is {plain(tensor.dtype)}; weights are {', '.join(FLOATS)} or {F8}",
                fix=FIX,
                error=DataError,
            )


def _check_scale(name: str, tensor: Stored, scale: Stored | None) -> None:
    """DataError unless `scale` fits the FP8 weight `tensor`."""
    if len(tensor.shape) != 2:
        raise DataError(f"{tensor.path}: {name} is FP8, but no matrix: {list(tensor.shape)}. Fix: {FIX}")
    if scale is None:
        raise DataError(f"{tensor.path}: {name} is FP8, but its scale {name}{SCALE} is missing. Fix: {FIX}")
    need(
        scale.dtype == "F32",
        f"{scale.path}: {name}{SCALE} is {plain(scale.dtype)}, not F32",
        fix=FIX,
        error=DataError,
    )
    want = scale_shape(*tensor.shape)
    need(
        scale.shape == want,
        f"{scale.path}: {name}{SCALE} is {list(scale.shape)}, but blocks of {BLOCK} need {list(want)}",
        fix=FIX,
        error=DataError,
    )


def read_weight(
    reader: Reader, stored: Mapping[str, Stored], name: str, dtype: torch.dtype | None = None
) -> Tensor:
    """A weight with its scale applied, known to be finite.

    dtype    of an FP8 weight once dequantised (default bf16); other weights come as they are stored
    errors   DataError that names a weight with a NaN or an infinity, or a file that cannot be read
    """
    tensor = reader.read(name)
    if stored[name].dtype == F8:
        tensor = dequantize_blocks(tensor, reader.read(scale_name(name)), dtype or torch.bfloat16)
    check_finite(tensor, name, stored[name].path)
    return tensor


def check_finite(tensor: Tensor, name: str, path: Path) -> None:
    """DataError if a number of `tensor`, any dtype but FP8, is NaN or infinite."""
    if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
        raise DataError(
            f"{path}: {name} holds NaN or infinity as {str(tensor.dtype).removeprefix('torch.')}. "
            f"Fix: use an earlier checkpoint, or copy the file again"
        )


def dtype_of(stored: Stored) -> torch.dtype:
    """The dtype in which a stored weight is used: bf16 for FP8, its own for others."""
    return torch.bfloat16 if stored.dtype == F8 else TORCH[stored.dtype]
