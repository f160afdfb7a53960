"""What the FP8 layers of one model share: the backend, how gradients are cut, what was quantised last."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fathom.ops.deferred import WeightGradients
from fathom.ops.fp8.backend import Backend
from fathom.ops.fp8.tiles import BLOCK, Quantized

LAST = 1 << 20  # more than there are blocks
GRADIENT = "the gradient of its output"  # what is looked at in backward passes
REMEMBERED = 2  # inputs: between the two maps that read attention's input, another reads the query's latent
Gradients = Literal["tiles", "blocks"]  # how activation gradients are cut for Dgrad; blocks: appendix B.2


class Found(NamedTuple):
    """What was not finite, sorted by time, on whatever rank: forward first, and layer by layer."""

    backward: bool
    layer: int  # negative in a backward pass
    seen: int  # looks of that rank before it
    what: str  # layer and tensor


class NotFinite:
    """Which layer was the first of a step to see a NaN or an infinity.

    Scales tell: a tile that holds one has a scale that is one. Nothing waits for a GPU until somebody asks.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], tuple[nn.Module, Tensor]] = {}

    def look(self, module: nn.Module, what: str, scale: Tensor) -> None:
        """`module` has read `what` with these scales."""
        fine = scale.isfinite().all()
        key = (id(module), what)
        before = self._seen.get(key)
        self._seen[key] = (module, fine if before is None else before[1] & fine)

    def first(self, model: nn.Module) -> Found | None:
        """The first of a step, layers by their names in `model`: "layers.1.ffn.experts: its input"."""
        names = {id(module): name for name, module in model.named_modules()}
        found = []
        for seen, ((key, what), (_, fine)) in enumerate(self._seen.items()):
            if not fine:
                name, back = names.get(key, "a layer"), what == GRADIENT
                layer = _layer(name)
                found.append(Found(back, -layer if back else layer, seen, f"{name}: {what}"))
        return min(found, default=None)

    def clear(self) -> None:
        """Begin a new step."""
        self._seen.clear()


def _layer(name: str) -> int:
    """The block that a layer belongs to: those of MTP follow the trunk's."""
    parts = name.split(".")
    number = next((int(part) for part in parts if part.isdigit()), 0)
    return number + (LAST if "mtp" in parts else 0)


class Shared:
    """One of it for all FP8 layers of a model."""

    def __init__(
        self, backend: Backend, weight_gradients: WeightGradients, gradients: Gradients = "tiles"
    ) -> None:
        self.backend, self.weight_gradients, self.gradients = backend, weight_gradients, gradients
        self.not_finite = NotFinite()
        self._last: deque[tuple[weakref.ref[Tensor], int, bool, Quantized]] = deque(maxlen=REMEMBERED)

    @torch.no_grad()
    def input(self, x: Tensor, *, power_of_two: bool = False) -> Quantized:
        """[..., D] as tiles of [N, D]; made once for layers that read the same tensor in turn.

        Changes in place are seen, but for those through `x.data`.
        """
        if x.is_inference():
            return self.backend.tiles(x.flatten(0, -2), power_of_two=power_of_two)
        for of, version, rounded, made in self._last:
            if of() is x and version == x._version and rounded == power_of_two:
                return made
        made = self.backend.tiles(x.flatten(0, -2), power_of_two=power_of_two)
        self._last.append((weakref.ref(x, self._forget), x._version, power_of_two, made))
        return made

    def _forget(self, of: weakref.ref[Tensor]) -> None:
        """Hold nothing of a tensor that is gone."""
        kept = [entry for entry in self._last if entry[0] is not of]
        self._last.clear()
        self._last.extend(kept)

    def __getstate__(self) -> dict[str, Any]:
        """Without what was read last: a copy reads anew."""
        return self.__dict__ | {"_last": deque(maxlen=REMEMBERED), "not_finite": NotFinite()}

    def gradient(self, dy_NY: Tensor, *, power_of_two: bool = False) -> Quantized:
        """An activation gradient as Dgrad wants it: tiles, or blocks whose rows share their scales."""
        if self.gradients == "tiles":
            return self.backend.tiles(dy_NY, power_of_two=power_of_two)
        q, scale_AG = self.backend.blocks(dy_NY)
        return Quantized(q, scale_AG.repeat_interleave(BLOCK, 0)[: len(dy_NY)])
