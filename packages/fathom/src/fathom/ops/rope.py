"""Rotary positions, interleaved as in the official checkpoint, with YaRN (report 4.3; arXiv 2309.00071).

Axes:  B batch   T positions   P = R/2 rotated pairs   R rope channels of a head
Channels 2p and 2p+1 of a head are one complex number, turned by position * frequency_p.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fathom.config.model import RopeConfig


class Rotation(NamedTuple):
    """cos and sin of every position and pair, each [T, P] or [B, T, P], fp32 or wider."""

    cos: Tensor
    sin: Tensor


def frequencies(rope: RopeConfig, channels: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Radians per position of each pair, [channels/2].

    Under YaRN a pair that turns more than `beta_fast` times within the original length keeps its frequency,
    one that turns less than `beta_slow` times is slowed by `factor`, and those between are mixed linearly.
    """
    pair_P = torch.arange(0, channels, 2, dtype=torch.float64) / channels
    theta_P = rope.theta**-pair_P
    if rope.factor == 1.0:
        return theta_P.to(dtype)
    low = max(math.floor(_pair_that_turns(rope.beta_fast, rope, channels)), 0)
    high = min(math.ceil(_pair_that_turns(rope.beta_slow, rope, channels)), channels - 1)
    ramp_P = (torch.arange(channels // 2, dtype=torch.float64) - low) / (high - low or 0.001)
    ramp_P = ramp_P.clamp(0.0, 1.0)
    return (theta_P / rope.factor * ramp_P + theta_P * (1.0 - ramp_P)).to(dtype)


def _pair_that_turns(turns: float, rope: RopeConfig, channels: int) -> float:
    """Index (a real number) of the pair that makes `turns` turns within the original length."""
    return channels * math.log(rope.original_positions / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))


def rotation(frequency_P: Tensor, position_T: Tensor, factor: float = 1.0) -> Rotation:
    """The turn of every position: angles [..., T, P]; the tables carry YaRN's `factor` (1 for V3)."""
    angle_TP = position_T[..., None].to(frequency_P.dtype) * frequency_P
    return Rotation(angle_TP.cos() * factor, angle_TP.sin() * factor)


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """Turn the pairs of `x` [..., T, R] by `turn` (broadcast over leading axes); same shape and dtype."""
    x0, x1 = x.to(turn.cos.dtype).unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((x0 * turn.cos - x1 * turn.sin, x0 * turn.sin + x1 * turn.cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def of_channels(turn: Rotation) -> Rotation:
    """A turn of pairs, [..., P], as `rotate_rows` takes it: of channels, [..., 2P], signs included."""
    cos, sin = (t.repeat_interleave(2, -1) for t in turn)
    sin[..., ::2].neg_()
    return Rotation(cos, sin)


def rotate_rows(x: Tensor, turn: Rotation) -> Tensor:
    """`rotate` by a turn of channels, in fewer steps and to the same bits; without a gradient."""
    y = x.to(turn.cos.dtype)
    other = y.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)  # of the pair
    return torch.mul(y, turn.cos).add_(other.mul_(turn.sin)).to(x.dtype)


def fast_rotate(x: Tensor, turn: Rotation) -> Tensor:
    """`rotate` as one product of complex numbers, backward by the conjugate."""
    y: Tensor = _Rotate.apply(x, torch.complex(turn.cos, turn.sin))
    return y


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, turn_TP: Tensor) -> Tensor:
        ctx.save_for_backward(turn_TP)
        return _turned(x, turn_TP)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        (turn_TP,) = ctx.saved_tensors
        return _turned(grad[0], turn_TP.conj()), None


def _turned(x: Tensor, turn_TP: Tensor) -> Tensor:
    aligned = torch.empty(x.shape, dtype=turn_TP.real.dtype, device=x.device).copy_(x)  # x may be a slice
    pair = torch.view_as_complex(aligned.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pair * turn_TP).flatten(-2).to(x.dtype)
