"""AdamW over fp32 master weights, and their moving average (report section 4.2; arXiv 1711.05101)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fathom.config.errors import DataError, need
from fathom.config.train import OptimConfig
from fathom.model.transformer import Transformer

MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimizer:
    """AdamW by torch's fused kernel, global clipping before it, an optional EMA after it.

    Matrices decay; norm gains, being vectors, do not (the report leaves this open).
    """

    def __init__(self, model: Transformer, config: OptimConfig) -> None:
        self.config = config
        self.named = dict(model.named_parameters())
        groups = [
            {"params": [p for p in self.named.values() if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in self.named.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        betas = (config.beta1, config.beta2)
        self.adamw = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.eps, fused=True)
        self.ema = {n: p.detach().clone() for n, p in self.named.items()} if config.ema else None

    def clip(self) -> float:
        """Scale the gradients to a norm of at most `config.clip`; the norm before."""
        most = self.config.clip or float("inf")
        return torch.nn.utils.clip_grad_norm_(self.named.values(), most).item()

    def skip(self) -> None:
        """Clear the gradients and change nothing else."""
        self.adamw.zero_grad()

    def step(self, lr: float) -> None:
        """Update with the (clipped) gradients, average, and clear them."""
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        self.adamw.zero_grad()
        if self.ema is not None:
            averages, weights = list(self.ema.values()), [p.detach() for p in self.named.values()]
            torch._foreach_lerp_(averages, weights, 1.0 - self.config.ema)

    def state(self) -> tuple[dict[str, Tensor], int]:
        """Both moments of every parameter as "exp_avg.NAME" and "exp_avg_sq.NAME", and the steps taken."""
        moments, steps = {}, 0
        for name, parameter in self.named.items():
            held = self.adamw.state.get(parameter, {})
            for moment in MOMENTS:
                moments[f"{moment}.{name}"] = held[moment] if held else torch.zeros_like(parameter)
            steps = int(held["step"]) if held else steps
        return moments, steps

    def averages(self, model: Transformer) -> dict[str, Tensor] | None:
        """The averaged model under its own names (routing biases as they are), or None without EMA."""
        return None if self.ema is None else {**model.state_dict(), **self.ema}

    def load(self, moments: Mapping[str, Tensor], steps: int, ema: Mapping[str, Tensor] | None) -> None:
        """Go on from `state`; an average that was not kept starts at the loaded weights."""
        missing = sorted({f"{m}.{n}" for m in MOMENTS for n in self.named} - moments.keys())
        need(
            not missing,
            f"the saved optimizer lacks {', '.join(missing[:3])}",
            fix="resume from an older checkpoint, or start from its weights with a new run",
            error=DataError,
        )
        for name, parameter in self.named.items():
            held = {m: moments[f"{m}.{name}"].to(parameter.device).clone() for m in MOMENTS}
            step = torch.tensor(float(steps), device=parameter.device)
            self.adamw.state[parameter] = {"step": step, **held}
        if self.ema is not None:
            source = ema if ema is not None and self.named.keys() <= ema.keys() else self.named
            self.ema = {n: source[n].detach().to(p.device).clone() for n, p in self.named.items()}
