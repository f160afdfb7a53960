"""What training keeps in memory in bf16 and in FP8, counted from the tensors that are there.

    python benchmarks/fp8_memory.py [--json] [--tokens 512]

Activations: bytes per token that a forward pass of the mixture of experts, and of the whole block around it,
leaves for the backward pass. The shape is a quarter of V3's in every width (1792 wide, experts of 512, 32
heads of V3's own size, 8 of 32 experts and one that is shared), and every expert gets the same number of
rows, so that none fill up. `rows` is FP8 with a copy of a token for each expert, as runs of more than one
rank have it. In a block, fast and FP8 forms attend as on a GPU, by scaled_dot_product_attention.

Weights: bytes per parameter of masters, gradients, moments and copies, after a step of the optimizer.

`v3` is no count but arithmetic: the formula of `moe_bytes` at V3's widths. A test holds it to the counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.config.presets import load_preset
from fathom.config.train import OptimConfig
from fathom.model.block import Block, Rows
from fathom.model.experts import LocalDispatch
from fathom.ops.attention import fused_attention
from fathom.ops.fp8.cpu import Cpu
from fathom.ops.fp8.experts import Fp8Experts
from fathom.ops.fp8.kernels import Fp8Kernels
from fathom.ops.fp8.linear import Fp8Linear
from fathom.ops.fp8.tiles import BLOCK
from fathom.ops.held import Held, held, storage_bytes
from fathom.ops.kernels import FastKernels, Kernels, PlainKernels
from fathom.ops.permute import spread
from fathom.ops.rope import frequencies, rotation
from fathom.train.optimizer import Optimizer

ROW = 512  # tokens of a row
QUARTER = ModelConfig(
    name="quarter", vocab_size=1024, hidden_size=1792, num_layers=1, dense_layers=0, dense_size=4608,
    max_positions=4096, init_std=0.006, mtp=MTPConfig(depth=0),
    attention=AttentionConfig(
        num_heads=32, q_rank=384, kv_rank=128, nope_head=128, rope_head=64, value_head=128
    ),
    moe=MoEConfig(num_experts=32, experts_per_token=8, num_groups=8, groups_per_token=4, expert_size=512),
)  # fmt: skip
SMALL = replace(  # the weights of `QUARTER` and their moments would take 2 GB
    QUARTER, hidden_size=512, attention=replace(QUARTER.attention, num_heads=8, q_rank=128),
    moe=replace(QUARTER.moe, expert_size=128),
)  # fmt: skip


class FastBf16(FastKernels):
    """`FastKernels` in bf16 that attend as on a GPU."""

    def __init__(self) -> None:
        super().__init__(torch.bfloat16)

    def attention(self, *given: Any) -> Tensor:
        """By `fused_attention`."""
        return fused_attention(*given[:4], mask=None)


class Fp8(Fp8Kernels):
    """`Fp8Kernels` that attend as on a GPU."""

    def __init__(self) -> None:
        super().__init__(Cpu())

    attention = FastBf16.attention


@dataclass(frozen=True)
class Form:
    """A way to train."""

    kernels: type[Kernels]
    moments: torch.dtype = torch.float32
    copies_rows: bool = False  # a token for each expert that chose it, before the experts


FORMS = {
    "bf16 plain": Form(PlainKernels),
    "bf16": Form(FastBf16),
    "fp8 rows": Form(Fp8, torch.bfloat16, copies_rows=True),
    "fp8": Form(Fp8, torch.bfloat16),
}


def activations(config: ModelConfig, form: Form, tokens: int, part: str) -> list[Held]:
    """What the "moe" or the "block" of a network holds after a forward pass over `tokens` tokens."""
    return held(*passing(config, form, tokens, part))


def passing(config: ModelConfig, form: Form, tokens: int, part: str) -> tuple[nn.Module, Callable[[], Any]]:
    """A module as it is in training, and what runs it on clones: x and the choice are made anew each time."""
    kernels = form.kernels()
    dispatch = LocalDispatch(kernels.row_multiple, spread if form.copies_rows else kernels.spread)
    block = zero(Block(config, 0, kernels, dispatch))
    Optimizer(block, OptimConfig(), torch.bfloat16)
    shape = max(1, tokens // ROW), min(tokens, ROW), config.hidden_size
    x_BTD = torch.zeros(shape, dtype=torch.bfloat16, requires_grad=True)
    real_BT = torch.ones(shape[:2], dtype=torch.bool)
    expert_NK = every_expert_alike(tokens, config.moe)
    if part == "moe":
        return block.ffn, lambda: block.ffn(x_BTD.clone(), real_BT, expert_NK.clone())
    turn = rotation(frequencies(config.rope, config.attention.rope_head), torch.arange(shape[1]))
    return block, lambda: block(x_BTD.clone(), Rows(turn, real_BT), expert_NK.clone())


def zero(module: nn.Module) -> Any:
    """The same with zeros for weights: how much is held does not depend on them."""
    for parameter in module.parameters():
        parameter.data.zero_()
    return module


def every_expert_alike(tokens: int, moe: MoEConfig) -> Tensor:
    """A choice that gives every expert the same number of rows. -> int64 [N, K]."""
    each = tokens * moe.experts_per_token
    assert each % (BLOCK * moe.num_experts) == 0, f"{each} rows are no tiles of {moe.num_experts} experts"
    return torch.arange(each).remainder(moe.num_experts).view(tokens, -1)


def kind(piece: Held, config: ModelConfig) -> str:
    """What it is held for."""
    where = piece.where.removeprefix("ffn.")
    width = piece.shape[-1] if piece.shape else 0
    if where.startswith("attention"):
        core = where == "attention" or where.endswith("norm")
        return "attention: core, norms" if core else "attention: inputs of maps"
    if where.endswith("norm"):
        return "norms of the block"
    if not piece.dtype.is_floating_point:
        return "indices"
    if where.startswith("router"):
        return "router"
    if width in _widths(config.hidden_size):
        return "inputs of experts"
    return "inside SwiGLU" if width in _widths(config.moe.expert_size) else "weights of rows"


def _widths(size: int) -> tuple[int, int]:
    """Of rows that wide, and of their scales."""
    return size, -(-size // BLOCK)


def moe_bytes(config: ModelConfig, form: str) -> float:
    """Bytes per token of a mixture of experts by formula, where no rows fill up."""
    D, F, moe = config.hidden_size, config.moe.expert_size, config.moe
    K, S = moe.experts_per_token, moe.num_shared
    router = 4 * D + 4 * moe.num_experts + 12 + 20 * K  # x and affinities in fp32, sums, choices
    routes = (8 + 8 + 4) * K  # there, back, and weights
    if form == "bf16":
        shared, experts = 2 * D + 4 * 2 * S * F, K * (2 * D + 2 * 2 * F + 2)
    else:
        copies = K if form == "fp8 rows" else 1
        shared, experts = _tiles(D) + 2 * _tiles(S * F), copies * _tiles(D) + K * (2 * _tiles(F) + 4)
    return router + routes + shared + experts


def _tiles(size: int) -> int:
    return size + 4 * -(-size // BLOCK)


def state(config: ModelConfig, form: Form, moments: torch.dtype) -> dict[str, float]:
    """Bytes per parameter of a block and its optimizer, after a step, by kind."""
    kernels = form.kernels()
    block = zero(Block(config, 0, kernels, LocalDispatch(kernels.row_multiple, kernels.spread)))
    optimizer = Optimizer(block, OptimConfig(), torch.bfloat16, moments)
    optimizer.step(1e-4)
    b, own = optimizer.buffers, list(block.parameters())
    grads = [p.grad for p in own if p.grad is not None]
    held_moments = [t for s in optimizer.adamw.state.values() for t in s.values() if t.ndim]
    found = {
        "masters": [b.master],
        "gradients": [b.grad],
        "moments": held_moments,
        "bf16 copies": [p for p in own if p.dtype == torch.bfloat16],
        "their gradients": [g for g in grads if g.dtype == torch.bfloat16],
        "fp8 copies": list(fp8_copies(block)),
    }
    parameters = sum(p.numel() for p in own)
    return {name: storage_bytes(tensors) / parameters for name, tensors in found.items()}


def fp8_copies(model: nn.Module) -> Iterator[Tensor]:
    """Numbers and scales of all weights that are kept in FP8."""
    for module in model.modules():
        if isinstance(module, Fp8Linear | Fp8Experts):
            kept = module.quantized()
            assert kept is module.quantized(), "made anew at every call: not kept"
            for part in kept if isinstance(module, Fp8Experts) else (kept,):
                yield from part  # type: ignore[misc]


def lines(tokens: int) -> Iterator[dict[str, Any]]:
    """Every measurement."""
    for part in ("moe", "block"):
        counted = {name: activations(QUARTER, form, tokens, part) for name, form in FORMS.items()}
        base = per_token(counted["bf16"], tokens)
        for name, pieces in counted.items():
            kinds: dict[str, list[Held]] = {}
            for piece in pieces:
                kinds.setdefault(kind(piece, QUARTER), []).append(piece)
            total = per_token(pieces, tokens)
            split = {name: per_token(of, tokens) for name, of in kinds.items()}
            yield line(part, name, {"bytes_per_token": total}, total / base, split)
    v3 = load_preset("v3")
    for name in ("bf16", "fp8 rows", "fp8"):
        total = moe_bytes(v3, name)
        yield line("moe of v3, computed", name, {"bytes_per_token": total}, total / moe_bytes(v3, "bf16"))
    states = {
        "bf16": state(SMALL, FORMS["bf16"], torch.float32),
        "bf16, bf16 moments": state(SMALL, FORMS["bf16"], torch.bfloat16),
        "fp8": state(SMALL, FORMS["fp8"], torch.bfloat16),
    }
    base = sum(states["bf16"].values())
    for name, split in states.items():
        total = sum(split.values())
        yield line("weights", name, {"bytes_per_parameter": total}, total / base, split)


def per_token(pieces: Sequence[Held], tokens: int) -> float:
    """Bytes of all pieces."""
    return sum(piece.nbytes for piece in pieces) / tokens


def line(
    part: str, form: str, total: Mapping[str, float], ratio: float, split: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """One line of the output; `ratio` is to fast bf16."""
    of_it = {name: round(value, 3) for name, value in (split or {}).items() if value}
    named = {unit: round(value, 3) for unit, value in total.items()}
    return {"part": part, "form": form, **named, "ratio": round(ratio, 3), "of_it": of_it}


def readable(found: dict[str, Any]) -> str:
    """The same for people."""
    unit = next(name for name in found if name.startswith("bytes"))
    total = f"{found[unit]:,.2f} {unit.replace('_', ' ')}, {found['ratio']:.3f} of bf16"
    head = f"{found['part']}, {found['form']}: {total}"
    return "\n".join([head, *(f"{value:>14,.2f}  {name}" for name, value in found["of_it"].items())])


def main() -> None:
    """Count everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line a form")
    parser.add_argument("--tokens", type=int, default=512, help="of a forward pass, in multiples of 512")
    asked = parser.parse_args()
    for found in lines(asked.tokens):
        print(json.dumps(found) if asked.json else readable(found), flush=True)


if __name__ == "__main__":
    main()
