"""Routed experts in FP8: grouped products over rows that come in FP8 (report sections 3.3.2 and 3.3.3).

Axes:  N tokens   R rows, sorted by expert   E experts   D model width   F inner width
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fathom.ops.experts import Experts
from fathom.ops.fp8.shared import Shared
from fathom.ops.fp8.swiglu import Grouped, How, run
from fathom.ops.fp8.tiles import BLOCK, Quantized
from fathom.ops.permute import Copies


class Fp8Experts(Experts):
    """`Experts` whose inputs and gradients of outputs are quantised with powers of two, as for a journey.

    So a run whose tokens travel in FP8 and one process see the same numbers: what has such scales already
    comes out of quantisation as it went in.
    """

    def __init__(self, num_experts: int, width: int, inner: int, shared: Shared) -> None:
        super().__init__(num_experts, width, inner)
        self.shared = shared
        self._kept: tuple[Quantized, ...] | None = None

    def forward(self, x: Tensor | Copies, count_E: Tensor, weight_R: Tensor) -> Tensor:
        """Rows sorted by expert, `count_E` of each, times `weight_R`: [R, D] -> [R, D].

        Rows of each expert are a multiple of 128; on a CPU they are filled up where they are not.
        """
        if isinstance(x, Tensor) and not x.is_cuda and bool((count_E % BLOCK).any()):
            return self._filled(x, count_E, weight_R)
        copies = x if isinstance(x, Copies) else None
        x_ND = x.x_ND if isinstance(x, Copies) else x
        read = self.shared.input(x_ND, power_of_two=True)
        products = Grouped(self.shared.backend, count_E)
        how = How(self, self.shared, self.quantized(), products, power_of_two=True)
        return run(x_ND, read, (self.gate, self.up, self.down), how, weight_R, copies)

    def quantized(self) -> tuple[Quantized, ...]:
        """Gate, up and down in blocks: as kept, or made now."""
        if self._kept is not None:
            return self._kept
        return tuple(self.shared.backend.blocks(w.detach()) for w in (self.gate, self.up, self.down))

    def keep(self) -> None:
        """As `Fp8Linear.keep`."""
        self._kept = None
        self._kept = self.quantized()

    def _load_from_state_dict(self, *args: Any, **named: Any) -> None:
        """Other weights: what was kept is of no use."""
        self._kept = None
        super()._load_from_state_dict(*args, **named)

    def _filled(self, x_RD: Tensor, count_E: Tensor, weight_R: Tensor) -> Tensor:
        """With zero rows after each expert's own."""
        filled_E = (count_E + BLOCK - 1) // BLOCK * BLOCK
        before_E = (filled_E - count_E).cumsum(0) - (filled_E - count_E)
        place_R = torch.arange(len(x_RD)) + before_E.repeat_interleave(count_E)
        rows = int(filled_E.sum())
        wide = x_RD.new_zeros(rows, x_RD.shape[1]).index_copy(0, place_R, x_RD)
        y = self(wide, filled_E, weight_R.new_zeros(rows).index_copy(0, place_R, weight_R))
        return y.index_select(0, place_R)
