"""Multi-head latent attention: DeepSeek-V3 report, section 2.1.1, equations 1-11.

Axes:  B batch   T query positions   S key positions   D model width   H heads
       Q query latent   C kv latent   N no-position head   R rope head   K = N+R   V value head
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fathom.config.model import ModelConfig
from fathom.model.cache import Cache
from fathom.ops.attention import causal_mask
from fathom.ops.kernels import Kernels
from fathom.ops.norm import wide
from fathom.ops.rope import Rotation


class MLA(nn.Module):
    """Attention whose keys and values come from one small latent per token; only that latent is cached."""

    def __init__(self, config: ModelConfig, kernels: Kernels) -> None:
        super().__init__()
        a, D = config.attention, config.hidden_size
        self.shape, self.scale, self.kernels = a, config.softmax_scale, kernels
        if a.q_rank:
            self.q_a = kernels.linear(D, a.q_rank)
            self.q_norm = kernels.norm(a.q_rank, config.norm_eps)
            self.q_b = kernels.linear(a.q_rank, a.num_heads * a.qk_head)
        else:
            self.q = kernels.linear(D, a.num_heads * a.qk_head)
        self.kv_a = kernels.linear(D, a.kv_rank + a.rope_head)
        self.kv_norm = kernels.norm(a.kv_rank, config.norm_eps)
        self.kv_b = kernels.linear(a.kv_rank, a.num_heads * (a.nope_head + a.value_head))
        self.out = kernels.linear(a.num_heads * a.value_head, D, "finer")

    def forward(
        self,
        x_BTD: Tensor,
        turn: Rotation,
        *,
        document_BT: Tensor | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """[B, T, D] -> [B, T, D], each position looking at itself and before.

        Whole rows (training, prefill) take the expanded form, new positions behind a cached past the
        absorbed one.
        """
        q_BHTN, q_BHTR = self._queries(x_BTD, turn)
        c_BSC, k_BSR = self._latent(x_BTD, turn)
        if cache is not None:
            past = cache.length
            c_BSC, k_BSR = cache.append(layer, c_BSC, k_BSR)
            if past:
                return self._output(self._absorbed(q_BHTN, q_BHTR, c_BSC, k_BSR))
        return self._output(self._expanded(q_BHTN, q_BHTR, c_BSC, k_BSR, document_BT))

    def absorbed(self, x_BTD: Tensor, turn: Rotation) -> Tensor:
        """The decoding form over a whole row; equal to `forward` but for rounding. [B, T, D] -> [B, T, D]."""
        return self._output(self._absorbed(*self._queries(x_BTD, turn), *self._latent(x_BTD, turn)))

    def _queries(self, x_BTD: Tensor, turn: Rotation) -> tuple[Tensor, Tensor]:
        a = self.shape
        q_BTX = self.q_b(self.q_norm(self.q_a(x_BTD))) if a.q_rank else self.q(x_BTD)  # eq 6, 7
        q_BHTK = q_BTX.unflatten(-1, (a.num_heads, a.qk_head)).transpose(1, 2)
        q_BHTN, q_BHTR = q_BHTK.split((a.nope_head, a.rope_head), dim=-1)
        return q_BHTN, self.kernels.rotate(q_BHTR, _per_head(turn))                            # eq 8

    def _latent(self, x_BTD: Tensor, turn: Rotation) -> tuple[Tensor, Tensor]:
        """All that is cached: the normalised latent and the one rotated key, shared by all heads."""
        c_BTC, k_BTR = self.kv_a(x_BTD).split((self.shape.kv_rank, self.shape.rope_head), dim=-1)
        return self.kv_norm(c_BTC), self.kernels.rotate(k_BTR, turn)                           # eq 1, 3

    def _expanded(
        self, q_BHTN: Tensor, q_BHTR: Tensor, c_BSC: Tensor, k_BSR: Tensor, document_BT: Tensor | None
    ) -> Tensor:
        """Training form: every head's key and value are built from the latent. -> [B, H, T, V]."""
        a = self.shape
        kv_BHSX = self.kv_b(c_BSC).unflatten(-1, (a.num_heads, a.nope_head + a.value_head)).transpose(1, 2)
        k_BHSN, v_BHSV = kv_BHSX.split((a.nope_head, a.value_head), dim=-1)       # eq 2, 5
        k_BHSR = k_BSR[:, None].expand(-1, a.num_heads, -1, -1)
        q_BHTK = torch.cat((q_BHTN, q_BHTR), dim=-1)                              # eq 9
        k_BHSK = torch.cat((k_BHSN, k_BHSR), dim=-1)                              # eq 4
        return self.kernels.attention(q_BHTK, k_BHSK, v_BHSV, self.scale, document_BT)  # eq 10

    def _absorbed(self, q_BHTN: Tensor, q_BHTR: Tensor, c_BSC: Tensor, k_BSR: Tensor) -> Tensor:
        """Decoding form: W^UK moves to the query and W^UV to the output, so latents are used as they are.

        It is attention with one (C + R)-wide key for all heads whose first C channels are also the value.
        """
        a = self.shape
        weight_XC: Tensor = self.kv_b.weight  # type: ignore[assignment]  # what Kernels promises
        kv_HXC = weight_XC.to(c_BSC.dtype).unflatten(0, (a.num_heads, a.nope_head + a.value_head))
        up_k_HNC, up_v_HVC = kv_HXC.split((a.nope_head, a.value_head), dim=1)
        q_BHTC = torch.einsum("bhtn,hnc->bhtc", q_BHTN, up_k_HNC)
        score_BHTS = torch.einsum("bhtc,bsc->bhts", q_BHTC, c_BSC)
        score_BHTS = wide(score_BHTS + torch.einsum("bhtr,bsr->bhts", q_BHTR, k_BSR)) * self.scale
        T, S = score_BHTS.shape[-2:]
        prob_BHTS = score_BHTS.masked_fill(~causal_mask(T, S, device=c_BSC.device), -torch.inf).softmax(-1)
        z_BHTC = torch.einsum("bhts,bsc->bhtc", prob_BHTS.to(c_BSC.dtype), c_BSC)
        return torch.einsum("bhtc,hvc->bhtv", z_BHTC, up_v_HVC)

    def _output(self, o_BHTV: Tensor) -> Tensor:
        y_BTD: Tensor = self.out(o_BHTV.transpose(1, 2).flatten(-2))              # eq 11
        return y_BTD


def _per_head(turn: Rotation) -> Rotation:
    """A rotation per row, [B, T, P], gets a head axis; one for all rows, [T, P], needs none."""
    return Rotation(*(t[:, None] if t.ndim == 3 else t for t in turn))
