"""What an engine is made of on this machine: device, precision, memory."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from fathom.config.engine import EngineConfig
from fathom.config.errors import ConfigError, need
from fathom.config.model import ModelConfig
from fathom.ops.products import Products, choose_products

FREE_SHARE = 4  # the cache takes 1/FREE_SHARE of free memory when nobody says how much
GIB = 1 << 30


class Backend(NamedTuple):
    """Where and how the engine computes."""

    device: torch.device
    dtype: torch.dtype
    products: Products


def choose_backend(config: EngineConfig, stored: torch.dtype) -> Backend:
    """Resolve "auto"; `stored` is the dtype of the checkpoint's weights."""
    cuda = torch.cuda.is_available()
    need(
        config.device != "cuda" or cuda,
        "engine.device='cuda', but torch sees no GPU",
        fix="set engine.device=auto, or install a CUDA build of torch",
        error=ConfigError,
    )
    device = torch.device("cuda" if config.device == "cuda" or (config.device == "auto" and cuda) else "cpu")
    narrow = device.type == "cuda" or (stored == torch.bfloat16 and _has_bf16_instructions())
    precision = config.precision if config.precision != "auto" else "bf16" if narrow else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Backend(device, dtype, choose_products(device, dtype))


def _has_bf16_instructions() -> bool:
    """Whether this CPU multiplies bf16 itself; others are tens of times slower in it than in fp32."""
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asks)


def number_of_pages(config: EngineConfig, model: ModelConfig, backend: Backend, *, draft: bool) -> int:
    """Pages of the cache: as asked, or what the memory holds; never more than can be used.

    raises   ConfigError when not even one page fits
    """
    context = min(config.max_context or model.max_positions, model.max_positions)
    most = config.max_running * -(-context // config.page_size)
    if config.pages:
        return min(config.pages, most)
    layers = model.num_layers + draft
    size = layers * config.page_size * model.attention.cache_elements * backend.dtype.itemsize
    held = int(config.cache_gib * GIB) if config.cache_gib else free_memory(backend.device) // FREE_SHARE
    need(
        held >= size,
        f"the cache has {held:,} bytes, and one page of {config.page_size} positions takes {size:,}",
        fix="set engine.cache_gib higher or engine.page_size lower",
        error=ConfigError,
    )
    return min(held // size, most)


def free_memory(device: torch.device) -> int:
    """Bytes that can be had."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
