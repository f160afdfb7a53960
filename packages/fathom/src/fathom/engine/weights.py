"""A network's weights as the engine multiplies by them: packed once, neighbours joined, originals dropped.

Axes:  D model width   H heads   N no-position head   V value head   C kv latent   E experts   F inner width
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fathom.config.model import ModelConfig
from fathom.ops.norm import wide
from fathom.ops.products import WIDTH, Product, Products, fill
from fathom.ops.rope import Rotation, frequencies, of_channels, rotation
from fathom.ops.rowwise import RowNorm

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Attention:
    """MLA (report section 2.1.1); `down` makes query latent, kv latent and rotated key in one product."""

    norm: RowNorm
    down: Product
    q_norm: RowNorm | None  # None = queries are not compressed, and `down` makes them
    q_up: Product | None
    kv_norm: RowNorm
    kv_up: Product  # every head's key and value: the expanded form
    up_k_HNC: Tensor  # the same weights where the absorbed form wants them, both widths filled up
    up_v_HCV: Tensor
    out: Product


@dataclass(frozen=True, slots=True)
class Swiglu:
    """One SwiGLU network."""

    gate_up: Product
    down: Product


@dataclass(frozen=True, slots=True)
class Experts:
    """One MoE layer (report section 2.1.2)."""

    router: Product
    bias_E: Tensor
    each: list[Swiglu]  # the routed ones, then the shared ones, of one width


@dataclass(frozen=True, slots=True)
class Layer:
    """One block."""

    attention: Attention
    norm: RowNorm
    ffn: Swiglu | Experts


@dataclass(frozen=True, slots=True)
class Draft:
    """One MTP module (report section 2.2)."""

    token_norm: RowNorm
    hidden_norm: RowNorm
    project: Product
    layer: Layer
    norm: RowNorm


@dataclass(frozen=True, slots=True)
class Weights:
    """The whole network."""

    config: ModelConfig
    embed_VD: Tensor
    layers: list[Layer]
    norm: RowNorm
    head: Product
    draft: Draft | None  # the first MTP module, which is used again for further tokens
    turn: Rotation  # of every position and channel: [S, P]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.embed_VD.device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, activations and cache."""
        return self.embed_VD.dtype


def pack_weights(config: ModelConfig, state: State, products: Products, *, draft: bool) -> Weights:
    """Pack a model's state, which is emptied on the way so that no more than one copy is held.

    draft   pack the first MTP module too, if there is one
    """
    packer = _Packer(config, state, products)
    embed_VD = state.pop("embed.weight")
    position_S = torch.arange(config.max_positions, device=embed_VD.device)
    frequency_P = frequencies(config.rope, config.attention.rope_head).to(wide(embed_VD[:0]))
    weights = Weights(
        config=config,
        embed_VD=embed_VD,
        layers=[packer.layer(f"layers.{i}.", i) for i in range(config.num_layers)],
        norm=packer.norm("norm.weight"),
        head=packer.product("head.weight"),
        draft=packer.draft() if draft and config.mtp.depth else None,
        turn=of_channels(rotation(frequency_P, position_S, config.rope.table_factor)),
    )
    state.clear()
    return weights


def _filled_copy(weight_HXY: Tensor) -> Tensor:
    """A copy with both widths filled up."""
    X = weight_HXY.shape[1]
    return fill(F.pad(weight_HXY, (0, 0, 0, -X % WIDTH))).clone(memory_format=torch.contiguous_format)


class _Packer:
    def __init__(self, config: ModelConfig, state: State, products: Products) -> None:
        self.config, self.state, self.products = config, state, products

    def product(self, *names: str) -> Product:
        """One product of weights that share their input."""
        weights = [self.state.pop(name) for name in names]
        return self.products.pack(weights[0] if len(weights) == 1 else torch.cat(weights))

    def norm(self, name: str) -> RowNorm:
        return RowNorm(self.state.pop(name), self.config.norm_eps)

    def draft(self) -> Draft:
        return Draft(
            token_norm=self.norm("mtp.0.token_norm.weight"),
            hidden_norm=self.norm("mtp.0.hidden_norm.weight"),
            project=self.product("mtp.0.project.weight"),
            layer=self.layer("mtp.0.block.", self.config.num_layers),
            norm=self.norm("mtp.0.norm.weight"),
        )

    def layer(self, at: str, index: int) -> Layer:
        ffn = self.experts(f"{at}ffn.") if self.config.is_moe(index) else self.swiglu(f"{at}ffn.")
        return Layer(self.attention(at), self.norm(f"{at}ffn_norm.weight"), ffn)

    def attention(self, at: str) -> Attention:
        a, inner = self.config.attention, f"{at}attention."
        weight_XC = self.state[f"{inner}kv_b.weight"]
        kv_HXC = weight_XC.unflatten(0, (a.num_heads, a.nope_head + a.value_head))
        up_k_HNC, up_v_HVC = kv_HXC.split((a.nope_head, a.value_head), dim=1)
        return Attention(
            norm=self.norm(f"{at}attn_norm.weight"),
            down=self.product(f"{inner}{'q_a' if a.q_rank else 'q'}.weight", f"{inner}kv_a.weight"),
            q_norm=self.norm(f"{inner}q_norm.weight") if a.q_rank else None,
            q_up=self.product(f"{inner}q_b.weight") if a.q_rank else None,
            kv_norm=self.norm(f"{inner}kv_norm.weight"),
            up_k_HNC=_filled_copy(up_k_HNC),
            up_v_HCV=_filled_copy(up_v_HVC.transpose(1, 2)),
            kv_up=self.product(f"{inner}kv_b.weight"),
            out=self.product(f"{inner}out.weight"),
        )

    def swiglu(self, at: str) -> Swiglu:
        return Swiglu(
            self.product(f"{at}gate.weight", f"{at}up.weight"), self.product(f"{at}down.weight")
        )

    def experts(self, at: str) -> Experts:
        names = (f"{at}experts.{part}" for part in ("gate", "up", "down"))
        gate_EFD, up_EFD, down_EDF = (self.state.pop(name) for name in names)
        networks = list(zip(gate_EFD, up_EFD, down_EDF, strict=True))
        if self.config.moe.num_shared:  # one wide network is the sum of some of an expert's width
            names = (f"{at}shared.{part}.weight" for part in ("gate", "up", "down"))
            gate, up, down = (self.state.pop(name) for name in names)
            F = self.config.moe.expert_size
            networks += zip(gate.split(F), up.split(F), down.split(F, dim=1), strict=True)
        pack = self.products.pack
        return Experts(
            router=pack(wide(self.state.pop(f"{at}router.weight"))),
            bias_E=self.state.pop(f"{at}router.bias"),
            each=[Swiglu(pack(torch.cat((gate, up))), pack(down)) for gate, up, down in networks],
        )
