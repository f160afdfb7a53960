"""What an engine is made of on this machine: device, precision, memory, whether its promise holds."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from torch import Tensor

from fathom.config.engine import EngineConfig
from fathom.config.errors import ConfigError, need
from fathom.config.model import ModelConfig
from fathom.engine.attention import Pairs, decode_attention
from fathom.ops.products import Products, choose_products, row_exact

FREE_SHARE = 4  # the cache takes 1/FREE_SHARE of free memory when nobody says how much
ROW_COUNTS = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 32, 48, 64, 65, 100, 128)  # numbers of rows that are tried
GIB = 1 << 30


class Backend(NamedTuple):
    """Where and how the engine computes."""

    device: torch.device
    dtype: torch.dtype
    products: Products
    inexact: tuple[str, ...]  # what does not give every row the same bits in any company; () = nothing


def choose_backend(config: EngineConfig, model: ModelConfig, state: dict[str, Tensor]) -> Backend:
    """Resolve "auto", then test the promise of exactness on this machine, on the shapes of this model."""
    cuda = torch.cuda.is_available()
    need(
        config.device != "cuda" or cuda,
        "engine.device='cuda', but torch sees no GPU",
        fix="set engine.device=auto, or install a CUDA build of torch",
        error=ConfigError,
    )
    device = torch.device("cuda" if config.device == "cuda" or (config.device == "auto" and cuda) else "cpu")
    stored = state["embed.weight"].dtype
    narrow = device.type == "cuda" or (stored == torch.bfloat16 and _has_bf16_instructions())
    precision = config.precision if config.precision != "auto" else "bf16" if narrow else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    products = choose_products(device, dtype)
    return Backend(device, dtype, products, tuple(_inexact(products, model, state, device, dtype)))


def _has_bf16_instructions() -> bool:
    """Whether this CPU multiplies bf16 itself; others are tens of times slower in it than in fp32."""
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asks)


def _inexact(
    products: Products, model: ModelConfig, state: dict[str, Tensor], device: torch.device, dtype: torch.dtype
) -> list[str]:
    """What was found to depend on company."""
    found = []
    shapes = {tuple(t.shape[-2:]) for name, t in state.items() if t.ndim > 1 and name != "embed.weight"}
    generator = torch.Generator().manual_seed(1)
    for Y, X in sorted(shapes):
        weight_YX = torch.randn(min(Y, 4096), X, generator=generator).to(device, dtype)
        if not row_exact(products, weight_YX, ROW_COUNTS):
            found.append(f"{products.name} of {X} by {Y}")
    if not _attention_exact(model, device, dtype):
        found.append("attention over pages")
    return found


def _attention_exact(model: ModelConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a row attends to its pages alike, alone and beside others."""
    a, S, A = model.attention, 16, 3
    generator = torch.Generator().manual_seed(2)
    pool_GSE = torch.randn(16, S, a.cache_elements, generator=generator).to(device, dtype)
    q_RHE = torch.randn(16, a.num_heads, a.cache_elements, generator=generator).to(device, dtype)

    def attend(rows: int) -> Tensor:
        row_J = torch.arange(rows, device=device).repeat_interleave(A)
        page_J = (row_J * 5 + torch.arange(rows * A, device=device) % A) % len(pool_GSE)
        hidden_J1S = torch.zeros(rows * A, 1, S, dtype=torch.bool, device=device)
        start_R = torch.arange(0, rows * A, A, device=device)
        pairs = Pairs(row_J, page_J, hidden_J1S, start_R, [A] * rows)
        return decode_attention(q_RHE[:rows], pool_GSE, pairs, model.softmax_scale, a.kv_rank)

    whole = attend(len(q_RHE))
    return all(torch.equal(attend(rows), whole[:rows]) for rows in (1, 2, 5, 11))


def number_of_pages(config: EngineConfig, model: ModelConfig, backend: Backend, *, draft: bool) -> int:
    """Pages of the cache: as asked, or what the memory holds; never more than can be used.

    raises   ConfigError when not even one page fits
    """
    most = config.max_running * -(-model.max_positions // config.page_size)
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
