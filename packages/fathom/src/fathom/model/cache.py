"""What decoding remembers: per token and layer one latent and one rotated key (report section 2.1.1).

Axes:  B batch   T new positions   S all positions so far   C kv latent   R rope head
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fathom.config.model import ModelConfig


class Cache(Protocol):
    """Where attention keeps latents; paged, contiguous or anything that gives them back in order."""

    @property
    def length(self) -> int:
        """Positions held before this forward pass."""
        ...

    def append(self, layer: int, latent_BTC: Tensor, key_BTR: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions of `layer`; all positions so far: [B, S, C] and [B, S, R]."""
        ...

    def advance(self, count: int) -> None:
        """All layers have appended `count` positions."""
        ...


class LatentCache:
    """One contiguous tensor; (C + R) elements per token and layer, 576 for V3."""

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_layers, batch, capacity, config.attention.cache_elements)
        self._data_LBSE = torch.empty(shape, dtype=dtype, device=device)
        self._split = config.attention.kv_rank
        self._length = 0

    @property
    def length(self) -> int:
        """Positions held."""
        return self._length

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return self._data_LBSE.shape[2]

    def append(self, layer: int, latent_BTC: Tensor, key_BTR: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions of `layer` behind the old; all positions so far: [B, S, C] and [B, S, R]."""
        end = self._length + latent_BTC.shape[1]
        assert end <= self.capacity, f"{end} positions do not fit a cache of {self.capacity}"
        self._data_LBSE[layer, :, self._length : end, : self._split] = latent_BTC
        self._data_LBSE[layer, :, self._length : end, self._split :] = key_BTR
        held_BSE = self._data_LBSE[layer, :, :end]
        return held_BSE[..., : self._split], held_BSE[..., self._split :]

    def advance(self, count: int) -> None:
        """All layers have appended `count` positions."""
        self._length += count
