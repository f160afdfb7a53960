"""AdamW over fp32 master weights, and their average (report sections 3.3.3 and 4.2; arXiv 1711.05101)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fathom.config.errors import DataError, need
from fathom.config.train import OptimConfig
from fathom.train.buffers import Buffers
from fathom.train.narrow_adamw import NarrowAdamW

MOMENTS = ("exp_avg", "exp_avg_sq")
NORM_CHUNK = 1 << 16  # elements; the norm of 4e7 in one go sums in fp32 and is 0.3 % too small


class Optimizer:
    """AdamW by torch's fused kernel, global clipping inside it, an optional EMA after it.

    Matrices decay; norm gains, being vectors, do not (the report leaves this open). The model's parameters
    become views of the optimizer's buffers; with bf16 products its matrices are bf16 copies of fp32 masters.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimConfig,
        dtype: torch.dtype = torch.float32,
        moments: torch.dtype = torch.float32,
    ) -> None:
        """`dtype` is that of products, `moments` that in which both moments are kept: fp32 or bf16."""
        self.config, self.model, self._moments = config, model, moments
        self.buffers = b = Buffers(model, dtype)
        self._flat = [nn.Parameter(part) for part in (b.master[: b.vectors], b.master[b.vectors :])]
        for flat, grad in zip(self._flat, (b.grad[: b.vectors], b.grad[b.vectors :]), strict=True):
            flat.grad = grad
        groups = [
            {"params": [self._flat[0]], "weight_decay": config.weight_decay},
            {"params": [self._flat[1]], "weight_decay": 0.0},
        ]
        betas = (config.beta1, config.beta2)
        self.adamw: torch.optim.Optimizer
        if moments == torch.float32:
            self.adamw = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.eps, fused=True)
        else:
            self.adamw = NarrowAdamW(groups, betas=betas, eps=config.eps)
        self.ema = b.master.clone() if config.ema else None

    def accumulate(self) -> None:
        """To be called after every backward pass of a micro-batch."""
        self.buffers.accumulate()

    def clip(self, norm: Tensor | None = None) -> float:
        """Let the next `step` scale the gradients to a norm of at most `config.clip`; the norm before.

        norm   of all gradients of the network, where other ranks hold some of them
        """
        if norm is None:
            norm = torch.nn.utils.get_total_norm(self.buffers.grad.split(NORM_CHUNK))
        most = self.config.clip or float("inf")
        # what torch's gradient scaler sets: the fused kernel divides by it while it reads the gradients
        self.adamw.grad_scale = (norm / most).clamp(min=1.0).float()  # type: ignore[attr-defined]
        return norm.item()

    def skip(self) -> None:
        """Clear the gradients and change nothing else."""
        self.adamw.grad_scale = None  # type: ignore[attr-defined]
        self.buffers.clear()

    def step(self, lr: float) -> None:
        """Update with the (clipped) gradients, average, and clear them."""
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        self.adamw.grad_scale = None  # type: ignore[attr-defined]
        self.buffers.refresh()
        self.buffers.clear()
        if self.ema is not None:
            self.ema.lerp_(self.buffers.master, 1.0 - self.config.ema)

    def weights(self) -> dict[str, Tensor]:
        """The model under its own names: fp32 masters and routing biases."""
        return {**self.model.state_dict(), **self.buffers.views(self.buffers.master)}

    def averages(self) -> dict[str, Tensor] | None:
        """The averaged model under its own names (routing biases as they are), or None without EMA."""
        return None if self.ema is None else {**self.model.state_dict(), **self.buffers.views(self.ema)}

    def state(self) -> tuple[dict[str, Tensor], int]:
        """Both moments of every parameter as "exp_avg.NAME" and "exp_avg_sq.NAME", and the steps taken."""
        moments: dict[str, Tensor] = {}
        steps = 0
        for moment in MOMENTS:
            held = [self.adamw.state.get(flat, {}) for flat in self._flat]
            parts = zip(self._flat, held, strict=True)
            dtype = self._moments
            whole = torch.cat([h[moment] if h else torch.zeros_like(p, dtype=dtype) for p, h in parts])
            moments |= {f"{moment}.{name}": part for name, part in self.buffers.views(whole).items()}
            steps = int(held[0]["step"]) if held[0] else 0
        return moments, steps

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take what `weights` gave: masters, and the routing biases into the model."""
        self.model.load_state_dict(dict(weights))
        self.buffers.load(weights)

    def load(self, moments: Mapping[str, Tensor], steps: int, ema: Mapping[str, Tensor] | None) -> None:
        """Go on from `state`; an average that was not kept starts at the weights as they are."""
        b = self.buffers
        names = b.views(b.master).keys()
        missing = sorted({f"{m}.{n}" for m in MOMENTS for n in names} - moments.keys())
        need(
            not missing,
            f"the saved optimizer lacks {', '.join(missing[:3])}",
            fix="resume from an older checkpoint, or start from its weights with a new run",
            error=DataError,
        )
        held = {moment: torch.zeros_like(b.master, dtype=self._moments) for moment in MOMENTS}
        for moment, whole in held.items():
            for name, part in b.views(whole).items():
                part.copy_(moments[f"{moment}.{name}"])
        for flat, half in zip(self._flat, (slice(b.vectors), slice(b.vectors, None)), strict=True):
            step = torch.tensor(float(steps), device=b.master.device)
            self.adamw.state[flat] = {"step": step, **{m: whole[half].clone() for m, whole in held.items()}}
        if self.ema is not None:
            kept = ema is not None and names <= ema.keys()
            for name, part in b.views(self.ema).items():
                part.copy_(ema[name] if kept and ema is not None else b.view(b.master, name))
