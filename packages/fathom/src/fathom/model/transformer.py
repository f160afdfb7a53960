"""The whole network: embedding, blocks, MTP modules, head (report section 2, figures 2 and 3).

Axes:  B rows   T positions   D model width   V vocabulary   P rotated pairs   N = B*T tokens
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fathom.config.model import ModelConfig
from fathom.model.block import Block, Rows
from fathom.model.cache import Cache
from fathom.model.experts import Dispatch, LocalDispatch, MoE
from fathom.model.init import initialise
from fathom.model.mtp import MTPModule, shift
from fathom.model.router import Routing
from fathom.ops.kernels import Kernels, PlainKernels
from fathom.ops.rope import Rotation, frequencies, rotation


class Output(NamedTuple):
    """What a forward pass leaves: states ready for the head, and who went where."""

    hidden_BTD: Tensor  # after the final norm; position i predicts token i+1
    mtp_BTD: tuple[Tensor, ...]  # one per MTP module, after its norm; [k-1][:, i] predicts token i+k+1
    routing: tuple[Routing, ...]  # one per MoE layer, trunk first, then MTP modules


class Transformer(nn.Module):
    """DeepSeek-V3. Where experts live and how matrices multiply is handed in; the page stays the same."""

    frequency_P: Tensor

    def __init__(
        self,
        config: ModelConfig,
        *,
        kernels: Kernels | None = None,
        dispatch: Dispatch | None = None,
        seed: int | None = 0,
    ) -> None:
        """Build and, unless `seed` is None, fill with initial weights (on the current default device)."""
        super().__init__()
        kernels = kernels or PlainKernels()
        dispatch = dispatch or LocalDispatch(kernels.row_multiple, kernels.spread)
        self.config = config
        self.recompute = False  # train sets it: blocks run again in the backward pass instead of being stored
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size, _weight=_empty_table(config))
        self.layers = nn.ModuleList(Block(config, i, kernels, dispatch) for i in range(config.num_layers))
        self.norm = kernels.norm(config.hidden_size, config.norm_eps)
        self.head = kernels.linear(config.hidden_size, config.vocab_size, "full")
        self.mtp = nn.ModuleList(MTPModule(config, k, kernels, dispatch) for k in range(config.mtp.depth))
        frequency_P = frequencies(config.rope, config.attention.rope_head)
        self.register_buffer("frequency_P", frequency_P, persistent=False)
        if seed is not None and not self.embed.weight.is_meta:
            initialise(self, config.init_std, torch.Generator(self.embed.weight.device).manual_seed(seed))

    def forward(
        self,
        token_BT: Tensor,
        *,
        segment_BT: Tensor | None = None,
        mask_documents: bool = False,
        mtp: bool = False,
        cache: Cache | None = None,
        choices: Sequence[Tensor] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Output:
        """Run tokens [B, T] through the trunk and, with `mtp`, through the MTP modules.

        segment_BT      document number of each position, -1 = padding (not counted in loads); None = all real
        mask_documents  attention stays inside a document
        cache           the past; T new positions follow its length
        choices         experts [N, K] of each MoE layer, to replay a routing
        dtype           of activations; None = that of the weights
        """
        assert not (mtp and cache is not None), "MTP modules have no cache of their own here"
        real_BT = torch.ones_like(token_BT, dtype=torch.bool) if segment_BT is None else segment_BT >= 0
        turn = self._turn(token_BT.shape[1], cache.length if cache is not None else 0)
        rows = Rows(turn, real_BT, segment_BT if mask_documents else None, cache)
        replay = iter(choices) if choices is not None else None
        x_BTD = self._embed(token_BT, dtype)
        routing: list[Routing] = []
        for block in self.layers:
            x_BTD, chosen = self._run(block, replay, x_BTD, rows)
            routing += [chosen] if chosen is not None else []
        if cache is not None:
            cache.advance(token_BT.shape[1])
        hidden_BTD = self.norm(x_BTD)
        further: tuple[Tensor, ...] = ()
        if mtp:
            state_BTD = hidden_BTD if self.config.mtp.trunk == "post_norm" else x_BTD
            borders_BT = segment_BT if self.config.mtp.mask_borders else None
            further = self._predict_further(token_BT, state_BTD, rows, borders_BT, replay, routing)
        return Output(hidden_BTD, further, tuple(routing))

    def logits(
        self, token_BT: Tensor, *, cache: Cache | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Next-token logits of every position. [B, T] -> [B, T, V]."""
        y: Tensor = self.head(self(token_BT, cache=cache, dtype=dtype).hidden_BTD)
        return y

    @property
    def head_weight(self) -> Tensor:
        """The head's matrix, [V, D], shared by the trunk and the MTP modules."""
        weight: Tensor = self.head.weight  # type: ignore[assignment]  # what Kernels promises
        return weight

    def _predict_further(
        self,
        token_BT: Tensor,
        h_BTD: Tensor,
        rows: Rows,
        borders_BT: Tensor | None,
        replay: Iterator[Tensor] | None,
        routing: list[Routing],
    ) -> tuple[Tensor, ...]:
        """The chain of MTP modules; without a token i+k a position embeds as zero and counts in no load."""
        states = []
        for k, module in enumerate(self.mtp, start=1):
            next_BT, exists_BT = shift(token_BT, k, borders_BT)
            embedded_BTD = self._embed(next_BT, h_BTD.dtype) * exists_BT[..., None].to(h_BTD.dtype)
            inner = rows._replace(real_BT=rows.real_BT & exists_BT, cache=None)
            h_BTD, chosen = self._run(module, replay, h_BTD, embedded_BTD, inner)
            routing += [chosen] if chosen is not None else []
            states.append(cast(MTPModule, module).norm(h_BTD))
        return tuple(states)

    def _run(
        self, module: nn.Module, replay: Iterator[Tensor] | None, *inputs: Any
    ) -> tuple[Tensor, Routing | None]:
        """Call a block or MTP module; inner activations are stored, or made again in the backward pass."""
        block = module.block if isinstance(module, MTPModule) else module
        expert_NK = next(replay) if replay is not None and isinstance(block.ffn, MoE) else None
        result: tuple[Tensor, Routing | None]
        if self.recompute and torch.is_grad_enabled():
            result = checkpoint(module, *inputs, expert_NK, use_reentrant=False)
        else:
            result = module(*inputs, expert_NK)
        return result

    def _embed(self, token_BT: Tensor, dtype: torch.dtype | None) -> Tensor:
        return F.embedding(token_BT, self.embed.weight).to(dtype or self.embed.weight.dtype)

    def _turn(self, T: int, start: int) -> Rotation:
        position_T = torch.arange(start, start + T, device=self.frequency_P.device)
        return rotation(self.frequency_P, position_T, self.config.rope.table_factor)


def _empty_table(config: ModelConfig) -> Tensor:
    """An unfilled table: the default one would be filled twice."""
    return torch.empty(config.vocab_size, config.hidden_size)
