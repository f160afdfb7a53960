"""The parts of the network that one rank holds, and what a pipeline does with them.

Parameters have the names they have in `Transformer`, whichever rank holds them; a rank of an expert group has
a slice of each stack of experts. The embedding lies with the first stage, head and MTP with the last, which
embeds tokens too if it has MTP modules: where those are two ranks, the trainer sums the gradients of both
copies (report section 3.2.3 keeps them on one rank, and so does DualPipe here).

Axes:  B rows   T positions   D model width   E experts
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fathom.config.model import ModelConfig
from fathom.model.block import Block, Rows
from fathom.model.experts import Dispatch
from fathom.model.mtp import MTPModule, shift
from fathom.model.router import Routing
from fathom.model.transformer import Transformer
from fathom.ops.deferred import Left, WeightGradients, finish
from fathom.ops.kernels import FastKernels, Kernels
from fathom.ops.loss import cross_entropy
from fathom.ops.norm import RMSNorm
from fathom.ops.rope import frequencies, rotation
from fathom.parallel.passage import Passage
from fathom.parallel.piece import Piece
from fathom.schedule.cut import cut

Steps = Generator[None, None, Tensor | None]
MAIN, MTP, SEQUENCE = range(3)  # of `Step.sums`


class Micro(NamedTuple):
    """One micro-batch."""

    token_BT: Tensor
    segment_BT: Tensor  # -1 = padding
    label: list[Tensor]  # [B, T] each: the trunk's and every MTP module's
    share: float  # of the rows of the whole batch, on all ranks


@dataclass(kw_only=True)
class Step:
    """One optimizer step: what its losses count, its micro-batches, and what came out on this rank."""

    micros: Sequence[Micro]
    targets: int  # labels of the trunk in the whole batch, on all ranks
    mtp: float  # lambda
    sequence: float  # alpha
    dtype: torch.dtype  # of activations
    mask_documents: bool = False
    recompute: bool = False
    sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    def add(self, what: int, loss: Tensor) -> None:
        """Count MAIN, MTP (nats per target of the whole batch) or SEQUENCE (summed over layers)."""
        if self.sums.device != loss.device:
            self.sums = self.sums.to(loss.device)
        self.sums[what] += loss.detach()


class Stages(nn.Module):
    """All stages that one rank holds."""

    frequency_P: Tensor

    def __init__(
        self, config: ModelConfig, stages: int, held: Iterable[int], kernels: Kernels, dispatch: Dispatch
    ) -> None:
        """`held` of stages 0 to stages-1. Weights are not filled."""
        super().__init__()
        self.config, self.held = config, tuple(sorted(set(held)))
        self.first, self.last = 0 in self.held, stages - 1 in self.held
        parts = cut(config.num_layers, stages)
        self.layers_of = {s: parts[s] for s in self.held}
        self.tied = config.mtp.depth > 0 and stages > 1 and self.first != self.last  # another rank embeds too
        D, V = config.hidden_size, config.vocab_size
        if self.first or (self.last and config.mtp.depth):
            self.embed = nn.Embedding(V, D, _weight=torch.empty(V, D))
        own = sorted({i for part in self.layers_of.values() for i in part})
        self.layers = nn.ModuleDict({str(i): Block(config, i, kernels, dispatch) for i in own})
        if self.last:
            self.norm = kernels.norm(D, config.norm_eps)
            self.head = kernels.linear(D, V, "full")
            depth = config.mtp.depth
            self.mtp = nn.ModuleList(MTPModule(config, k, kernels, dispatch) for k in range(depth))
        frequency_P = frequencies(config.rope, config.attention.rope_head)
        self.register_buffer("frequency_P", frequency_P, persistent=False)
        self.later = kernels.weight_gradients if isinstance(kernels, FastKernels) else WeightGradients()
        self.loads: dict[int, Tensor] = {}  # tokens per expert of this step, by layer; MTP's count on

    def block(self, layer: int) -> Block:
        """One layer of the trunk."""
        found = self.layers[str(layer)]
        assert isinstance(found, Block)
        return found

    def note(self, layer: int, routing: Routing) -> None:
        """Count where tokens went."""
        count_E = routing.count_E
        self.loads[layer] = self.loads[layer] + count_E if layer in self.loads else count_E


class Stage:
    """One stage, as the executor knows it."""

    def __init__(self, model: Stages, number: int, stages: int, step: Step) -> None:
        self._model, self._step = model, step
        self._layers = model.layers_of[number]
        self._first, self._last = number == 0, number == stages - 1
        self._trips: dict[int, _Trip] = {}
        self._left: dict[int, Left] = {}

    def forward(self, micro: int, x: Tensor | None) -> Steps:
        """Through the layers; the last stage goes on to the losses, and back through head and MTP."""
        model, step, given = self._model, self._step, self._step.micros[micro]
        trip = self._trips[micro] = _Trip(self._rows(given))
        if self._first:
            trip.embed = Piece(lambda: (self._embed(given.token_BT),))
            (x,) = trip.embed.take()
        assert x is not None, "a stage behind the first has an input"
        for layer in self._layers:
            passage = Passage(model.block(layer), trip.rows, model.later, recompute=step.recompute)
            trip.passages.append(passage)
            x = yield from passage.forward(x)
            if passage.routing is not None:
                model.note(layer, passage.routing)
                step.add(SEQUENCE, passage.routing.sequence_loss * given.share)
        if not self._last:
            return x
        end = Piece(lambda h: (self._losses(h, trip.rows, given),), x)
        (trip.gradient,) = end.backward(torch.ones_like(end.take()[0]))  # the head's own gradient is large
        return None

    def backward(self, micro: int, dy: Tensor | None, *, keep: bool) -> Steps:
        """Back through the layers."""
        step, trip = self._step, self._trips.pop(micro)
        left: Left = []
        if trip.gradient is not None:
            dy, trip.gradient = trip.gradient, None
        assert dy is not None, "a stage before the last is given a gradient"
        share = step.micros[micro].share
        while trip.passages:  # what one held is let go before the next
            dy = yield from trip.passages.pop().backward(dy, step.sequence * share, left, keep=keep)
        if keep:
            self._left[micro] = left
        if trip.embed is None:
            return dy
        trip.embed.backward(dy)
        return None

    def weights(self, micro: int) -> None:
        """What `keep` left."""
        finish(self._left.pop(micro))

    def _rows(self, given: Micro) -> Rows:
        T, table = given.token_BT.shape[1], self._model.config.rope.table_factor
        turn = rotation(self._model.frequency_P, torch.arange(T, device=given.token_BT.device), table)
        documents_BT = given.segment_BT if self._step.mask_documents else None
        return Rows(turn, given.segment_BT >= 0, documents_BT)

    def _embed(self, token_BT: Tensor) -> Tensor:
        return F.embedding(token_BT, self._model.embed.weight).to(self._step.dtype)

    def _losses(self, x_BTD: Tensor, rows: Rows, given: Micro) -> Tensor:
        """The trunk's and MTP's losses as one number to differentiate (report eq 24, 25)."""
        model, step, config = self._model, self._step, self._model.config
        hidden_BTD = model.norm(x_BTD)
        main = self._cross_entropy(hidden_BTD, given.label[0])
        mtp = sequence = main.new_zeros(())
        h_BTD = hidden_BTD if config.mtp.trunk == "post_norm" else x_BTD
        borders_BT = given.segment_BT if config.mtp.mask_borders else None
        for k, module in enumerate(model.mtp, start=1):
            assert isinstance(module, MTPModule)
            next_BT, exists_BT = shift(given.token_BT, k, borders_BT)
            embedded_BTD = self._embed(next_BT) * exists_BT[..., None].to(h_BTD.dtype)
            inner = rows._replace(real_BT=rows.real_BT & exists_BT)
            h_BTD, routing = module(h_BTD, embedded_BTD, inner)
            if routing is not None:
                model.note(config.num_layers + k - 1, routing)
                sequence = sequence + routing.sequence_loss * given.share
            mtp = mtp + self._cross_entropy(module.norm(h_BTD), given.label[k]) / config.mtp.depth
        for what, loss in ((MAIN, main), (MTP, mtp), (SEQUENCE, sequence)):
            step.add(what, loss)
        return main + step.mtp * mtp + step.sequence * sequence

    def _cross_entropy(self, h_BTD: Tensor, label_BT: Tensor) -> Tensor:
        weight_VD = self._model.head.weight
        assert isinstance(weight_VD, Tensor)
        return cross_entropy(h_BTD.flatten(0, 1), weight_VD, label_BT.flatten()) / max(self._step.targets, 1)


class _Trip:
    """What a micro-batch leaves in a stage until it comes back."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.embed: Piece | None = None
        self.passages: list[Passage] = []
        self.gradient: Tensor | None = None  # of the last stage's states, by the losses


@torch.no_grad()
def fill(model: Stages, experts: range, seed: int) -> None:
    """Initial weights: those that `Transformer(config, seed=seed)` would have, whoever holds what.

    Every tensor of the whole network is drawn, in the order of names; what is not this rank's is let go.
    """
    own, config = dict(model.named_parameters()), model.config
    device = next(iter(own.values())).device
    with torch.device("meta"):
        whole = Transformer(config, seed=None)
    gains = {id(m.weight) for m in whole.modules() if isinstance(m, RMSNorm)}
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in sorted(whole.named_parameters()):
        if id(parameter) in gains:
            drawn = torch.ones(parameter.shape, device=device)
        else:
            drawn = torch.empty(parameter.shape, device=device)
            drawn.normal_(0.0, config.init_std, generator=generator)
        if name in own:
            own[name].copy_(mine(name, drawn, experts))
    for name, buffer in model.named_buffers():
        if name.endswith("router.bias"):
            buffer.zero_()


def mine(name: str, tensor: Tensor, experts: range) -> Tensor:
    """A rank's part of a tensor of the whole network: of a stack, its experts; else all of it."""
    return tensor[experts.start : experts.stop] if ".ffn.experts." in name else tensor
